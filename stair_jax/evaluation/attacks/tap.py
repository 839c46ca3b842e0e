"""TAP: a tree of refined prompts, pruned before and after the target is asked.

Mehrotra et al., "Tree of Attacks" (arXiv 2312.02119), algorithm 1, with our wordings. The branches
of a level do not wait for each other; the next level begins with the best of all of them.
"""

from dataclasses import dataclass, field
from typing import NamedTuple, Self

from stair_jax.decoding.requests import request_key
from stair_jax.decoding.sequential import SequentialTask, Steps
from stair_jax.decoding.task import GatherTask, Task
from stair_jax.evaluation.attacks.attack import Attack, Means, Tried, with_prompt
from stair_jax.evaluation.attacks.attempts import (
    Attempt,
    Purse,
    ask_attacker,
    in_rounds,
    share,
)
from stair_jax.evaluation.attacks.rating import judge_rates, rate
from stair_jax.evaluation.attacks.refining import Turn, Written, chat, read_written, turn_of
from stair_jax.evaluation.attacks.replies import read_object
from stair_jax.evaluation.attacks.settings import AttackSettings, TapSettings
from stair_jax.evaluation.attacks.wordings import APPROACHES, topic_request
from stair_jax.evaluation.case import Case
from stair_jax.search.judging.fence import mark_of

Turns = tuple[Turn, ...]


class _Branch(NamedTuple):
    """What became of one refinement, and the chat that it would be refined in."""

    attempt: Attempt
    turns: Turns


@dataclass(frozen=True)
class Tap(Attack):
    """A tree of refinements; its tries are in the order of its levels.

    A level asks at most as many queries as are left, and shares the tokens that are left.
    """

    NAME = "tap"
    NEEDS = frozenset({"attacker"})
    PAPER = "2312.02119"

    settings: TapSettings = field(default_factory=TapSettings)

    @classmethod
    def from_settings(cls, settings: AttackSettings) -> Self:
        """With its section."""
        return cls(settings.tap)

    def task(self, case: Case, means: Means) -> Task[list[Tried]]:
        """A task whose result has the tries of all levels.

        Raises:
          UserError: the judge is to rate, and there is none that can.
        """
        judge_rates(self.settings, means)
        return SequentialTask(self._tree(case, means))

    def _tree(self, case: Case, means: Means) -> Steps[list[Tried]]:
        settings = self.settings
        leaves: list[Turns] = [()]
        attempts: list[Attempt] = []
        for level in range(settings.depth):
            branches = yield from self._level(case, means, level, leaves, attempts)
            attempts += [branch.attempt for branch in branches]
            asked = [branch for branch in branches if branch.attempt.reply is not None]
            ratings = [branch.attempt.rating or 0 for branch in asked]
            if not asked or max(ratings) >= settings.success:
                break
            # The sort is stable: of equal ratings the first ones are kept.
            best = sorted(range(len(asked)), key=lambda number: -ratings[number])
            leaves = [asked[number].turns for number in best[: settings.width]]
        return in_rounds([attempts], self.name)

    def _level(
        self, case: Case, means: Means, level: int, leaves: list[Turns], before: list[Attempt]
    ) -> Steps[list[_Branch]]:
        """All refinements of the leaves, as far as the budget goes."""
        settings = self.settings
        places = [turns for turns in leaves for _ in range(settings.branching)]
        if settings.max_queries:
            used = sum(attempt.reply is not None for attempt in before)
            places = places[: settings.max_queries - used]
        left = settings.max_attack_tokens - sum(attempt.cost for attempt in before)
        if not places or (settings.max_attack_tokens and left < 1):
            return []
        limit = max(0, left) if settings.max_attack_tokens else 0
        tasks = [
            SequentialTask(
                self._branch(case, means, f"{level}/{number}", turns, number, Purse(part))
            )
            for number, turns in enumerate(places)
            for part in (share(limit, len(places), number),)
        ]
        return (yield GatherTask(tasks))

    def _branch(
        self, case: Case, means: Means, place: str, turns: Turns, number: int, purse: Purse
    ) -> Steps[_Branch]:
        """One refinement: written, kept if it is on topic, asked, rated."""
        settings, key = self.settings, f"{case.id}/{self.name}/{place}"
        assert means.attacker is not None
        messages = chat(case, APPROACHES[number % len(APPROACHES)], turns)
        written = yield from ask_attacker(
            means.attacker, messages, read_written, settings, purse, f"{key}/write"
        )
        if written is None or not (yield from self._is_on_topic(case, means, written, purse, key)):
            return _Branch(Attempt(None, None, purse.spent), turns)
        asked = with_prompt(case, written.prompt, label=written.label)
        reply = yield means.target.ask(asked, key, means.method)
        rating = yield from rate(case, reply, means, settings, purse, f"{key}/rate")
        turn = turn_of(case, written, reply, rating, means.seed, key)
        kept = (*turns, turn)[-settings.kept_turns :]
        return _Branch(Attempt(asked, reply, purse.spent, rating), kept)

    def _is_on_topic(
        self, case: Case, means: Means, written: Written, purse: Purse, key: str
    ) -> Steps[bool]:
        """Whether a prompt asks for what the case does; a reply that says neither keeps it."""
        assert means.attacker is not None
        mark = mark_of(request_key(means.seed, key, "topic"))
        content = topic_request(case.prompt, written.prompt, mark)
        found = yield from ask_attacker(
            means.attacker,
            ({"role": "user", "content": content},),
            lambda text: read_object(text, {"same_request": bool}),
            self.settings,
            purse,
            f"{key}/topic",
        )
        return found is None or found["same_request"]
