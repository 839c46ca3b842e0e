"""Our benchmarks as tasks of inspect-ai: its solvers and models, our prompts, judges and grades."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from inspect_ai import Task
from inspect_ai.dataset import MemoryDataset
from inspect_ai.scorer import (
    Metric,
    SampleScore,
    Score,
    Scorer,
    Target,
    Value,
    metric,
    scorer,
)
from inspect_ai.solver import TaskState, generate

from stair_jax.adapters.inspect_cases import ATTACK, answer_of, case_of, samples_of
from stair_jax.adapters.inspect_errors import shown_by_inspect
from stair_jax.adapters.inspect_judge import RULE, judge_answer, make_judge
from stair_jax.errors import UserError
from stair_jax.evaluation.asking import AskedSet
from stair_jax.evaluation.attacks import ATTACKS, make_attack
from stair_jax.evaluation.attacks.attack import Transform
from stair_jax.evaluation.attacks.settings import AttackSettings
from stair_jax.evaluation.benchmark import Benchmark
from stair_jax.evaluation.case import Answer, Graded
from stair_jax.evaluation.judges.judge import Judge, Verdict
from stair_jax.evaluation.per_case import per_case
from stair_jax.evaluation.runner import key_of
from stair_jax.evaluation.suites import Wanted, absent, make_benchmark, read_sets

SCORES = "scores"  # key of a score's metadata: all numbers of an answer, None: missing


def benchmark_task(
    benchmark: str,
    data: str | Path = "",
    judge: str = RULE,
    attack: str = "none",
    limit: int = 0,
    seed: int = 0,
) -> Task:
    """A benchmark as a task: each case is a sample that is answered once and graded by our rules.

    The figures of its log are those of our tables; cases without a grade are unscored, never 0.

    Args:
      benchmark: its name, as of `stair-jax evaluate`.
      data: folder of the benchmarks' files.
      judge: who answers the benchmark's question about each answer, if it has one: "rule",
        "grader" (inspect's model of this role), or the name of a model of inspect.
      attack: on the prompts; one that makes them at once, without the model.
      limit: cases, drawn by the seed; 0: all.
      seed: of the limit and of the attack.

    Raises:
      PrerequisiteError: a name is unknown, the rows are not there, the judge does not know the
        question, or the task would need more than inspect's models can.
    """
    with shown_by_inspect():
        asked = _read(benchmark, Path(data).expanduser(), attack, limit, seed)
        samples = list(samples_of(asked, seed))
        _check_judge(asked.benchmark, judge)
        return Task(
            dataset=MemoryDataset(samples, name=asked.name, location=str(data)),
            solver=generate(),
            scorer=graded(asked.benchmark.NAME, judge),
            metrics={key: [figures(asked.benchmark.NAME, key)] for key in _keys(asked.benchmark)},
            name=asked.name.replace(":", "_"),
            metadata={"attack": asked.attack.identity(), "seed": seed, "limit": limit},
        )


@scorer(metrics={})  # those of the task
def graded(benchmark: str, judge: str = RULE) -> Scorer:
    """Grades answers as the benchmark does; what cannot be read has no score.

    Args:
      benchmark: its name.
      judge: see `benchmark_task`.
    """
    with shown_by_inspect():
        found, asked = make_benchmark(benchmark), make_judge(judge)

    async def score(state: TaskState, target: Target) -> Score:
        case = case_of(state.metadata)
        answer = answer_of(case, state.output, state.metadata)
        final = _decode(state.metadata[ATTACK], answer.final)
        answer = Answer(**vars(answer) | {"final": final})
        verdict = await _verdict(found, asked, Graded(case, answer, {}), str(state.sample_id))
        scores = found.missing(case) if answer.is_missing else found.grade(case, answer, verdict)
        return _score(found, answer, verdict, scores)

    return score


@metric(scores="unreduced")
def figures(benchmark: str, key: str) -> Metric:
    """The figures that a benchmark makes of one of its scores, by the names of our columns.

    Args:
      benchmark: its name.
      key: of the score.
    """
    columns = [column for column in make_benchmark(benchmark).METRICS if column.key == key]

    def compute(scores: list[SampleScore]) -> Value:
        rows = list(_rows(benchmark, scores))
        found: dict[str, float] = {}
        for column in columns:
            numbers = per_case(rows, column)
            weights = np.ones((1, len(numbers.rows)))
            found[column.name] = (
                float(column.statistic(numbers.rows, numbers.values, weights)[0])
                if numbers.rows
                else math.nan
            )
        return found

    return compute


def _read(name: str, data: Path, attack: str, limit: int, seed: int) -> AskedSet:
    wanted = [Wanted.parse(name if attack == "none" else f"{name}:{attack}")]
    for reason in absent(wanted, [data]).values():
        raise UserError(f"{name}: {reason}")
    (asked,) = read_sets(wanted, [data], AttackSettings(), limit, seed)
    return asked


def _check_judge(benchmark: Benchmark, judge: str) -> None:
    question = benchmark.QUESTION
    if question and not make_judge(judge).can(question):
        raise UserError(
            f"the judge {judge} cannot answer the question of {benchmark.NAME}, {question}: name a "
            "model of inspect as judge"
        )


def _keys(benchmark: Benchmark) -> list[str]:
    """The scores of a benchmark's columns."""
    return list(dict.fromkeys(column.key for column in benchmark.METRICS))


def _decode(attack: str, final: str) -> str:
    """The final answer as the judge reads it."""
    kind = ATTACKS.get(attack)
    if kind is None or not issubclass(kind, Transform):
        return final  # a stored one
    made = make_attack(attack)
    assert isinstance(made, Transform)
    return made.decode(final)


async def _verdict(benchmark: Benchmark, judge: Judge, row: Graded, sample: str) -> Verdict | None:
    is_there = not row.answer.is_missing and row.answer.finish != "content_filter"
    if not benchmark.QUESTION or not is_there:
        return None
    material = benchmark.material(row.case, row.answer)
    key = key_of(benchmark.NAME, row.answer.attack, sample)
    return await judge_answer(judge, benchmark.QUESTION, material, key)


def _score(
    benchmark: Benchmark,
    answer: Answer,
    verdict: Verdict | None,
    scores: Mapping[str, float | None],
) -> Score:
    """The grades of an answer; NaN is what inspect leaves out of its figures."""
    told = {
        "answer": answer.final,
        "explanation": verdict.text or verdict.label if verdict else None,
        "metadata": {SCORES: dict(scores), "finish": answer.finish} | _of_verdict(verdict),
    }
    values = {key: scores.get(key) for key in _keys(benchmark)}
    numbers = {key: math.nan if value is None else value for key, value in values.items()}
    if any(value is not None for value in values.values()):
        return Score(value=numbers, **told)
    if answer.is_missing:
        return Score.unscored(reason="no_response", **told)
    is_unread = verdict is not None and verdict.label is None
    return Score.unscored(reason="grader_failed" if is_unread else "scoring_failed", **told)


def _of_verdict(verdict: Verdict | None) -> dict[str, Any]:
    if verdict is None:
        return {}
    return {"label": verdict.label, "verdict": dict(verdict.scores), "judge": verdict.judge}


def _rows(benchmark: str, scores: Sequence[SampleScore]) -> Sequence[Graded]:
    """The graded answers behind inspect's scores; several of a case are samples of it."""
    rows: list[Graded] = []
    seen: Counter[str] = Counter()
    for each in scores:
        case = case_of(each.sample_metadata or {})
        known = each.score.metadata or {}
        answer = Answer(benchmark, case.id, sample=seen[case.id])
        seen[case.id] += 1
        rows.append(Graded(case, answer, known[SCORES]))
    return rows
