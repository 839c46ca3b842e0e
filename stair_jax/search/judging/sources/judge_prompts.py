"""The text of a judge's prompt: a template around the user's prompt and the answer."""

from stair_jax.search.judging import fence
from stair_jax.search.judging.replies import QUESTIONS, Question
from stair_jax.search.judging.settings import JudgeSettings
from stair_jax.search.judging.templates import split_template

_MARK = "{mark}"


class JudgePrompts:
    """Writes the prompts of a language model that judges.

    A prompt is template, user's prompt, answer, in this order, so that what many prompts share is
    at their beginning: all that stands before the mark of a fenced answer.
    """

    def __init__(self, settings: JudgeSettings):
        """Splits the templates at their placeholders."""
        self._is_fenced = settings.fence
        self._templates: dict[Question, tuple[str, str, str]] = {
            "helpfulness": split_template("helpfulness", settings.helpfulness_template),
            "safety": split_template("safety", settings.safety_template),
        }
        self._reminders: dict[Question, str] = {
            "helpfulness": settings.helpfulness_reminder or "",
            "safety": settings.safety_reminder or "",
        }
        self._labels: dict[Question, tuple[str, ...]] = {
            question: tuple(settings.labels(question)) for question in QUESTIONS
        }

    def write(self, question: Question, prompt: str, answer: str, mark: str) -> str:
        """One user turn.

        Args:
          question: "helpfulness" or "safety".
          prompt: the user's prompt.
          answer: the final answer to judge.
          mark: of the fence around the answer, see `fence.mark_of`.
        """
        before, between, after = self._templates[question]
        prompt, answer = prompt.strip(), answer.strip()
        if not self._is_fenced:
            return f"{before}{prompt}{between}{answer}{after}"
        reminder = self._reminders[question].replace(_MARK, mark)
        reminder = f"\n\n{reminder}" if reminder else ""
        labels = self._labels[question]
        asked = fence.quoted(prompt, labels)
        judged = fence.fenced(answer, mark, labels)
        return f"{before}{asked}{between}{judged}{reminder}{after}"
