"""A probe of the judge before a search: labelled cases, judged as the search will judge.

A reward that cannot be read gives no preference pair, and one that is upside down teaches the model
to comply with harmful requests, however long the search and the training behind it. So the share of
cases that could be read and the AUC of both scores are known before the first tree.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from stair_jax.decoding.driver import Driver, run_tasks
from stair_jax.decoding.requests import Completion, request_key
from stair_jax.decoding.task import Task
from stair_jax.search.judging.auc import Auc, auc
from stair_jax.search.judging.judges import Judge, Judgement, Judging
from stair_jax.search.judging.probe_cases import ProbeCase
from stair_jax.search.judging.replies import QUESTIONS, Question

_LONGEST_SAMPLE = 160  # characters of a reply that are shown


@dataclass(frozen=True)
class ProbeResult:
    """What a judge said of the cases.

    Attributes:
      judgements: one a case.
      cases: in the same order.
      asked: by kind of prompt, the questions that were put to the judge.
      replies: two replies, as texts.
    """

    cases: Sequence[ProbeCase]
    judgements: Sequence[Judgement]
    asked: Mapping[str, Sequence[Question]]
    replies: Sequence[str] = ()

    @property
    def readable(self) -> float:
        """Share of the cases with all scores that were asked for; 1 where nothing was asked."""
        read = [
            self._score(question, judgement) is not None
            for question in QUESTIONS
            for case, judgement in self._judged(question)
        ]
        return sum(read) / len(read) if read else 1.0

    def scored(self, question: Question) -> tuple[list[float], list[int]]:
        """(scores, labels) of the labelled cases whose score was asked for and could be read."""
        pairs = [
            (score, label)
            for case, judgement in self._judged(question)
            if (score := self._score(question, judgement)) is not None
            and (label := case.label(question)) is not None
        ]
        return [score for score, _ in pairs], [label for _, label in pairs]

    def auc(self, question: Question) -> Auc | None:
        """The AUC of one score; None where its cases are all of one side."""
        return auc(*self.scored(question))

    def _judged(self, question: Question) -> Iterator[tuple[ProbeCase, Judgement]]:
        for case, judgement in zip(self.cases, self.judgements, strict=True):
            if question in self.asked[case.kind]:
                yield case, judgement

    @staticmethod
    def _score(question: Question, judgement: Judgement) -> float | None:
        return judgement.safety if question == "safety" else judgement.helpfulness


def run_probe(judge: Judge, driver: Driver, cases: Sequence[ProbeCase], seed: int) -> ProbeResult:
    """Judges the cases, all at once.

    Args:
      judge: that of the search.
      driver: with the services that the judge asks, and without other tasks.
      cases: at least one.
      seed: of the run.
    """
    tasks = [
        _Recorded(
            judge.requests(
                case.prompt,
                case.kind,
                case.answer,
                partial(request_key, seed, "probe", number),
            )
        )
        for number, case in enumerate(cases)
    ]
    judgements = list(run_tasks(driver, tasks))
    asked = {kind: judge.settings.questions(kind) for kind in {case.kind for case in cases}}
    return ProbeResult(cases, judgements, asked, _samples(judge, tasks))


class _Recorded(Task[Judgement]):
    """A judging whose first reply to each question is kept, to be shown."""

    def __init__(self, judging: Judging):
        self._judging = judging
        self.replies: list[Completion] = []

    @property
    def done(self) -> bool:
        return self._judging.done

    @property
    def result(self) -> Judgement:  # type: ignore[override]
        return self._judging.result

    def start(self) -> list[Any]:
        return self._judging.start()

    def receive(self, completion: Any) -> list[Any]:
        self.replies.append(completion)
        return self._judging.receive(completion)

    def close(self) -> None:
        self._judging.close()
