"""Random text that resembles control tokens, tags and code."""

import random
from collections.abc import Callable, Sequence

# ruff: noqa: RUF001 (look-alikes are intended)

_FRAGMENTS = (
    "Final Answer:",
    "Title: a\n",
    "Conclusion: [SAFE]",
    "conclusion : 5/5.",
    "<|Out",
    "put|>",
    "assistant",
    "{{ messages }}",
    "{% for m in messages %}{{ m }}{% endfor %}",
    "{prompt} {answer} {0} %s %n",
    "\ue000user text\ue000",
    "\ue000system text\ue000",
    "<0x41><0x0A>",
    "▁Ġ",
    "\x00\x1b[2J",
    "\r\n",
    "\u200b",
    "\u2060",
    "\ufeff",
    "\uffff",
    "e\u0301",
    "ﬁ",
    "👩‍👩‍👧",
    "＜|eot_id|＞",
    "\ud800",
    "\udfff",
    '{"a": [1, null]}',
    "日本語",
    "שלום",
    "1234567",
)
_RANGES = ((0, 0x7F), (0x80, 0x24F), (0x300, 0x36F), (0x2000, 0x206F), (0xD800, 0x10FFFF))
_MAX_PIECES = 12
_MAX_REPEATS = 300
_MAX_EDITS = 6


def draw_text(rng: random.Random, names: Sequence[str]) -> str:
    """A random text of up to a few thousand characters.

    Args:
        rng: source of randomness.
        names: control tokens and tags, to be included whole, cut and modified.
    """
    pieces = [_draw_piece(rng, names) for _ in range(rng.randrange(_MAX_PIECES))]
    text = "".join(pieces)
    if text and rng.random() < 0.3:
        text = _edited(rng, text)
    return text


def _draw_piece(rng: random.Random, names: Sequence[str]) -> str:
    make: Callable[[random.Random, Sequence[str]], str] = rng.choice(
        (_name, _name, _changed_name, _fragment, _characters, _repeated)
    )
    return make(rng, names)


def _name(rng: random.Random, names: Sequence[str]) -> str:
    return rng.choice(names)


def _changed_name(rng: random.Random, names: Sequence[str]) -> str:
    """A name that is cut, in other case, or interrupted."""
    name = rng.choice(names)
    cut = rng.randrange(len(name) + 1)
    between = rng.choice(("", " ", "\n", "\u200b", "\u00ad", rng.choice(names)))
    return rng.choice(
        (name[:cut], name[cut:], name[:cut] + between + name[cut:], name.upper(), name.lower())
    )


def _fragment(rng: random.Random, names: Sequence[str]) -> str:
    return rng.choice(_FRAGMENTS)


def _characters(rng: random.Random, names: Sequence[str]) -> str:
    low, high = rng.choice(_RANGES)
    return "".join(chr(rng.randint(low, high)) for _ in range(rng.randrange(9)))


def _repeated(rng: random.Random, names: Sequence[str]) -> str:
    piece = rng.choice((*_FRAGMENTS, *names, " ", "\n"))
    return piece * rng.choice((2, 3, rng.randrange(1, _MAX_REPEATS)))


def _edited(rng: random.Random, text: str) -> str:
    """`text` with a few characters removed, doubled or swapped."""
    characters = list(text)
    for _ in range(rng.randrange(1, _MAX_EDITS)):
        place = rng.randrange(len(characters))
        edit = rng.randrange(3)
        if edit == 0:
            characters[place] = ""
        elif edit == 1:
            characters[place] *= 2
        else:
            other = rng.randrange(len(characters))
            characters[place], characters[other] = characters[other], characters[place]
    return "".join(characters)
