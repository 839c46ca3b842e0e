"""The prompts of `synthesize`, each of which is read when its turn comes."""

from array import array
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stair_jax.data.records import KINDS, SynthesisPrompt
from stair_jax.data.row_file import RowFile
from stair_jax.errors import UserError
from stair_jax.synthesis.categories import KnownCategories
from stair_jax.synthesis.policies import policies_of
from stair_jax.synthesis.templates import shows_answer

if TYPE_CHECKING:
    from stair_jax.stages.synthesize import Synthesize


def read_prompts(stage: "Synthesize", path: Path) -> RowFile[SynthesisPrompt]:
    """The prompts that a stage answers, each with what its settings need of it.

    Raises:
      UserError: the file cannot be read, holds no such prompt, or one lacks something.
    """
    wanted = _Wanted(stage)
    rows = RowFile(path, SynthesisPrompt, visit=wanted.visit)
    wanted.check(path)
    return rows.select(np.array(wanted.places, np.int64))


class _Wanted:
    """Which rows are answered, and what they lack: found in one pass, and said behind it."""

    def __init__(self, stage: "Synthesize"):
        self.places = array("q")
        self._stage, self._kinds = stage, stage.kinds or KINDS
        self._categories = None
        if not stage.chooses_categories:
            self._categories = KnownCategories(stage.categories, policies_of(stage))
        self._has_answers, self._unanswered = False, ""
        self._no_policy: UserError | None = None

    def visit(self, place: int, row: SynthesisPrompt) -> None:
        """Takes a row of the file, in order."""
        if row.kind not in self._kinds or len(self.places) == (self._stage.num_prompts or -1):
            return
        self.places.append(place)
        self._has_answers |= row.answer is not None
        if not (row.answer or "").strip():
            self._unanswered = self._unanswered or row.id
        if self._categories is not None and self._no_policy is None:
            try:
                self._categories.of(row)
            except UserError as error:
                self._no_policy = error

    def check(self, path: Path) -> None:
        """Raises a UserError if there are no such rows, or one lacks something."""
        if not self.places:
            raise UserError(f"{path} has no prompt of the kind {' or '.join(self._stage.kinds)}")
        if self._stage.pairs == "given_own" and not self._has_answers:
            raise UserError(
                f"{path} has no column 'answer', which pairs 'given_own' need: name a file of SFT "
                "examples, or pairs='best_worst'"
            )
        if shows_answer(self._stage.template) and self._unanswered:
            raise UserError(
                f"{path}: the row {self._unanswered!r} has no answer, which the template shows: "
                "name a file of SFT examples, or a template without {answer}"
            )
        if self._no_policy is not None:
            raise self._no_policy
