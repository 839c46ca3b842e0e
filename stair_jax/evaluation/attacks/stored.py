"""Prompts of attacks that were made elsewhere, joined with the cases of a benchmark.

A case without a stored prompt is missing: to ask its plain prompt in the name of the attack would
make the target look safer than it is. Files hold the plain prompt where an attack made none (in
StrongREJECT's, 9 of 313 under PAIR and 84 under PAP's authority endorsement); those are asked, as
in published figures, unless the settings say that they are missing too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from stair_jax.decoding.sequential import SequentialTask, Steps
from stair_jax.decoding.task import Task
from stair_jax.errors import UserError, did_you_mean
from stair_jax.evaluation.attacks.attack import (
    Means,
    Transform,
    Tried,
    nothing_asked,
    with_prompt,
)
from stair_jax.evaluation.attacks.rows import read_rows, texts_of
from stair_jax.evaluation.attacks.settings import StoredSettings
from stair_jax.evaluation.case import Case
from stair_jax.evaluation.target import Asked

# {attack: {id of the case: its prompts}}
StoredPrompts = Mapping[str, Mapping[str, tuple[str, ...]]]

PREFIX = "stored:"
_UNNAMED = "file"  # the attack of rows that name none


@dataclass(frozen=True)
class StoredFile:
    """The prompts of a user's file.

    Attributes:
      prompts: of the cases, in the order of the file.
      unmatched: rows that belong to no case, such as those of another benchmark.
    """

    prompts: StoredPrompts
    unmatched: int


@dataclass(frozen=True)
class Coverage:
    """For how many cases there is a prompt.

    Attributes:
      name: of the attack.
      cases: all.
      asked: those with a prompt that is asked.
      absent: those without a stored one.
      same: those whose stored ones are the plain prompt, and are not asked.
    """

    name: str
    cases: int
    asked: int
    absent: int
    same: int

    def __str__(self) -> str:
        """One line."""
        line = f"{self.name}: prompts for {self.asked} of {self.cases} cases"
        if self.asked == self.cases:
            return line
        return (
            f"{line}; missing are {self.absent} without a stored prompt and {self.same} whose "
            "stored prompt is the plain one"
        )


def read_stored(path: str, cases: Sequence[Case]) -> StoredFile:
    """Reads a user's file, and joins its rows with cases by id, else by the plain prompt.

    Args:
      path: of rows {id or prompt, attack, attacked_prompt}. Several rows of one case and attack are
        several tries, in their order; a row without `attack` is of the attack "file".
      cases: of the benchmark.

    Raises:
      UserError: the file cannot be read, or a row lacks a column.
    """
    ids = {case.id for case in cases}
    by_prompt = {_squeezed(case.prompt): case.id for case in cases}
    prompts: dict[str, dict[str, tuple[str, ...]]] = {}
    unmatched = 0
    for where, row in read_rows(path):
        (attacked,) = texts_of(row, where, ("attacked_prompt",))
        id = _case_of(row, where, ids, by_prompt)
        if id is None:
            unmatched += 1
            continue
        of_attack = prompts.setdefault(str(row.get("attack") or _UNNAMED), {})
        of_attack[id] = (*of_attack.get(id, ()), attacked)
    return StoredFile(prompts, unmatched)


def _case_of(
    row: Mapping[str, object], where: str, ids: set[str], by_prompt: Mapping[str, str]
) -> str | None:
    """The id of a row's case; None: there is no such case."""
    id, prompt = row.get("id"), row.get("prompt")
    if id is None and not isinstance(prompt, str):
        raise UserError(f"{where}: it must have the column 'id' or 'prompt', to find its case by")
    if id is not None and str(id) in ids:
        return str(id)
    return by_prompt.get(_squeezed(prompt)) if isinstance(prompt, str) else None


def joined(own: Mapping[str, Mapping[str, str]], others: StoredPrompts) -> StoredPrompts:
    """Prompts that come with a benchmark, and those of a file, which go first by name."""
    mine = {
        attack: {id: (prompt,) for id, prompt in prompts.items()} for attack, prompts in own.items()
    }
    return {**mine, **others}


def _squeezed(text: str) -> str:
    return " ".join(text.split())


@dataclass(frozen=True)
class Stored(Transform):
    """The stored prompts of one attack.

    Attributes:
      attack: as the file calls it; the name here is "stored:" and that.
      prompts: by id of the case.
      settings: what becomes of plain prompts.
    """

    NAME = "stored"
    NEEDS = frozenset({"stored"})

    attack: str = ""
    prompts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    settings: StoredSettings = field(default_factory=StoredSettings)

    @property
    def name(self) -> str:
        """With the name of the stored attack, as there are several."""
        return PREFIX + self.attack

    def apply(self, case: Case, draw: object) -> Sequence[Asked]:
        """One chat a stored prompt; none where there is nothing to ask."""
        plain = _squeezed(case.prompt)
        return [
            with_prompt(case, prompt)
            for prompt in self.prompts.get(case.id, ())
            if prompt.strip()
            and (self.settings.same_as_plain == "ask" or _squeezed(prompt) != plain)
        ]

    def task(self, case: Case, means: Means) -> Task[list[Tried]]:
        """Asks all of them; a single missing try where there are none."""
        return SequentialTask(self._asked(case, means))

    def _asked(self, case: Case, means: Means) -> Steps[list[Tried]]:
        if not self.apply(case, None):
            return [nothing_asked(f"{self.name}: there is no prompt for this case")]
        return (yield super().task(case, means))

    def coverage(self, cases: Sequence[Case]) -> Coverage:
        """For how many cases there is something to ask."""
        absent = sum(case.id not in self.prompts for case in cases)
        asked = sum(bool(self.apply(case, None)) for case in cases)
        return Coverage(self.name, len(cases), asked, absent, len(cases) - asked - absent)


def make_stored(name: str, settings: StoredSettings, stored: StoredPrompts) -> Stored:
    """An attack of stored prompts by its name, "stored:" and the name of the attack.

    Raises:
      UserError: it names none, or none that is stored.
    """
    attack = name.removeprefix(Stored.NAME).removeprefix(":")
    if attack not in stored:
        known = [PREFIX + other for other in stored]
        raise UserError(f"there are no stored prompts of {name!r}: {did_you_mean(name, known)}")
    return Stored(attack, stored[attack], settings)
