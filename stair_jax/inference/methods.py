"""Names of the methods that answer: "greedy", "best_of_n", "beam_search_self_reward:4x4", ..."""

import difflib
import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeVar

from stair_jax.errors import UserError
from stair_jax.inference.candidates import TestTimeSettings

S = TypeVar("S", bound=TestTimeSettings)

SELF_REWARD = "_self_reward"  # ending of the methods that the model's own judgements guide
_SIZES = {  # fields of `TestTimeSettings` that stand behind the colon, with an "x" between them
    "best_of_n": ("n",),
    "beam_search": ("width", "successors"),
    "dvts": ("width", "successors"),
}
_EXAMPLES = {"best_of_n": "16", "beam_search": "4x4", "dvts": "4x4"}
_MOST = 2**16  # of each number, as in the settings
SEARCHES = (*_SIZES, *(name + SELF_REWARD for name in _SIZES))
METHODS = ("greedy", "sample", *SEARCHES)


@dataclass(frozen=True)
class Method:
    """How a model answers, as its name says.

    Attributes:
      name: one of `METHODS`.
      size: numbers that go before those of the settings: (N,) of best-of-N, (width, successors) of
        beam search and DVTS; (): the name has none.
    """

    name: str
    size: tuple[int, ...] = ()

    def __str__(self) -> str:
        """As `parse_method` reads it."""
        return self.name + (f":{self.shown_size}" if self.size else "")

    @property
    def shown_size(self) -> str:
        """The size as it stands behind the colon; "": there is none."""
        return "x".join(map(str, self.size))

    @property
    def is_search(self) -> bool:
        """Whether it compares several candidates, by their scores."""
        return self.name in SEARCHES

    @property
    def is_self_rewarded(self) -> bool:
        """Whether the model's own judgements guide its search."""
        return self.name.endswith(SELF_REWARD)

    @property
    def is_guided(self) -> bool:
        """Whether a reward model guides its search."""
        return self.is_search and not self.is_self_rewarded

    @property
    def search(self) -> str:
        """Name of the search, whoever guides it."""
        return self.name.removesuffix(SELF_REWARD)

    @property
    def self_rewarded(self) -> "Method":
        """The same search, guided by the model's own judgements."""
        return replace(self, name=self.search + SELF_REWARD)

    def settings(self, settings: S) -> S:
        """Settings of test-time search with the numbers of the name in place of theirs."""
        if not self.size:
            return settings
        return replace(settings, **dict(zip(_SIZES[self.search], self.size, strict=True)))

    def sized(self, settings: TestTimeSettings) -> "Method":
        """The same with its size, that of the settings where the name has none."""
        own = self.settings(settings)
        return replace(self, size=tuple(getattr(own, name) for name in _SIZES.get(self.search, ())))

    def num_candidates(self, settings: TestTimeSettings) -> int:
        """How many candidates of one prompt are sampled side by side."""
        own = self.settings(settings)
        if self.search == "best_of_n":
            return own.n
        return own.width * own.successors if self.is_search else 1


@lru_cache(maxsize=256)
def parse_method(text: str, where: str = "method", names: tuple[str, ...] = METHODS) -> Method:
    """Reads a method: a name, and for a search a size, as in "best_of_n:16" or "dvts:4x4".

    Args:
      text: the method.
      where: it stands, for a message.
      names: that it may have.

    Raises:
      UserError: there is no such method, or its size cannot be.
    """
    name, colon, size = text.partition(":")
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f": did you mean {near[0]!r}?" if near else ""
        known = ", ".join(map(repr, names))
        raise UserError(f"{where} is {text!r}: it must be one of {known}{hint}")
    method = Method(name)
    if not colon:
        return method
    if not method.is_search:
        raise UserError(f"{where} is {text!r}: {name} samples one answer, and has no size")
    fields = _SIZES[method.search]
    numbers = re.fullmatch("x".join([r"([1-9]\d{0,9})"] * len(fields)), size, re.ASCII)
    if numbers is None or max(map(int, numbers.groups())) > _MOST:
        form = "x".join(field.upper() for field in fields)
        raise UserError(
            f"{where} is {text!r}: write {name}:{form} in whole numbers from 1 to {_MOST}, such as "
            f"{name}:{_EXAMPLES[method.search]}"
        )
    return Method(name, tuple(map(int, numbers.groups())))


def is_search(method: str) -> bool:
    """Whether a method, with or without a size, compares several candidates."""
    return method.partition(":")[0] in SEARCHES
