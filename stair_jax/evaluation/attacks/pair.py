"""PAIR: streams in which an attacker refines its prompt by what the target says.

Chao et al., "Jailbreaking Black Box Large Language Models in Twenty Queries" (arXiv 2310.08419),
algorithm 1, with our wordings. Streams do not wait for each other, and each goes on to its own
success or end: what was found within fewer queries is read from the order of the tries.
"""

from dataclasses import dataclass, field
from typing import Self

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
from stair_jax.evaluation.attacks.rating import judge_rates, rate
from stair_jax.evaluation.attacks.refining import Turn, chat, read_written, turn_of
from stair_jax.evaluation.attacks.settings import AttackSettings, PairSettings
from stair_jax.evaluation.attacks.wordings import APPROACHES
from stair_jax.evaluation.case import Case


@dataclass(frozen=True)
class Pair(Attack):
    """Streams of refinement, side by side.

    The tries are in the order first of each stream, second of each stream, and so on.
    """

    NAME = "pair"
    NEEDS = frozenset({"attacker"})
    PAPER = "2310.08419"

    settings: PairSettings = field(default_factory=PairSettings)

    @classmethod
    def from_settings(cls, settings: AttackSettings) -> Self:
        """With its section."""
        return cls(settings.pair)

    def task(self, case: Case, means: Means) -> Task[list[Tried]]:
        """A task whose result has the tries of all streams.

        Raises:
          UserError: the judge is to rate, and there is none that can.
        """
        judge_rates(self.settings, means)
        return SequentialTask(self._all(case, means))

    def _all(self, case: Case, means: Means) -> Steps[list[Tried]]:
        streams = range(self.settings.streams)
        found = yield GatherTask(SequentialTask(self._stream(case, means, n)) for n in streams)
        return in_rounds(found, self.name)

    def _stream(self, case: Case, means: Means, number: int) -> Steps[list[Attempt]]:
        """One stream; its last try is not rated, as nothing follows from that."""
        settings, attacker = self.settings, means.attacker
        assert attacker is not None
        purse = Purse(share(settings.max_attack_tokens, settings.streams, number))
        queries = share(settings.max_queries, settings.streams, number)
        iterations = within(settings.iterations, queries)
        approach = APPROACHES[number % len(APPROACHES)]
        turns: tuple[Turn, ...] = ()
        attempts: list[Attempt] = []
        for iteration in range(iterations):
            before, key = purse.spent, f"{case.id}/{self.name}/{number}/{iteration}"
            written = yield from ask_attacker(
                attacker, chat(case, approach, turns), read_written, settings, purse, f"{key}/write"
            )
            if written is None:
                attempts.append(Attempt(None, None, purse.spent - before))
                break
            asked = with_prompt(case, written.prompt, label=written.label)
            reply = yield means.target.ask(asked, key, means.method)
            rating = None
            if iteration + 1 < iterations:
                rating = yield from rate(case, reply, means, settings, purse, f"{key}/rate")
            attempts.append(Attempt(asked, reply, purse.spent - before, rating))
            if rating is not None and rating >= settings.success:
                break
            turn = turn_of(case, written, reply, rating, means.seed, key)
            turns = (*turns, turn)[-settings.kept_turns :]
        return attempts
