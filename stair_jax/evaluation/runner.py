"""Answers and verdicts of an evaluation, made once each: what was written is never asked again."""

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from stair_jax.decoding.driver import Driver
from stair_jax.decoding.item_tasks import RunItems, run_here
from stair_jax.decoding.task import Task
from stair_jax.evaluation.asking import AskedSet, AskTask, all_asks
from stair_jax.evaluation.attacks.attack import Means
from stair_jax.evaluation.benchmark import Benchmark
from stair_jax.evaluation.case import Answer, Case
from stair_jax.evaluation.judges.judge import Judge, Material, Verdict
from stair_jax.evaluation.shards import Shards
from stair_jax.evaluation.speed import Speed
from stair_jax.evaluation.table import RowKey
from stair_jax.monitoring import Progress

_TOLD = ("model", "date")  # of a verdict, where an endpoint told them


def key_of(*parts: object) -> str:
    """A key of a record, whatever characters its parts hold."""
    return json.dumps([str(part) for part in parts], ensure_ascii=False)


def answer_keys(sets: Sequence[AskedSet]) -> list[str]:
    """Keys of all asks, in order."""
    return [key_of(*ask.key) for ask in all_asks(sets)]


def answering(driver: Driver, means: Means, in_flight: int = 4096) -> RunItems:
    """Who answers an `Ask` in this process.

    Args:
      driver: of the target, without other tasks.
      means: of the attacks, with the target and its method.
      in_flight: most cases that are under way.
    """
    return run_here(driver, lambda ask: AskTask(ask, means), in_flight)


def make_answers(
    answer: RunItems, row: RowKey, sets: Sequence[AskedSet], shards: Shards, progress: Progress
) -> Speed:
    """Asks what this process has to ask and has no answer yet.

    Args:
      answer: who answers, such as `answering`.
      row: of the table: the model and its method.
      sets: what is asked; those that other targets (`Target.CAN_SCORE`) serve are among `shards`
        all the same, and made by a call of their own.
      shards: of the answers, with the keys of `answer_keys`.
      progress: of this row of the table.

    Returns:
      how long it took.
    """
    began = time.monotonic()
    asks = {key_of(*ask.key): ask for ask in all_asks(sets)}
    left = [key for key in shards.left() if key in asks]
    done, answered, generated, waited = progress.done, 0, 0, 0.0
    for made in answer((key, asks[key]) for key in left):
        rows = []
        for key, answers, seconds in made:
            waited += seconds
            answered += len(answers)
            generated += sum(each.generated_tokens for each in answers)
            named = [replace(each, model=row.model, method=row.method) for each in answers]
            rows.append((str(key), [each.to_dict() for each in named]))
        shards.extend(rows)
        done += len(rows)
        progress.update(done)
    return Speed(len(left), answered, generated, time.monotonic() - began, waited)


@dataclass(frozen=True)
class Judged:
    """An answer that a judge is to see.

    Attributes:
      key: that tells it from all others.
      question: that is asked.
      material: what is shown.
    """

    key: str
    question: str
    material: Material


def answer_key(answer: Answer) -> str:
    """Key of an answer among all answers of an evaluation."""
    return key_of(
        answer.model, answer.method, answer.benchmark, answer.attack, answer.case, answer.sample
    )


def to_judge(
    answers: Iterable[Answer],
    benchmarks: Mapping[str, Benchmark],
    cases: Mapping[tuple[str, str], Case],
    can: Callable[[str], bool],
) -> list[Judged]:
    """The answers whose benchmark has a question that a judge can answer.

    Args:
      answers: of all rows of the table.
      benchmarks: by name.
      cases: by name of the benchmark and id.
      can: whether the judge knows a question.
    """
    found = []
    for answer in answers:
        benchmark = benchmarks[answer.benchmark]
        is_there = not answer.is_missing and answer.finish != "content_filter"
        if is_there and (question := benchmark.question_for(can)):
            material = benchmark.material(cases[answer.benchmark, answer.case], answer)
            found.append(Judged(answer_key(answer), question, material))
    return found


def judging(driver: Driver, judge: Judge, in_flight: int = 4096) -> RunItems:
    """Who gives a verdict on what is `Judged` in this process.

    Args:
      driver: of the judge, without other tasks.
      judge: who is asked.
      in_flight: most verdicts that are under way.
    """

    def task(each: Judged) -> Task[Verdict]:
        return judge.task(each.question, each.material, each.key)

    return run_here(driver, task, in_flight)


def make_verdicts(
    judge: RunItems, judged: Sequence[Judged], shards: Shards, progress: Progress
) -> None:
    """Asks a judge what this process has to ask and has no verdict yet.

    Args:
      judge: who judges, such as `judging`.
      judged: answers to questions that the judge `can` answer, with the keys of `shards`.
      shards: of the verdicts.
      progress: of this judge.
    """
    by_key = {each.key: each for each in judged}
    left = [key for key in shards.left() if key in by_key]
    done = progress.done
    for made in judge((key, by_key[key]) for key in left):
        shards.extend((str(key), [verdict_row(str(key), verdict)]) for key, verdict, _ in made)
        done += len(made)
        progress.update(done)


def verdict_row(key: str, verdict: Verdict) -> dict[str, Any]:
    """A verdict as JSON values."""
    return {
        "id": key,
        "question": verdict.question,
        "judge": verdict.judge,
        "label": verdict.label,
        "scores": dict(verdict.scores),
        "text": verdict.text,
        "tokens": verdict.tokens,
        **{name: getattr(verdict, name) for name in _TOLD if getattr(verdict, name)},
    }


def read_verdicts(rows: Iterable[Mapping[str, Any]]) -> dict[str, Verdict]:
    """Verdicts by the key of their answer."""
    names = ("question", "judge", "label", "scores", "text", "tokens")
    return {
        row["id"]: Verdict(
            **{name: row[name] for name in names}, **{name: row.get(name, "") for name in _TOLD}
        )
        for row in rows
    }
