"""Harmless prompts that sound harmful, written for the study: `harmless_frames.txt`.

Public sets of such prompts are what over-refusal is reported on, or have questions that a model
answers anyway. These are short requests with a word or a scene of harm, which a careful model does
refuse: the searches need them, so that pairs teach to comply as well as to refuse.
"""

import hashlib
import itertools
import re
from collections.abc import Iterator
from importlib import resources
from typing import Any

from stair_jax.data.decontamination import normalised
from stair_jax.data.study.texts import Item, ordered, prompt_id
from stair_jax.errors import UserError

NAME = "harmless_words"
SOURCE = "harmless words"  # in the rows
PLACE = "the package"  # where they come from, in records
_FILE = "harmless_frames.txt"
_PLACE = re.compile(r"\{([^{}]*)\}")


def harmless_words(seed: int) -> list[Item]:
    """The prompts with their ids, in the order of the seed's hashes."""
    found = (Item(prompt_id(NAME, prompt), prompt, {}) for prompt in read_frames(_text()))
    return ordered(found, lambda item: item.id, seed)


def read_frames(text: str) -> list[str]:
    """The prompts of a text of frames, in its order.

    A line is a frame, but for empty ones and those that begin with "#". Each place {one|another} of
    a frame stands for one of its parts, in every combination.

    Raises:
      UserError: names the line, in which a brace is not closed, a place has fewer than two parts or
        an empty one, or a prompt is there already, by its normalised text.
    """
    prompts: dict[str, str] = {}  # by the normalised text
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        for prompt in _filled(line.strip(), number):
            plain = normalised(prompt)
            if plain in prompts:
                raise _error(number, f"{prompt!r} is there already")
            prompts[plain] = prompt
    return list(prompts.values())


def harmless_words_record() -> dict[str, Any]:
    """What `data.json` says of them, as of a public set."""
    text = _text()
    return {
        "role": "training",
        "licence": "Apache-2.0",
        "page": f"stair_jax/data/study/{_FILE}",
        "place": PLACE,
        "revision": "",
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "rows": len(read_frames(text)),
        "unreadable": 0,
    }


def _filled(frame: str, line: int) -> Iterator[str]:
    """The prompts of a frame: the parts of its first place change last."""
    pieces = _PLACE.split(frame)  # text, place, text, place, ..., text
    if any(brace in text for text in pieces[::2] for brace in "{}"):
        raise _error(line, "a brace is not closed, or is in another one")
    places = [place.split("|") for place in pieces[1::2]]
    if any(len(parts) < 2 or not all(map(str.strip, parts)) for parts in places):
        raise _error(line, "a place has two or more parts, as in {one|another}, and no empty one")
    options = [places[at // 2] if at % 2 else [text] for at, text in enumerate(pieces)]
    return map("".join, itertools.product(*options))


def _text() -> str:
    return resources.files(__package__).joinpath(_FILE).read_text("utf-8")


def _error(line: int, reason: str) -> UserError:
    return UserError(f"{_FILE}, line {line}: {reason}")
