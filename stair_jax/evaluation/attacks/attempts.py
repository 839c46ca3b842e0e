"""What adaptive attacks have in common: parts of a budget, asking the attacker, order of tries."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TypeVar

from stair_jax.decoding.sequential import Steps
from stair_jax.evaluation.attacks.attack import Tried, nothing_asked
from stair_jax.evaluation.attacks.settings import AttackerSettings
from stair_jax.evaluation.target import Asked, Message, Reply, Target

T = TypeVar("T")


@dataclass
class Purse:
    """Tokens that one stream may spend.

    Attributes:
      limit: None: no limit.
      spent: so far.
    """

    limit: int | None
    spent: int = 0

    def room(self, most: int) -> int:
        """Most tokens of the next reply, at most `most`; below 1: the purse is empty."""
        return most if self.limit is None else min(most, self.limit - self.spent)


@dataclass(frozen=True)
class Attempt:
    """A prompt that an attacker wrote, with the answer.

    Attributes:
      asked: None: the attacker wrote none that could be read.
      reply: of the target.
      cost: tokens of attacker and judge for this attempt.
      rating: 1 to 10; None: it was not rated, or the rating could not be read.
    """

    asked: Asked | None
    reply: Reply | None
    cost: int
    rating: int | None = None


def share(total: int, parts: int, number: int) -> int | None:
    """What part `number` of `parts` has of a total, as equal as whole numbers are; None: no limit.

    Args:
      total: 0: no limit.
      parts: at least 1.
      number: from 0; the first ones have one more where it does not divide.
    """
    return total // parts + (number < total % parts) if total else None


def within(most: int, limit: int | None) -> int:
    """The smaller of two numbers, of which one may be no limit."""
    return most if limit is None else min(most, limit)


def ask_attacker(
    attacker: Target,
    messages: Sequence[Message],
    read: Callable[[str], T | None],
    settings: AttackerSettings,
    purse: Purse,
    key: str,
) -> Steps[T | None]:
    """Asks until a reply can be read; None: none could within the tries or the purse.

    Args:
      attacker: that is asked.
      messages: of the chat.
      read: takes the text of a reply; None: it cannot be read.
      settings: of the sampling, and how often.
      purse: that pays.
      key: of the random keys.
    """
    tries = settings.tries if settings.temperature > 0 else 1  # a greedy reply stays the same
    for number in range(tries):
        room = purse.room(settings.max_tokens)
        if room < 1:
            return None
        asked = Asked(
            tuple(messages),
            temperature=settings.temperature,
            top_p=settings.top_p,
            max_tokens=room,
        )
        # Greedy but for the temperature of its own: endpoints know no other method of sampling.
        reply = yield attacker.ask(asked, f"{key}/{number}", "greedy")
        purse.spent += reply.generated_tokens
        if (found := read(reply.final)) is not None:
            return found
        if reply.finish == "too_long":  # the chat has no room, however often it is asked
            return None
    return None


def in_rounds(streams: Iterable[Sequence[Attempt]], name: str) -> list[Tried]:
    """The tries of several streams in a common order: the first of each, the second of each, ...

    Args:
      streams: attempts in the order of each stream.
      name: of the attack, for the label where there is no try at all.
    """
    tries, spent = [], 0
    for attempts in zip_longest(*streams):
        for attempt in attempts:
            if attempt is None:
                continue
            spent += attempt.cost
            if attempt.asked is not None and attempt.reply is not None:
                tries.append(Tried(attempt.asked, attempt.reply, attempt.reply.final, spent))
    return tries or [nothing_asked(f"{name}: no prompt of the attacker could be read", spent)]
