"""A table over seeds as Markdown and CSV."""

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

from stair_jax.evaluation.across_seeds import SeedCell
from stair_jax.evaluation.escaping import csv_text, markdown
from stair_jax.evaluation.seed_table import SeedTable
from stair_jax.evaluation.writers.layout import NONE, interval, number

FIELDS = (
    "kind",  # "figure" or "difference"
    "row",
    "label",
    "minus",
    "column",
    "unit",
    "value",
    "low",
    "high",
    "seeds",
    "least",
    "greatest",
    "n",
    "cases",
    "missing",
    "note",
)
_OF_CELLS = ("unit", "value", "low", "high", "seeds", "least", "greatest", "n", "cases", "missing")


def seed_markdown(table: SeedTable) -> str:
    """Markdown: a line a row, the numbers of cases, then the differences and what the table is."""
    heads = [markdown(column.label) for column in table.columns]
    seeds = [_seeds(cells) for cells in table.cells]
    lines = [
        [markdown(row.label), *map(_shown, cells), own]
        for row, cells, own in zip(table.rows, table.cells, seeds, strict=True)
    ]
    lines.append(["cases", *_cases(table), ""])
    text = _table(["", *heads, "seeds"], lines)
    if table.against:
        text += ["", f"Less {markdown(table.against)}, on the cases that both have:", ""]
        lines = [
            [markdown(row.label), *(_shown(cell, "+") for cell in cells)]
            for row, cells in zip(table.rows, table.differences, strict=True)
            if any(cells)
        ]
        text += _table(["", *heads], lines)
    return "\n".join([*text, "", *_notes(table)]) + "\n"


def seed_csv(table: SeedTable) -> str:
    """CSV with a head: a line a figure or difference; numbers in full, empty where none is."""
    text = io.StringIO()
    writer = csv.DictWriter(text, FIELDS, restval="", lineterminator="\n")
    writer.writeheader()
    for line in _csv_rows(table):
        writer.writerow({key: _field(value) for key, value in line.items()})
    return text.getvalue()


def _csv_rows(table: SeedTable) -> Iterator[dict[str, Any]]:
    kinds = [("figure", table.cells)]
    kinds += [("difference", table.differences)] if table.against else []
    for kind, lines in kinds:
        for row, cells in zip(table.rows, lines, strict=True):
            for column, cell in zip(table.columns, cells, strict=True):
                if cell is not None:
                    names = {"kind": kind, "row": row.name, "label": row.label}
                    minus = {"minus": table.against} if kind == "difference" else {}
                    numbers = {name: getattr(cell, name) for name in (*_OF_CELLS, "note")}
                    yield names | minus | {"column": column.name} | numbers


def _shown(cell: SeedCell | None, sign: str = "") -> str:
    if cell is None or cell.value is None:
        return NONE
    value = number(cell.value, cell.unit, sign)
    if cell.low is None or cell.high is None:
        return value
    return f"{value} {interval(cell.low, cell.high, cell.unit, sign)}"


def _seeds(cells: Sequence[SeedCell | None]) -> str:
    return _range(cell.seeds for cell in cells if cell is not None)


def _cases(table: SeedTable) -> list[str]:
    columns = zip(*table.cells, strict=True) if table.cells else ()
    return [_range(cell.cases for cell in own if cell and cell.cases) for own in columns]


def _range(numbers: Iterator[int]) -> str:
    found = sorted(set(numbers))
    return "-".join(map(str, found[:1] + found[1:][-1:]))


def _notes(table: SeedTable) -> Iterator[str]:
    """What the intervals are, and where there is none."""
    most = max((cell.seeds for line in table.cells for cell in line if cell), default=0)
    over = (
        "seeds and cases" if most > 1 else "cases; with one seed they do not tell what seeds change"
    )
    yield f"Brackets: 95 % intervals, bootstrap over {over} ({table.num_samples} samples)."
    notes: dict[str, list[str]] = {}
    for place, cell in _places(table):
        if cell.note:
            notes.setdefault(cell.note, []).append(place)
        if cell.missing:
            text = "answers without a score, left out"
            notes.setdefault(text, []).append(f"{cell.missing} of {place}")
    for note, places in notes.items():
        yield f"\n{note.capitalize()}: {markdown('; '.join(places))}."


def _places(table: SeedTable) -> Iterator[tuple[str, SeedCell]]:
    """The figures and the differences that there are, each with its place in words."""
    for lines, less in ((table.cells, ""), (table.differences, f" less {table.against}")):
        for row, cells in zip(table.rows, lines, strict=bool(lines)):
            for column, cell in zip(table.columns, cells, strict=True):
                if cell is not None:
                    yield f"{row.label}{less}, {column.label}", cell


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return [f"| {' | '.join(line)} |" for line in (head, rule, *lines)]


def _field(value: Any) -> str:
    if value is None:
        return ""
    return csv_text(value) if isinstance(value, str) else repr(value)
