"""Attacks that begin the answer for the target (arXiv 2404.02151)."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Self

from stair_jax.evaluation.attacks.attack import Transform
from stair_jax.evaluation.attacks.settings import AttackSettings, PrefillSettings
from stair_jax.evaluation.case import Case
from stair_jax.evaluation.target import Asked, Place


@dataclass(frozen=True)
class Prefill(Transform):
    """An agreeing beginning in the output block, behind an empty reasoning."""

    NAME = "prefill"
    NEEDS = frozenset({"prefill"})
    PAPER = "2404.02151"
    PLACE: ClassVar[Place] = "output"

    settings: PrefillSettings = field(default_factory=PrefillSettings)

    @classmethod
    def from_settings(cls, settings: AttackSettings) -> Self:
        """With its section."""
        return cls(settings.prefill)

    def apply(self, case: Case, draw: random.Random) -> Sequence[Asked]:
        """The plain prompt, with the row's own beginning where it has one."""
        own = case.columns.get(self.settings.column)
        text = own if isinstance(own, str) and own.strip() else self.settings.text
        return [Asked(case.messages, text, self.PLACE)]


class PrefillFirstStep(Prefill):
    """An agreeing beginning inside of the first step of the reasoning."""

    NAME = "prefill_first_step"
    PLACE = "first_step"


class PrefillAnswer(Prefill):
    """An agreeing beginning of the answer as it is, without any block."""

    NAME = "prefill_answer"
    PLACE = "answer"
