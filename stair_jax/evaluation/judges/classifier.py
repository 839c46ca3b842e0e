"""A sequence classifier that judges: its labels answer one question."""

import re
from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any

import numpy as np

from stair_jax.decoding.score_requests import ScoreRequest
from stair_jax.decoding.task import Task
from stair_jax.errors import UserError
from stair_jax.evaluation.judges.asked import Known
from stair_jax.evaluation.judges.grading import Outcome, verdict
from stair_jax.evaluation.judges.judge import Judge, Material, Verdict
from stair_jax.evaluation.judges.questions import QUESTIONS
from stair_jax.evaluation.judges.settings import JudgeSettings
from stair_jax.inference.classifier import CLASSIFIER_SERVICE, LabelCompletion
from stair_jax.settings import require
from stair_jax.text.chat import encode_prompt
from stair_jax.text.endings import after_answer
from stair_jax.text.tokenizer import Tokenizer

_PLACEHOLDER = re.compile(r"\{(prompt|answer)\}")
_PARAGRAPHS = "{prompt}\n\n{answer}"


class ClassifierJudge(Judge):
    """Asks a service of `inference.classifier`; probabilities are the softmax of the logits."""

    def __init__(
        self,
        name: str,
        tokenizer: Tokenizer,
        labels: Sequence[str],
        settings: JudgeSettings,
        service: str = CLASSIFIER_SERVICE,
        longest: int = 2**40,
        checkpoint: str = "",
    ):
        """A judge of `settings.classifier_question`.

        Args:
          name: of the judge.
          tokenizer: of the classifier.
          labels: of the checkpoint, in the order of its logits.
          settings: what its labels mean, and what it reads.
          service: where its requests go.
          longest: most tokens that it reads; a longer answer is not judged.
          checkpoint: what identifies the weights, such as a commit or a hash.

        Raises:
          UserError: a label of the checkpoint has no meaning, there is only one, or
            `classifier_input` lacks {answer}.
        """
        self.name = name
        self._tokenizer, self._settings = tokenizer, settings
        self._service, self._longest, self._checkpoint = service, longest, checkpoint
        self._question = settings.classifier_question
        require(len(labels) > 1, f"{name} has one label, as reward models have: it cannot judge")
        self._meanings = [_meaning(label, settings, name) for label in labels]
        require(
            not settings.classifier_input or "{answer}" in settings.classifier_input,
            "classifier_input lacks {answer}: it is the text that the classifier reads",
        )

    def identity(self) -> dict[str, Any]:
        """The checkpoint, what its labels mean, and what it reads."""
        return {
            "judge": self.name,
            "checkpoint": self._checkpoint,
            "question": self._question,
            "labels": self._meanings,
            "input": self._settings.classifier_input,
        }

    def with_longest(self, longest: int) -> "ClassifierJudge":
        """The same for answers of at most so many tokens."""
        judge = copy(self)
        judge._longest = longest
        return judge

    def can(self, question: str) -> bool:
        """The one question of the settings."""
        return question == self._question

    def task(self, question: str, material: Material, key: str) -> Task[Verdict]:
        """The request for the logits; no verdict on what is too long to be read."""
        tokens = self.tokens(material)
        if len(tokens) > self._longest:
            return Known(self.verdict(None))
        return ClassifierAsking(self, ScoreRequest(("ask",), tokens, self._service))

    def tokens(self, material: Material) -> tuple[int, ...]:
        """Token ids of prompt and answer. Control tokens come from the chat template alone."""
        tokenizer, template = self._tokenizer, self._settings.classifier_input
        if template or not tokenizer.hf.chat_template:
            values = {"prompt": material.prompt, "answer": material.answer}
            text = _PLACEHOLDER.sub(lambda found: values[found[1]], template or _PARAGRAPHS)
            return tuple(tokenizer.encode_text(text))
        answer = tokenizer.encode_text(material.answer)
        return (*encode_prompt(tokenizer, material.prompt), *answer, *after_answer(tokenizer))

    def verdict(self, logits: Sequence[float] | None) -> Verdict:
        """The verdict of the logits; none where one is not finite, or where there are none."""
        chances = None if logits is None else self._chances(np.asarray(logits, np.float64))
        return verdict(self._question, self.name, [Outcome({"": chances} if chances else None)])

    def _chances(self, logits: np.ndarray) -> Mapping[str, float] | None:
        if len(logits) != len(self._meanings) or not np.isfinite(logits).all():
            return None
        weights = np.exp(logits - logits.max())
        chances = dict.fromkeys(QUESTIONS[self._question].labels, 0.0)
        for label, weight in zip(self._meanings, weights / weights.sum(), strict=True):
            chances[label] += float(weight)
        return chances


class ClassifierAsking(Task[Verdict]):
    """The logits of one answer."""

    def __init__(self, judge: ClassifierJudge, request: ScoreRequest):
        """Nothing is asked yet."""
        self._judge, self._request = judge, request

    def start(self) -> list[ScoreRequest]:
        """The only request."""
        return [self._request]

    def receive(self, completion: LabelCompletion) -> list[ScoreRequest]:
        """Takes the logits."""
        self.result = self._judge.verdict(completion.logits)
        return []


def _meaning(label: str, settings: JudgeSettings, name: str) -> str:
    """The label of the question that a label of the checkpoint stands for."""
    if label in settings.classifier_labels:
        return settings.classifier_labels[label]
    known = QUESTIONS[settings.classifier_question].labels
    plain = label.strip().lower().replace(" ", "_").replace("-", "_")
    if settings.classifier_labels or plain not in known:
        raise UserError(
            f"{name} has the label {label!r}: say in classifier_labels which label of "
            f"{settings.classifier_question} it stands for, of {', '.join(known)}"
        )
    return plain
