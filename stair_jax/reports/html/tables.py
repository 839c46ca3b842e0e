"""Tables and figures of evaluations."""

from pathlib import Path

from stair_jax.evaluation.cells import Cell
from stair_jax.evaluation.table import Column, Table, row_label
from stair_jax.evaluation.writers import read_table
from stair_jax.reports.html import schema_tables as schema
from stair_jax.reports.records import FinishedStage, RunRecords
from stair_jax.storage import read_text

_TABLE_FILE = "table.json"
_MOST_FIGURE = 1 << 20  # bytes of a figure that is shown


def read_evaluations(run: RunRecords) -> list[schema.Evaluation]:
    """The tables of all finished evaluations.

    Raises:
      UserError: a table is damaged, or of a newer schema.
    """
    return [_evaluation(stage) for stage in with_table(run)]


def with_table(run: RunRecords) -> list[FinishedStage]:
    """The finished stages that have a table."""
    return [stage for stage in run.stages if (stage.folder / _TABLE_FILE).is_file()]


def _evaluation(stage: FinishedStage) -> schema.Evaluation:
    table = read_table(stage.folder / _TABLE_FILE)
    return {
        "stage": stage.name,
        "rows": [row_label(row) for row in table.rows],
        "columns": [_column(column) for column in table.columns],
        "cells": [[_cell(cell) for cell in row] for row in table.cells],
        "costs": _costs(table),
        "compared": _compared(table),
        "pairs": _pairs(table),
        "figures": _figures(stage.folder / "figures"),
    }


def _column(column: Column) -> schema.Column:
    return {
        "benchmark": column.benchmark,
        "attack": column.attack,
        "metric": column.metric,
        "judge": column.judge,
        "corrected": column.corrected,
        "role": column.role,
    }


def _cell(cell: Cell | None) -> schema.Cell | None:
    if cell is None:
        return None
    return {
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
        {"name": path.stem, "svg": read_text(path)}
        for path in sorted(folder.glob("*.svg"))
        if path.is_file() and path.stat().st_size <= _MOST_FIGURE
    ]
