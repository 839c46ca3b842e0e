"""A probe of the judge before a search: labelled cases, judged as the search will judge.

A reward that cannot be read gives no preference pair, and one that is upside down teaches the model
to comply with harmful requests, however long the search and the training behind it. So the share of
scores that could be read, and the AUC of both, are known before the first tree.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from stair_jax.decoding.driver import Driver, run_tasks
from stair_jax.decoding.requests import request_key
from stair_jax.decoding.task import Task
from stair_jax.search.judging import calibration
from stair_jax.search.judging.auc import Auc, auc
from stair_jax.search.judging.calibration import Calibration
from stair_jax.search.judging.judges import Judge, Judgement, Judging
from stair_jax.search.judging.probe_cases import ProbeCase
from stair_jax.search.judging.replies import QUESTIONS, Question

_LONGEST_REPLY = 160  # characters that are shown


@dataclass(frozen=True)
class ProbeResult:
    """What a judge said of labelled cases.

    Attributes:
      cases: the cases.
      judgements: one a case, in the same order.
      asked: by kind of prompt, the questions that were put to the judge.
      replies: two replies of the judge, as text.
    """

    cases: Sequence[ProbeCase]
    judgements: Sequence[Judgement]
    asked: Mapping[str, Sequence[Question]]
    replies: Sequence[str] = ()

    @property
    def readable(self) -> float:
        """Share of the scores that could be read, of all that were asked for."""
        read = [
            score is not None
            for question in QUESTIONS
            for _, score in self._labels_and_scores(question)
        ]
        return sum(read) / len(read) if read else 1.0

    def scored(self, question: Question) -> tuple[list[float], list[int]]:
        """(scores, labels) of the labelled cases whose score was asked for and could be read."""
        pairs = [
            (score, label)
            for label, score in self._labels_and_scores(question)
            if label is not None and score is not None
        ]
        return [score for score, _ in pairs], [label for _, label in pairs]

    def auc(self, question: Question) -> Auc | None:
        """The AUC of one score; None where the cases are all of one side."""
        return auc(*self.scored(question))

    def fit(self) -> Calibration:
        """The calibration of both scores; of one whose cases are all of one side there is none."""
        curves = {question: calibration.fit(*self.scored(question)) for question in QUESTIONS}
        return {question: curve for question, curve in curves.items() if curve is not None}

    def mapped(self, change: Callable[[Question, float], float]) -> "ProbeResult":
        """The same with each score that was asked for changed."""

        def apply(question: Question, kind: str, score: float | None) -> float | None:
            is_fixed = score is None or question not in self.asked[kind]
            return score if is_fixed or score is None else change(question, score)

        changed = [
            replace(
                judgement,
                helpfulness=apply("helpfulness", case.kind, judgement.helpfulness),
                safety=apply("safety", case.kind, judgement.safety),
            )
            for case, judgement in zip(self.cases, self.judgements, strict=True)
        ]
        return replace(self, judgements=changed)

    def _labels_and_scores(self, question: Question) -> Iterator[tuple[int | None, float | None]]:
        """Of the cases about which the question was put."""
        for case, judgement in zip(self.cases, self.judgements, strict=True):
            if question in self.asked[case.kind]:
                is_safety = question == "safety"
                yield case.label(question), judgement.safety if is_safety else judgement.helpfulness


def run_probe(judge: Judge, driver: Driver, cases: Sequence[ProbeCase], seed: int) -> ProbeResult:
    """Judges the cases, all at once.

    Args:
      judge: that of the search.
      driver: with the services that the judge asks, and without other tasks.
      cases: the cases.
      seed: of the run.
    """
    asking = judge.asking_always()  # the labels are of its scores, not of a rule
    tasks = [
        _Recorded(
            asking.requests(
                case.prompt,
                case.kind,
                case.answer,
                partial(request_key, seed, "probe", number),
                reference=case.reference,
            )
        )
        for number, case in enumerate(cases)
    ]
    judgements = list(run_tasks(driver, tasks))
    asked = {kind: judge.settings.questions(kind) for kind in {case.kind for case in cases}}
    return ProbeResult(cases, judgements, asked, _samples(judge, tasks))


class _Recorded(Task[Judgement]):
    """A judging whose first completion is kept."""

    def __init__(self, judging: Judging):
        self._judging = judging
        self.first: Any = None

    @property
    def done(self) -> bool:
        return self._judging.done

    @property
    def result(self) -> Judgement:  # type: ignore[override]
        return self._judging.result

    def start(self) -> list[Any]:
        return self._judging.start()

    def receive(self, completion: Any) -> list[Any]:
        self.first = completion if self.first is None else self.first
        return self._judging.receive(completion)

    def close(self) -> None:
        self._judging.close()


def _samples(judge: Judge, tasks: Sequence[_Recorded]) -> list[str]:
    """Two replies: one of a judging in which something could not be read, where there is one."""
    replied = [task for task in tasks if task.first is not None]
    odd = [task for task in replied if task.result.unreadable]
    even = [task for task in replied if not task.result.unreadable]
    chosen = odd[:1] + even[: 2 - len(odd[:1])] if even else odd[:2]
    return [_shown(judge, task.first) for task in chosen]


def _shown(judge: Judge, completion: Any) -> str:
    """A reply in one line: its text, or the labels with their probabilities."""
    if scores := getattr(completion, "scores", ()):
        question = completion.id[-1]
        labels = judge.settings.labels(question)
        pairs = zip(labels, scores, strict=False)
        return ", ".join(f"P({label}) = {math.exp(score):.3f}" for label, score in pairs)
    text = getattr(completion, "text", None)
    if text is None:
        tokenizer = judge.tokenizer_of(completion.id[-2])
        text = tokenizer.decode(getattr(completion, "tokens", ()))
    text = " ".join(str(text).split())
    return repr(text if len(text) <= _LONGEST_REPLY else f"{text[:_LONGEST_REPLY]}...")
