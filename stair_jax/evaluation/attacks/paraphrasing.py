"""Attacks that ask the attacker for other wordings of the prompt, each by itself."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

from stair_jax.decoding.sequential import SequentialTask, Steps
from stair_jax.decoding.task import GatherTask, Task
from stair_jax.evaluation.attacks.attack import Attack, Means, Tried, with_prompt
from stair_jax.evaluation.attacks.attempts import (
    Attempt,
    Purse,
    ask_attacker,
    in_rounds,
    share,
    within,
)
from stair_jax.evaluation.attacks.replies import read_text
from stair_jax.evaluation.attacks.settings import AttackerSettings
from stair_jax.evaluation.attacks.wordings import paraphrase
from stair_jax.evaluation.case import Case


@dataclass(frozen=True)
class Paraphrasing(Attack):
    """One query for each way to word the prompt, all side by side."""

    NEEDS = frozenset({"attacker"})

    settings: AttackerSettings = field(default_factory=AttackerSettings)

    @abstractmethod
    def ways(self) -> Sequence[tuple[str, str]]:
        """(label, how the attacker is to word it) of each, at least one."""

    def task(self, case: Case, means: Means) -> Task[list[Tried]]:
        """A task whose result has the tries in the order of the ways.

        A way for which the attacker writes nothing that can be read has no try.
        """
        return SequentialTask(self._all(case, means))

    def _all(self, case: Case, means: Means) -> Steps[list[Tried]]:
        settings, ways = self.settings, self.ways()
        ways = ways[: within(len(ways), settings.max_queries or None)]
        found = yield GatherTask(
            SequentialTask(self._one(case, means, number, label, how, Purse(part)))
            for number, (label, how) in enumerate(ways)
            for part in (share(settings.max_attack_tokens, len(ways), number),)
        )
        return in_rounds([found], self.name)

    def _one(
        self, case: Case, means: Means, number: int, label: str, how: str, purse: Purse
    ) -> Steps[Attempt]:
        assert means.attacker is not None
        key = f"{case.id}/{self.name}/{number}"
        written = yield from ask_attacker(
            means.attacker,
            ({"role": "user", "content": paraphrase(case.prompt, how)},),
            lambda text: read_text(text, "prompt"),
            self.settings,
            purse,
            f"{key}/write",
        )
        if written is None:
            return Attempt(None, None, purse.spent)
        asked = with_prompt(case, written, label=label)
        reply = yield means.target.ask(asked, key, means.method)
        return Attempt(asked, reply, purse.spent)
