"""Tables and figures of evaluations."""

from pathlib import Path

from stair_jax.evaluation.table import Table, row_label
from stair_jax.evaluation.writers import read_table
from stair_jax.reports.html import schema_tables as schema
from stair_jax.reports.records import FinishedStage, RunRecords
from stair_jax.storage import check_regular, reading

_TABLE_FILE = "table.json"
_MOST_FIGURE = 1 << 20  # bytes of a figure that is shown


def read_evaluations(run: RunRecords) -> list[schema.Evaluation]:
    """The tables of all finished evaluations.

    Raises:
      UserError: a table is damaged, or of a newer schema.
    """
    return [_evaluation(stage) for stage in run.stages if (stage.folder / _TABLE_FILE).is_file()]


def _evaluation(stage: FinishedStage) -> schema.Evaluation:
    table = read_table(stage.folder / _TABLE_FILE)
    return {
        "stage": stage.name,
        "rows": [row_label(row) for row in table.rows],
        "columns": [_column(table, number) for number in range(len(table.columns))],
        "cells": [_cells(table, row) for row in range(len(table.rows))],
        "costs": _costs(table),
        "compared": _compared(table),
        "pairs": _pairs(table),
        "figures": _figures(stage.folder / "figures"),
    }


def _column(table: Table, number: int) -> schema.Column:
    column = table.columns[number]
    return {
        "benchmark": column.benchmark,
        "attack": column.attack,
        "metric": column.metric,
        "judge": column.judge,
        "corrected": column.corrected,
        "role": column.role,
    }


def _cells(table: Table, row: int) -> list[schema.Cell | None]:
    return [
        None
        if cell is None
        else {
            "value": cell.value,
            "low": cell.low,
            "high": cell.high,
            "n": cell.n,
            "cases": cell.cases,
            "missing": cell.missing,
            "cut": cell.cut,
            "unit": cell.unit,
            "note": cell.note,
        }
        for cell in table.cells[row]
    ]


def _costs(table: Table) -> list[schema.Cost]:
    return [
        {
            "answers": cost.answers,
            "tokens": cost.tokens,
            "generated_tokens": cost.generated_tokens,
            "steps": cost.steps,
            "seconds": cost.seconds,
            "latency": cost.latency,
        }
        for cost in table.costs
    ]


def _compared(table: Table) -> list[schema.Compared]:
    return [
        {
            "row": table.rows.index(one.row),
            "other": table.rows.index(one.other),
            "column": table.columns.index(one.column),
            "value": one.difference.value,
            "low": one.difference.low,
            "high": one.difference.high,
            "n": one.difference.n,
        }
        for one in table.compared
        if {one.row, one.other} <= set(table.rows) and one.column in table.columns
    ]


def _pairs(table: Table) -> list[schema.JudgePair]:
    return [
        {
            "column": table.columns.index(pair.column),
            "other": pair.other,
            "n": pair.agreement.n,
            "missing": pair.agreement.missing,
            "share": pair.agreement.share.value if pair.agreement.share else None,
            "kappa": pair.agreement.kappa.value if pair.agreement.kappa else None,
        }
        for pair in table.pairs
        if pair.column in table.columns
    ]


def _figures(folder: Path) -> list[schema.Figure]:
    """The figures as vectors; one that is very large is left to its file."""
    return [
        {"name": path.stem, "svg": _text(path)}
        for path in sorted(folder.glob("*.svg"))
        if path.is_file() and path.stat().st_size <= _MOST_FIGURE
    ]


def _text(path: Path) -> str:
    with reading(path):
        check_regular(path)
        return path.read_text(encoding="utf-8")
