"""`graded.jsonl` of an evaluation: what each answer got, from which all its figures follow."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stair_jax import storage
from stair_jax.errors import UserError
from stair_jax.evaluation.benchmark import METRICS_OF_REFUSALS, Metric
from stair_jax.evaluation.benchmarks import BENCHMARKS
from stair_jax.evaluation.case import Answer, Case, Graded
from stair_jax.evaluation.cells import mean_figure
from stair_jax.evaluation.per_case import by_attack, joined
from stair_jax.evaluation.statistics import macro_mean, mean
from stair_jax.evaluation.table import Column, RowKey, Table
from stair_jax.evaluation.tabulate import Result
from stair_jax.evaluation.writers import read_table

GRADED_FILE = "graded.jsonl"
_SCORE = "score/"
_OWN_SCORES = {"accuracy": "score", "accuracy_per_byte": "score_per_byte"}  # of users' files
_CLOSE = 1e-9  # between a figure of a table and the same one, computed anew


def graded_rows(results: Sequence[Result]) -> Iterator[dict[str, Any]]:
    """A line of the file for each answer and judge."""
    for result in results:
        for graded in result.rows:
            case, answer = graded.case, graded.answer
            is_number = isinstance(case.reference, int | float)
            yield {
                "model": result.model,
                "method": result.method,
                "benchmark": result.benchmark,
                "attack": result.attack,
                "case": case.id,
                "group": case.group,
                "cluster": case.cluster,
                **({"reference": case.reference} if is_number else {}),
                "sample": answer.sample,
                "judge": result.judge,
                **{f"{_SCORE}{name}": value for name, value in graded.scores.items()},
            }


def scores_of(row: Mapping[str, Any]) -> dict[str, float | None]:
    """The scores in a line of the file, by name; None: missing."""
    return {key.removeprefix(_SCORE): row[key] for key in row if key.startswith(_SCORE)}


def read_results(folder: Path) -> tuple[list[Result], Table]:
    """The graded answers of a finished evaluation, and its table.

    Args:
      folder: of the stage, with graded.jsonl and table.json.

    Raises:
      UserError: a file is missing or damaged, was written by an older stair_jax, or the answers do
        not give the figures of the table.
    """
    path, table = folder / GRADED_FILE, read_table(folder / "table.json")
    found: dict[tuple[str, ...], list[Graded]] = {}
    cases: dict[tuple[str, str], Case] = {}
    for row in storage.read_jsonl(path):
        try:
            key = tuple(row[name] for name in ("model", "method", "benchmark", "attack", "judge"))
            found.setdefault(key, []).append(_graded(row, cases))
        except KeyError as error:
            raise UserError(
                f"{path} has no column {error} and was written by an older stair_jax: evaluate "
                "again (--redo)"
            ) from error
    roles = {column.benchmark: column.role for column in table.columns}
    results = []
    for (model, method, benchmark, attack, judge), rows in found.items():
        place = (benchmark, attack, judge)
        metrics = _metrics(benchmark, rows, RowKey(model, method), place, table)
        role = roles.get(benchmark, "reported")
        results.append(Result(model, method, benchmark, attack, metrics, rows, role, judge))
    _check(results, table, path)
    return results, table


def _graded(row: Mapping[str, Any], cases: dict[tuple[str, str], Case]) -> Graded:
    name = row["benchmark"], row["case"]
    if name not in cases:
        cases[name] = Case(
            row["case"], "", row["group"], row["cluster"], reference=row.get("reference")
        )
    answer = Answer(
        row["benchmark"], row["case"], row["attack"], row["sample"], row["model"], row["method"]
    )
    return Graded(cases[name], answer, scores_of(row))


def _metrics(
    benchmark: str, rows: Sequence[Graded], row: RowKey, place: tuple[str, str, str], table: Table
) -> tuple[Metric, ...]:
    """The columns that graded answers give."""
    keys = {key for graded in rows for key in graded.scores}
    if benchmark in BENCHMARKS:
        known = BENCHMARKS[benchmark].METRICS
        return known if keys & {metric.key for metric in known} else METRICS_OF_REFUSALS
    columns = [c for c in table.columns if (c.benchmark, c.attack, c.judge) == place]
    own = [column for column in columns if not column.corrected]
    return tuple(_own_metric(column, keys, rows, row, table) for column in own)


def _own_metric(
    column: Column, keys: set[str], rows: Sequence[Graded], row: RowKey, table: Table
) -> Metric:
    """A column of a benchmark in a user's file, which need not be there any more.

    Its figures are means, or means of the means of groups, whichever the table has.
    """
    key = column.metric if column.metric in keys else _OWN_SCORES.get(column.metric, "score")
    if column.metric in {metric.name for metric in METRICS_OF_REFUSALS} and key not in keys:
        return METRICS_OF_REFUSALS[0]
    cell = table.cell(row, column)
    unit = "share" if cell is None else cell.unit
    plain = Metric(column.metric, key, mean, unit=unit)
    grouped = Metric(column.metric, key, macro_mean, unit=unit)
    is_plain = cell is None or cell.value is None or _is_close(_value(rows, plain), cell.value)
    return plain if is_plain else grouped


def _check(results: Sequence[Result], table: Table, path: Path) -> None:
    """Raises a UserError unless the answers give the figures of the table."""
    for result in results:
        for column, metric in result.columns():
            cell = table.cell(result.key, column) if column in table.columns else None
            if cell is None or cell.value is None:
                continue
            if not _is_close(_value(result.rows, metric), cell.value):
                raise UserError(
                    f"{path} does not give the figure {cell.value:g} of {column.benchmark}: "
                    f"{column.metric} in table.json: one of the two was changed; evaluate again "
                    "(--redo)"
                )


def _value(rows: Sequence[Graded], metric: Metric) -> float:
    parts = list(by_attack(rows, metric).values())
    if not parts or not all(part.rows for part in parts):
        return float("nan")
    clusters, places = joined(parts)
    return float(mean_figure(parts, places, metric, np.ones((1, len(clusters))))[0])


def _is_close(value: float, other: float) -> bool:
    return abs(value - other) <= _CLOSE * max(1.0, abs(other))
