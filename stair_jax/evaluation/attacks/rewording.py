"""Rewordings into the past tense, and translations."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from stair_jax.evaluation.attacks.paraphrasing import Paraphrasing
from stair_jax.evaluation.attacks.settings import (
    AttackSettings,
    PastTenseSettings,
    TranslationSettings,
)
from stair_jax.evaluation.attacks.wordings import PAST, translate


@dataclass(frozen=True)
class PastTense(Paraphrasing):
    """Several rewordings as a question about the past (arXiv 2407.11969)."""

    NAME = "past_tense"
    PAPER = "2407.11969"

    settings: PastTenseSettings = field(default_factory=PastTenseSettings)

    @classmethod
    def from_settings(cls, settings: AttackSettings) -> Self:
        """With its section."""
        return cls(settings.past_tense)

    def ways(self) -> Sequence[tuple[str, str]]:
        """The same for each; the attacker's samples differ."""
        return [("", PAST)] * self.settings.rewordings


@dataclass(frozen=True)
class Translation(Paraphrasing):
    """The prompt in other languages; answers are judged as they are (arXiv 2310.02446)."""

    NAME = "translation"
    PAPER = "2310.02446"

    settings: TranslationSettings = field(default_factory=TranslationSettings)

    @classmethod
    def from_settings(cls, settings: AttackSettings) -> Self:
        """With its section."""
        return cls(settings.translation)

    def ways(self) -> Sequence[tuple[str, str]]:
        """One a language."""
        return [(language, translate(language)) for language in self.settings.languages]
