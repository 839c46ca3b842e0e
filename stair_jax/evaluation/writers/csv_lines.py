"""A table as CSV: a line per figure, for spreadsheets and data frames."""

import csv
import io
from collections.abc import Iterator
from typing import Any

from stair_jax.evaluation.escaping import csv_text
from stair_jax.evaluation.table import Column, RowKey, Table

FIELDS = (
    "kind",  # "cell", "difference" or "cost"
    "model",
    "method",
    "minus_model",  # of a difference
    "minus_method",
    "benchmark",
    "role",
    "attack",
    "metric",
    "judge",
    "corrected",
    "unit",
    "value",
    "low",
    "high",
    "n",
    "cases",
    "answers",
    "missing",
    "cut",
    "note",
)
_COSTS = {
    "tokens": "tokens",
    "generated_tokens": "tokens",
    "steps": "steps",
    "attack_tokens": "tokens",
    "seconds": "seconds",
    "latency": "seconds",
}
_OF_CELLS = ("unit", "value", "low", "high", "n", "cases", "answers", "missing", "cut", "note")


def csv_lines(table: Table) -> str:
    """CSV with a head; numbers in full, empty where there is none."""
    text = io.StringIO()
    writer = csv.DictWriter(text, FIELDS, restval="", lineterminator="\n")
    writer.writeheader()
    for line in (*_cells(table), *_differences(table), *_costs(table)):
        writer.writerow({key: _field(value) for key, value in line.items()})
    return text.getvalue()


def _cells(table: Table) -> Iterator[dict[str, Any]]:
    for row, cells in zip(table.rows, table.cells, strict=True):
        for column, cell in zip(table.columns, cells, strict=True):
            if cell is not None:
                numbers = {key: getattr(cell, key) for key in _OF_CELLS}
                yield {"kind": "cell"} | _row(row) | _column(column) | numbers


def _differences(table: Table) -> Iterator[dict[str, Any]]:
    for compared in table.compared:
        found = compared.difference
        numbers = {key: getattr(found, key) for key in ("value", "low", "high", "n")}
        minus = {"minus_model": compared.other.model, "minus_method": compared.other.method}
        names = _row(compared.row) | minus | _column(compared.column)
        yield {"kind": "difference"} | names | numbers


def _costs(table: Table) -> Iterator[dict[str, Any]]:
    for row, cost in zip(table.rows, table.costs, strict=True):
        for name, unit in _COSTS.items():
            if (value := getattr(cost, name)) is not None:
                numbers = {"metric": name, "unit": unit, "value": value, "answers": cost.answers}
                yield {"kind": "cost"} | _row(row) | numbers


def _row(row: RowKey) -> dict[str, Any]:
    return {"model": row.model, "method": row.method}


def _column(column: Column) -> dict[str, Any]:
    names = ("benchmark", "role", "attack", "metric", "judge", "corrected")
    return {name: getattr(column, name) for name in names}


def _field(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return csv_text(value) if isinstance(value, str) else repr(value)
