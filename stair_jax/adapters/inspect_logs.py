r"""Finished evaluations as logs of inspect-ai, which `inspect view` opens.

As a program:

    python -m stair_jax.adapters.inspect_logs results/a/evaluate logs/a [--data=DIR]
"""

import argparse
import math
import re
import sys
from pathlib import Path

from inspect_ai.log import (
    EvalConfig,
    EvalDataset,
    EvalLog,
    EvalMetric,
    EvalPlan,
    EvalPlanStep,
    EvalResults,
    EvalSample,
    EvalScore,
    EvalSpec,
    EvalStats,
    write_eval_log,
)
from inspect_ai.model import ModelUsage

from stair_jax import storage
from stair_jax.adapters.inspect_results import Results, ResultSet
from stair_jax.adapters.inspect_samples import OWN, eval_sample
from stair_jax.errors import UserError
from stair_jax.evaluation.cells import Cell
from stair_jax.evaluation.table import Column

_NO_DATE = "1970-01-01"  # of a run that says none: the same answers give the same log
_ID_LENGTH = 22
_UNSAFE = re.compile(r"[^A-Za-z0-9.-]+")


def export_inspect(folder: str | Path, out: str | Path, data: str | Path = "") -> list[Path]:
    """Writes a log for each row of the table, benchmark and attack.

    Args:
      folder: of a finished evaluation, such as `results/a/evaluate`.
      out: folder of the logs.
      data: folder of the benchmarks' files, for the prompts; "": that of the evaluation.

    Returns:
      the files, which `inspect_ai.log.read_eval_log` reads.

    Raises:
      UserError: there is no finished evaluation, or a file cannot be read or written.
    """
    results = Results(Path(folder).expanduser(), Path(data).expanduser() if data else None)
    target = storage.make_folder(Path(out).expanduser()).resolve()
    written = []
    for found in results.sets():
        log = _log(results, found)
        path = target / f"{_UNSAFE.sub('-', _name(found))}.{log.eval.eval_id[:6]}.eval"
        with storage.writing(path):
            write_eval_log(log, str(path), format="eval")
        written.append(path)
    return written


def _log(results: Results, found: ResultSet) -> EvalLog:
    samples = [
        eval_sample(answer, results.cases.get((found.benchmark, answer.case)), grades)
        for answer in found.answers
        for grades in [results.grades(answer)]
    ]
    date = f"{_date(results, found)}T00:00:00+00:00"
    ids = list(dict.fromkeys(answer.case for answer in found.answers))
    id = storage.fingerprint(_name(found))[:_ID_LENGTH]
    model = f"{OWN}/{found.row.model}"
    return EvalLog(
        status="success",
        eval=EvalSpec(
            eval_id=id,
            run_id=id,
            task_id=id,
            created=date,
            task=_task(found),
            dataset=EvalDataset(name=found.benchmark, samples=len(ids), sample_ids=ids),
            model=model,
            model_args={"method": found.row.method},
            config=EvalConfig(epochs=max((a.sample for a in found.answers), default=0) + 1),
            metadata={
                "benchmark": found.benchmark,
                "attack": found.attack,
                "judges": dict(results.table.judges),
            },
        ),
        plan=EvalPlan(steps=[EvalPlanStep(solver=found.row.method)]),
        results=EvalResults(
            total_samples=len(samples),
            completed_samples=len(samples),
            scores=list(_scores(results, found)),
        ),
        stats=EvalStats(started_at=date, completed_at=date, model_usage={model: _usage(samples)}),
        samples=samples,
    )


def _scores(results: Results, found: ResultSet) -> list[EvalScore]:
    """The columns of the table, each with value and interval."""
    table = results.table
    if found.row not in table.rows:
        return []
    listed = []
    for column in table.columns:
        cell = table.cell(found.row, column)
        if cell and (column.benchmark, column.attack) == (found.benchmark, found.attack):
            listed.append(_score(column, cell))
    return listed


def _score(column: Column, cell: Cell) -> EvalScore:
    numbers = {"value": cell.value, "low": cell.low, "high": cell.high}
    return EvalScore(
        name=f"{column.metric}, corrected" if column.corrected else column.metric,
        scorer=column.judge or OWN,
        scored_samples=cell.answers - cell.missing,
        unscored_samples=cell.missing,
        metrics={
            name: EvalMetric(name=name, value=math.nan if number is None else number)
            for name, number in numbers.items()
        },
        metadata={name: getattr(cell, name) for name in ("n", "cases", "cut", "unit", "note")},
    )


def _date(results: Results, found: ResultSet) -> str:
    """The first day of which a judge's endpoint has told, as YYYY-MM-DD."""
    grades = (grade for answer in found.answers for grade in results.grades(answer))
    dates = (grade.verdict.date for grade in grades if grade.verdict and grade.verdict.date)
    return min(dates, default=_NO_DATE)


def _usage(samples: list[EvalSample]) -> ModelUsage:
    usages = [sample.output.usage for sample in samples if sample.output.usage]
    total = ModelUsage()
    for usage in usages:
        total += usage
    return total


def _task(found: ResultSet) -> str:
    return found.benchmark + ("" if found.attack == "none" else f":{found.attack}")


def _name(found: ResultSet) -> str:
    """What tells a log from the others of an evaluation."""
    return f"{found.row.model} {found.row.method} {_task(found)}"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="inspect_logs", description=export_inspect.__doc__)
    parser.add_argument("folder", help="of a finished evaluation, such as results/a/evaluate")
    parser.add_argument("out", help="folder of the logs")
    parser.add_argument("--data", default="", help="folder of the benchmarks' files")
    options = parser.parse_args()
    try:
        for path in export_inspect(options.folder, options.out, options.data):
            print(path)
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
