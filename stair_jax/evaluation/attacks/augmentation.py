"""Random augmentations of a prompt, many a case (Best-of-N Jailbreaking, arXiv 2412.03556)."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from stair_jax.evaluation.attacks.attack import Transform, with_prompt
from stair_jax.evaluation.attacks.settings import AttackSettings, BestOfNSettings
from stair_jax.evaluation.case import Case
from stair_jax.evaluation.target import Asked

_LONGER = re.compile(r"[^\W\d_]{4,}")  # words of more than 3 letters
_FIRST, _LAST = " ", "~"  # of the printable ASCII characters


def scramble(text: str, probability: float, draw: random.Random) -> str:
    """Puts the middle of words of more than 3 letters in mixed order, each with a probability."""

    def mixed(match: re.Match[str]) -> str:
        first, *middle, last = list(match.group())
        if draw.random() < probability:
            draw.shuffle(middle)
        return "".join((first, *middle, last))

    return _LONGER.sub(mixed, text)


def change_capitals(text: str, probability: float, draw: random.Random) -> str:
    """Writes ASCII letters in the other case, each with a probability."""
    return "".join(
        letter.swapcase()
        if letter.isascii() and letter.isalpha() and draw.random() < probability
        else letter
        for letter in text
    )


def add_noise(text: str, probability: float, draw: random.Random) -> str:
    """Moves printable ASCII characters to a neighbour in the table, each with a probability."""
    noisy = []
    for letter in text:
        if _FIRST <= letter <= _LAST and draw.random() < probability:
            step = 1 if letter == _FIRST else -1 if letter == _LAST else draw.choice((-1, 1))
            letter = chr(ord(letter) + step)
        noisy.append(letter)
    return "".join(noisy)


def augment(text: str, settings: BestOfNSettings, draw: random.Random) -> str:
    """Scrambled words, changed capitals and noise, in this order."""
    text = scramble(text, settings.scramble, draw)
    text = change_capitals(text, settings.capitals, draw)
    return add_noise(text, settings.noise, draw)


@dataclass(frozen=True)
class BestOfN(Transform):
    """Augmentations of the prompt, drawn one after another: a larger number has a smaller's."""

    NAME = "best_of_n"
    PAPER = "2412.03556"

    settings: BestOfNSettings = field(default_factory=BestOfNSettings)

    @classmethod
    def from_settings(cls, settings: AttackSettings) -> Self:
        """With its section."""
        return cls(settings.best_of_n)

    @property
    def sets_sampling(self) -> bool:
        """Where its settings have a temperature."""
        return self.settings.temperature is not None

    def apply(self, case: Case, draw: random.Random) -> Sequence[Asked]:
        """`samples` chats."""
        return [
            with_prompt(
                case,
                augment(case.prompt, self.settings, draw),
                temperature=self.settings.temperature,
            )
            for _ in range(self.settings.samples)
        ]
