"""The plain prompt under several ways of sampling (arXiv 2310.06987)."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from stair_jax.evaluation.attacks.attack import Transform
from stair_jax.evaluation.attacks.settings import AttackSettings, SweepSettings
from stair_jax.evaluation.case import Case
from stair_jax.evaluation.target import Asked


@dataclass(frozen=True)
class DecodingSweep(Transform):
    """Each temperature with top-p 1, then each top-p at temperature 1."""

    NAME = "decoding_sweep"
    PAPER = "2310.06987"

    settings: SweepSettings = field(default_factory=SweepSettings)

    @classmethod
    def from_settings(cls, settings: AttackSettings) -> Self:
        """With its section."""
        return cls(settings.sweep)

    @property
    def sets_sampling(self) -> bool:
        """It is all that it does."""
        return True

    def apply(self, case: Case, draw: random.Random) -> Sequence[Asked]:
        """`samples` chats for each."""
        ways = [(temperature, 1.0) for temperature in self.settings.temperatures]
        ways += [(1.0, top_p) for top_p in self.settings.top_ps]
        return [
            Asked(
                case.messages,
                temperature=temperature,
                top_p=top_p,
                label=f"temperature={temperature:g} top_p={top_p:g}",
            )
            for temperature, top_p in ways
            for _ in range(self.settings.samples)
        ]
