"""Ids, orders and lengths of texts that depend on nothing but the texts."""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from stair_jax.data import token_lengths
from stair_jax.data.decontamination import normalised
from stair_jax.data.study.public_set import PublicSet, Row
from stair_jax.data.token_lengths import TokenCounter

# How many tokens a row of (prompt, answer) has, without the chat template around it.
CountTokens = Callable[[str, str], int]

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_T = TypeVar("_T")


class Item(NamedTuple):
    """A row of a public set with the id that it has in the study."""

    id: str
    prompt: str
    row: Row


def hash_number(*parts: object) -> int:
    """A number below 2^256 that stands for texts."""
    joined = "\0".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(joined.encode(errors="surrogatepass")).digest())


def pick(options: Sequence[_T], *parts: object) -> _T:
    """One of several options, always the same one for the same texts."""
    return options[hash_number(*parts) % len(options)]


def prompt_id(name: str, prompt: str) -> str:
    """The id of a prompt of a set: 12 hexadecimal digits of its normalised text's hash."""
    return f"{name}:{hash_number(normalised(prompt)):064x}"[: len(name) + 13]


def ordered(rows: Iterable[_T], key: Callable[[_T], str], *seed: object) -> list[_T]:
    """Rows in the order of the hashes of seed and id, which no other row has a part in."""
    return sorted(rows, key=lambda row: hash_number(*seed, key(row)))


def items(one: PublicSet, rows: Iterable[Row], seed: int, with_input: bool = False) -> list[Item]:
    """The rows of a set with their ids, each prompt once, in an order of their own.

    Args:
      one: the set.
      rows: of it, in any order: of rows with the same prompt, the first in the order of their JSON
        counts.
      seed: of the order.
      with_input: put what the column "input" or "context" has behind the prompt.
    """
    found: dict[str, tuple[str, Item]] = {}
    for row in rows:
        prompt = one.prompt_of(row)
        if with_input and (text := given_text(row)):
            prompt = f"{prompt}\n\n{text}"
        name = prompt_id(one.name, prompt)
        made = json.dumps(row, sort_keys=True), Item(name, prompt, row)
        if normalised(prompt) and (name not in found or made[0] < found[name][0]):
            found[name] = made
    return ordered((item for _, item in found.values()), lambda item: item.id, seed)


def given_text(row: Row) -> str:
    """The text that an instruction comes with; "": none."""
    return str(row.get("input") or row.get("context") or "").strip()


def sentences(text: str) -> list[str]:
    """The sentences of a text, as far as their punctuation tells."""
    return [part for part in _SENTENCE_END.split(text.strip()) if part]


def estimate_tokens(prompt: str, answer: str) -> int:
    """About the tokens of a row, as `token_lengths.estimate_tokens`."""
    return token_lengths.estimate_tokens(f"{prompt}\n{answer}")


def token_counter(folder: Path | None) -> CountTokens:
    """Counts with the tokenizer of a Hugging Face folder; None: `estimate_tokens`.

    Raises:
      UserError: the folder has no tokenizer that can be read.
    """
    if folder is None:
        return estimate_tokens
    counter = TokenCounter(folder)
    return lambda prompt, answer: sum(counter([prompt, answer]))
