"""Grades as scores of inspect-ai."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from inspect_ai.scorer import Score

from stair_jax.evaluation.case import Answer
from stair_jax.evaluation.judges.judge import Verdict

SCORES = "scores"  # key of a score's metadata: all numbers of an answer, None: missing


def score_of(
    answer: Answer,
    scores: Mapping[str, float | None],
    verdict: Verdict | None,
    keys: Sequence[str] = (),
) -> Score:
    """The numbers of an answer; a missing one is NaN, which inspect leaves out of its figures.

    Args:
      answer: that was graded.
      scores: by name; None: missing.
      verdict: of the judge, whose text becomes the explanation; None: there is none.
      keys: names that inspect computes figures of, which must be there; those of `scores` are.
    """
    told: dict[str, Any] = {
        "answer": answer.final,
        "metadata": {SCORES: dict(scores), "finish": answer.finish},
    }
    if verdict is not None:
        told["explanation"] = verdict.text or verdict.label
        told["metadata"] |= {
            "label": verdict.label,
            "verdict": dict(verdict.scores),
            "judge": verdict.judge,
            "model": verdict.model,
            "date": verdict.date,
        }
    if all(value is None for value in scores.values()):
        is_unread = verdict is not None and verdict.label is None
        reason = "grader_failed" if is_unread else "scoring_failed"
        return Score.unscored(reason="no_response" if answer.is_missing else reason, **told)
    numbers = {name: scores.get(name) for name in dict.fromkeys((*keys, *scores))}
    return Score(value={name: _number(value) for name, value in numbers.items()}, **told)


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
