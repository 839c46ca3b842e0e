"""A reward model that judges: one of ours, or a sequence classifier of another family."""

import math

from stair_jax.decoding.score_requests import PRM_SERVICE, ScoreCompletion, ScoreRequest
from stair_jax.search.judging.fence import neutralize
from stair_jax.search.judging.replies import Question
from stair_jax.search.judging.settings import JudgeSettings
from stair_jax.search.judging.sources.source import Asking, Case, Scoring, Source
from stair_jax.text import steps
from stair_jax.text.chat import encode_prompt
from stair_jax.text.endings import after_answer
from stair_jax.text.scoring import encode_scored
from stair_jax.text.tokenizer import Tokenizer


class RewardModelSource(Source):
    """Scores whole answers; both questions get tanh((score - center) / scale)."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        settings: JudgeSettings,
        is_structured: bool = True,
        service: str = PRM_SERVICE,
    ):
        """A source that asks a service.

        Args:
          tokenizer: of the reward model.
          settings: center and scale.
          is_structured: the model was trained on steps with their tags, as ours are. Another one
            gets the final answer alone, with what its chat template puts behind a turn.
          service: where requests go.
        """
        self._tokenizer, self._is_structured, self._service = tokenizer, is_structured, service
        self.reads_reasoning = is_structured
        self._center, self._scale = settings.prm_center, settings.prm_scale

    def ask(self, question: Question, case: Case, asking: Asking) -> "RewardModelScoring":
        """The scoring of an answer, the same for both questions."""
        return RewardModelScoring(self, case, asking)

    def request(self, case: Case, asking: Asking) -> ScoreRequest:
        """The request for the score of an answer.

        Text of the answer that looks like a verdict or a control token is neutralised, and control
        tokens come from the template alone.
        """
        tokenizer = self._tokenizer
        prompt = encode_prompt(tokenizer, case.prompt)
        if self._is_structured:
            text = _neutralize_between_tags(case.text or case.answer)
            answer = encode_scored(tokenizer, text)
        else:
            answer = [*tokenizer.encode_text(neutralize(case.answer)), *after_answer(tokenizer)]
        return ScoreRequest(asking.id, (*prompt, *answer), self._service)

    def score(self, value: float) -> float | None:
        """The score in [-1, 1] of what the model says; None for what is no number."""
        scaled = math.tanh((value - self._center) / self._scale)
        return None if math.isnan(scaled) else scaled


class RewardModelScoring(Scoring):
    """One answer, scored by one request."""

    def __init__(self, source: RewardModelSource, case: Case, asking: Asking):
        """Nothing is asked yet."""
        super().__init__()
        self._source, self._case, self._asking = source, case, asking

    def start(self) -> list[ScoreRequest]:
        """The only request."""
        return [self._source.request(self._case, self._asking)]

    def receive(self, completion: ScoreCompletion) -> list[ScoreRequest]:
        """Reads the score."""
        score = self._source.score(completion.value)
        self.unreadable += score is None
        self.finish(score)
        return []


def _neutralize_between_tags(text: str) -> str:
    """A structured answer whose texts are neutralised, and whose tags stay."""
    pieces = map(neutralize, steps.TAG_PATTERN.split(text))
    tags = [*steps.TAG_PATTERN.findall(text), ""]
    return "".join(piece + tag for piece, tag in zip(pieces, tags, strict=True))
