"""Figures of a table over seeds: a figure against a varied field, safety against over-refusal."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from stair_jax.evaluation.across_seeds import SeedCell
from stair_jax.evaluation.cells import Cell
from stair_jax.evaluation.drawing import Draw, draw_all
from stair_jax.evaluation.figures import Series, line_figure, tradeoff_figure
from stair_jax.evaluation.file_names import slug
from stair_jax.evaluation.seed_table import COSTS, Answers, SeedTable
from stair_jax.evaluation.table import Column, RowKey, Table
from stair_jax.evaluation.tradeoff import HELPFULNESS, OVER_REFUSAL, plane_of

_WIDE = 10.0  # largest value over smallest, from which the axis is logarithmic


def write_figures(folder: Path, table: SeedTable, answers: Answers) -> None:
    """Writes figures/*.svg and *.png; without matplotlib one line says how to install it.

    Args:
      folder: of the tables.
      table: with the rows and columns that are shown.
      answers: of which it was made, with what a sweep varies.
    """
    draw_all(folder, [*_planes(table, answers), *_fields(table, answers)])


def _planes(table: SeedTable, answers: Answers) -> Iterator[tuple[str, Draw]]:
    """Safety against over-refusal and against helpfulness, where rows have both."""
    plain = _plain_table(table, answers)
    for name, choices in (("over_refusal", OVER_REFUSAL), ("helpfulness", HELPFULNESS)):
        if plane := plane_of(plain, helpfulness=choices):
            models = [
                replace(each, name=each.name.removesuffix(", greedy")) for each in plane.models
            ]
            draw = partial(
                tradeoff_figure,
                models,
                safety=plane.safety,
                helpfulness=plane.helpfulness,
            )
            yield f"safety_{name}", draw


def _plain_table(table: SeedTable, answers: Answers) -> Table:
    """The same as a table of one evaluation, as far as a figure shows it."""
    places = [place for place, column in enumerate(table.columns) if column.name not in COSTS]
    columns: list[Column] = [answers.columns[table.columns[place].name][0] for place in places]
    return Table(
        rows=tuple(RowKey(row.label, "greedy") for row in table.rows),
        columns=tuple(columns),
        cells=tuple(tuple(_plain(line[place]) for place in places) for line in table.cells),
        costs=(),
    )


def _plain(cell: SeedCell | None) -> Cell | None:
    return None if cell is None else Cell(cell.value, cell.low, cell.high, unit=cell.unit)


def _fields(table: SeedTable, answers: Answers) -> Iterator[tuple[str, Draw]]:
    """The main figure of each benchmark against each field that has several numbers."""
    fields = dict.fromkeys(field for own in answers.values.values() for field in own)
    for field in fields:
        for place, column in enumerate(table.columns):
            if column.name in COSTS or not _is_main(table, answers, place):
                continue
            lines = _lines(table, answers, field, place)
            if all(len(points) < 2 for points in lines.values()):
                continue
            series = [Series.of(name, points) for name, points in lines.items() if len(points) > 1]
            numbers = [x for points in lines.values() for x, _ in points]
            is_log = min(numbers) > 0 and max(numbers) / min(numbers) >= _WIDE
            draw = partial(
                line_figure, series, horizontal=field, vertical=column.label, is_log=is_log
            )
            yield slug(f"{field}.{column.name}"), draw


def _is_main(table: SeedTable, answers: Answers, place: int) -> bool:
    """Whether a column is the first one that is shown of its benchmark and attack."""

    def of(name: str) -> tuple[str, str]:
        column, _ = answers.columns[name]
        return column.benchmark, column.attack

    own = of(table.columns[place].name)
    before = (column.name for column in table.columns[:place] if column.name not in COSTS)
    return all(of(name) != own for name in before)


def _lines(
    table: SeedTable, answers: Answers, field: str, place: int
) -> Mapping[str, Sequence[tuple[float, Cell]]]:
    """For each line, which is all that stays the same, its places and cells."""
    lines: dict[str, list[tuple[float, Cell]]] = {}
    for row, cells in zip(table.rows, table.cells, strict=True):
        values, cell = answers.values.get(row.name, {}), _plain(cells[place])
        number = _number(values.get(field, ""))
        if number is not None and cell is not None:
            others = [f"{name} {text}" for name, text in values.items() if name != field]
            name = ", ".join([answers.models[row.name], *others])
            lines.setdefault(name, []).append((number, cell))
    return lines


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
