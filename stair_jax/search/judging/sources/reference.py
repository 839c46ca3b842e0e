"""The right answer of a prompt as a judge of helpfulness."""

from stair_jax.search.judging.replies import Question
from stair_jax.search.judging.sources.checkable_answers import is_right
from stair_jax.search.judging.sources.source import Asking, Case, Known, Source


class ReferenceSource(Source):
    """H = +1 for the right answer and -1 for any other; nothing where a prompt has no reference."""

    def ask(self, question: Question, case: Case, asking: Asking) -> Known:
        """A score that is known at once."""
        if question != "helpfulness" or case.reference is None or case.reference == "":
            return Known(None)
        return Known(1.0 if is_right(case.answer, case.reference) else -1.0)
