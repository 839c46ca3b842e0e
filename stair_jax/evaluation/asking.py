"""From cases to answers: one task for each case under each attack, for a driver."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from stair_jax.decoding.task import OuterTask
from stair_jax.errors import UserError
from stair_jax.evaluation.attacks.attack import Attack, Means, Tried
from stair_jax.evaluation.benchmark import Benchmark
from stair_jax.evaluation.case import Answer, Case

Key = tuple[str, str, str]  # benchmark, attack, case


@dataclass(frozen=True)
class AskedSet:
    """A benchmark under an attack.

    Attributes:
      benchmark: that grades.
      attack: on its prompts.
      cases: that are asked.
    """

    benchmark: Benchmark
    attack: Attack
    cases: tuple[Case, ...]

    def __post_init__(self) -> None:
        """Raises a UserError if answers to choose from are to be attacked."""
        if self.is_scored and self.attack.name != "none":
            raise UserError(
                f"{self.benchmark.NAME} compares likelihoods of given answers, which no attack can "
                f"change: leave {self.attack.name!r} out"
            )

    @property
    def is_scored(self) -> bool:
        """Whether log-likelihoods are asked for, and no answers."""
        return any(case.choices for case in self.cases)

    @property
    def name(self) -> str:
        """As the user names it."""
        attack = self.attack.name
        return self.benchmark.NAME + ("" if attack == "none" else f":{attack}")


@dataclass(frozen=True)
class Ask:
    """A case under an attack: what is asked, written down, and gone on with as a whole.

    Attributes:
      benchmark: its name.
      attack: on the prompt.
      case: that is asked.
      kind: of the prompt, see `Benchmark.kind`.
    """

    benchmark: str
    attack: Attack
    case: Case
    kind: str

    @property
    def key(self) -> Key:
        """What tells it from all others."""
        return (self.benchmark, self.attack.name, self.case.id)


def all_asks(sets: Sequence[AskedSet]) -> list[Ask]:
    """The cases of all sets, in order."""
    return [
        Ask(asked.benchmark.NAME, asked.attack, case, asked.benchmark.kind(case))
        for asked in sets
        for case in asked.cases
    ]


class AskTask(OuterTask[list[Answer]]):
    """The answers to one case, without names of model and method."""

    def __init__(self, ask: Ask, means: Means):
        """A task that has asked nothing yet."""
        self._ask, case = ask, ask.case
        means = replace(means, target=means.target.of_kind(ask.kind))
        super().__init__(
            means.target.likelihoods(case.messages, case.choices)
            if case.choices
            else ask.attack.task(case, means)
        )

    def make_result(self, found: Any) -> list[Answer]:
        """Log-likelihoods as one answer, or an answer a try."""
        benchmark, attack, case = self._ask.key
        answer = Answer(benchmark, case, attack)
        if self._ask.case.choices:
            return [replace(answer, likelihoods=tuple(found))]
        is_plain = attack == "none"
        return [_answer(answer, sample, tried, is_plain) for sample, tried in enumerate(found)]


def _answer(found: Answer, sample: int, tried: Tried, is_plain: bool) -> Answer:
    reply = tried.reply
    return replace(
        found,
        sample=sample,
        text=reply.text,
        reasoning=reply.reasoning,
        final=tried.final,
        finish=reply.finish,
        tokens=reply.tokens,
        prompt_tokens=reply.prompt_tokens,
        generated_tokens=reply.generated_tokens,
        steps=reply.steps,
        score=reply.score,
        well_formed=reply.well_formed,
        asked={} if is_plain else tried.asked.to_dict(),
        attack_tokens=tried.attack_tokens,
    )
