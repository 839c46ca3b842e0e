"""Test-time search by the name of a model: NAME, NAME:best-of-8, NAME:beam-2x4, NAME:dvts-2x4.

With the ending "-self-reward" the model's own judgements guide the search, else the reward model.
The name is the one knob that all clients have; what it cannot say is in the field `search` of a
body.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from stair_jax.errors import UserError
from stair_jax.inference.candidates import TestTimeSettings
from stair_jax.inference.methods import SELF_REWARD, Method, parse_method
from stair_jax.settings import Settings, setting

_SHORT = {"best_of_n": "best-of", "beam_search": "beam", "dvts": "dvts"}
_SELF_REWARD = "-self-reward"
_SUFFIX = re.compile(r"(best-of|beam|dvts)-(\d[\dx]*?)(-self-reward)?", re.ASCII)
_MOST = 2**16  # of each number, as in the settings


class UnknownModelError(UserError):
    """There is no model of this name."""


@dataclass(frozen=True)
class SearchFields(Settings):
    """The field `search` of a body.

    Attributes:
      method: as `stair-jax answer --method` reads it: "best_of_n", "beam_search:2x4",
        "dvts_self_reward", ...; empty: that of the model's name.
      n: answers of best-of-N; None: as the method or the server says, and so the next.
      width: answers that a beam search keeps, or subtrees of DVTS.
      successors: steps that are tried after each.
      max_depth: steps, before what is open is sampled to its end.
      details: whether the answer has its candidates with their scores.
    """

    method: str = ""
    n: int | None = setting(None, least=1, most=_MOST)
    width: int | None = setting(None, least=1, most=_MOST)
    successors: int | None = setting(None, least=1, most=_MOST)
    max_depth: int | None = setting(None, least=1, most=2**15)
    details: bool = False

    def __post_init__(self) -> None:
        """Raises a UserError that names a field that cannot be."""
        super().__post_init__()
        if self.method and not parse_method(self.method).is_search:
            raise UserError(
                f"method is {self.method!r}, which is no search: use best_of_n, beam_search or dvts"
            )

    @property
    def numbers(self) -> dict[str, int]:
        """Numbers that are given, by the field of `TestTimeSettings`."""
        names = ("n", "width", "successors", "max_depth")
        given: dict[str, Any] = {name: getattr(self, name) for name in names}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class Search:
    """The search that a request asks for.

    Attributes:
      method: with its size.
      max_depth: of its steps.
      details: whether the answer has its candidates.
    """

    method: Method
    max_depth: int
    details: bool = False

    def settings(self, settings: Any) -> Any:
        """Settings of an answer (`AnswerSettings`) that is found by this search."""
        return replace(settings, method=str(self.method), max_depth=self.max_depth)


def suffix_of(method: Method) -> str:
    """The suffix that stands for a search with a size."""
    own = f"{_SHORT[method.search]}-{method.shown_size}"
    return own + _SELF_REWARD if method.is_self_rewarded else own


def read_suffix(suffix: str) -> Method | None:
    """The search that a suffix stands for; None: there is no such one."""
    found = _SUFFIX.fullmatch(suffix)
    if found is None:
        return None
    short, size, ending = found.groups()
    name = next(name for name, own in _SHORT.items() if own == short)
    try:
        return parse_method(f"{name}{SELF_REWARD if ending else ''}:{size}")
    except UserError:
        return None


def model_names(
    name: str, settings: TestTimeSettings, is_guided: bool, is_structured: bool
) -> Iterator[str]:
    """The names that are listed: the model, and its searches of the sizes of the settings.

    Args:
      name: of the model.
      settings: of the server.
      is_guided: whether it has a reward model.
      is_structured: whether the model's answers have an output block, for self-reward.
    """
    yield name
    for is_known, ending in ((is_guided, ""), (is_structured, SELF_REWARD)):
        for search in _SHORT if is_known else ():
            method = parse_method(search + ending).sized(settings)
            yield f"{name}:{suffix_of(method)}"


def read_model(model: str, name: str) -> Method | None:
    """The search in the name of a model; None: it has none.

    Args:
      model: as a request has it.
      name: of the model that is served.

    Raises:
      UnknownModelError: it is another model, or there is no such search.
    """
    if model == name:
        return None
    suffix = model.removeprefix(f"{name}:")
    method = None if suffix == model else read_suffix(suffix)
    if method is None:
        raise UnknownModelError(
            f"there is no model {model!r}: use {name!r}, or with a search {name + ':best-of-8'!r}, "
            f"{name + ':beam-2x4'!r}, {name + ':dvts-2x4'!r}"
        )
    return method


def choose_search(
    named: Method | None, fields: SearchFields | None, settings: TestTimeSettings
) -> Search | None:
    """The search that name and body ask for; None: neither does.

    Args:
      named: of `read_model`.
      fields: of the body.
      settings: of the server, for what neither says.

    Raises:
      UserError: the two contradict each other, the body one itself, or it only has numbers.
    """
    fields = fields or SearchFields()
    written = parse_method(fields.method) if fields.method else None
    method = named or written
    if method is None:
        if fields != SearchFields():
            raise UserError(
                "search has no method: give search.method, or a model's name such as NAME:best-of-8"
            )
        return None
    own = replace(settings, **fields.numbers)
    chosen = method.sized(own)
    if written is not None and _unlike(written, chosen):
        raise UserError(
            f"the model's name asks for {chosen}, and search.method for {written}: give one of them"
        )
    _check_numbers(chosen, fields, own)
    return Search(chosen, own.max_depth, fields.details)


def _unlike(written: Method, chosen: Method) -> bool:
    """Whether what is written contradicts what is chosen; without a size it says nothing of it."""
    return written.name != chosen.name or written.size not in ((), chosen.size)


def _check_numbers(chosen: Method, fields: SearchFields, own: TestTimeSettings) -> None:
    """Raises a UserError where a number is not that of the search, or none of its own."""
    used = chosen.settings(own)
    for name, value in fields.numbers.items():
        if name not in _numbers_of(chosen):
            raise UserError(f"search.{name} says nothing of {chosen.name}: leave it out")
        if getattr(used, name) != value:
            raise UserError(f"search.{name} is {value}, and the search {chosen}: give one of them")


def _numbers_of(method: Method) -> tuple[str, ...]:
    return ("n",) if method.search == "best_of_n" else ("width", "successors", "max_depth")
