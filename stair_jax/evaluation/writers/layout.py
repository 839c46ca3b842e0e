"""What all forms of a table for people have in common: labels, numbers as text, notes below."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from stair_jax.evaluation.bootstrap import Estimate
from stair_jax.evaluation.calibration import Calibration
from stair_jax.evaluation.cells import Cell, Difference
from stair_jax.evaluation.costs import Cost
from stair_jax.evaluation.table import Column, JudgePair, Table

NONE = "-"

# head of a column of costs -> (field, decimals)
COSTS = {
    "tokens an answer": ("tokens", 0),
    "generated tokens an answer": ("generated_tokens", 0),
    "steps an answer": ("steps", 1),
    "attack tokens a case": ("attack_tokens", 0),
    "seconds": ("seconds", 0),
    "seconds a prompt": ("latency", 2),
}


def known_costs(table: Table) -> list[str]:
    """Heads of the costs that are known of a row, and not 0 in all of them."""
    return [head for head, (name, _) in COSTS.items() if any(getattr(c, name) for c in table.costs)]


def shown_cost(cost: Cost, head: str) -> str:
    """A cost as text."""
    name, decimals = COSTS[head]
    value = getattr(cost, name)
    return NONE if value is None else f"{value:.{decimals}f}"


def metric_label(table: Table, column: Column) -> str:
    """The metric of a column, with the judge where there are several, and whether corrected."""
    marks = []
    if len(table.judges_of(column)) > 1:
        marks.append(f"judge {column.judge}" if column.judge else "no judge")
    if column.corrected:
        marks.append("corrected")
    return f"{column.metric} ({', '.join(marks)})" if marks else column.metric


def benchmark_label(column: Column) -> str:
    """The benchmark of a column, with its role unless it is one that is reported."""
    role = "" if column.role == "reported" else f" ({column.role})"
    return column.benchmark + role


def column_label(table: Table, column: Column) -> str:
    """A column in one line."""
    attack = "" if column.attack == "none" else f", {column.attack}"
    return f"{benchmark_label(column)}{attack}: {metric_label(table, column)}"


def shown_cell(cell: Cell | None) -> tuple[str, str]:
    """Figure and interval as text, the latter "" where there is none."""
    if cell is None or cell.value is None:
        return NONE, ""
    if cell.low is None or cell.high is None:
        return number(cell.value, cell.unit), ""
    return number(cell.value, cell.unit), interval(cell.low, cell.high, cell.unit)


def interval(low: float, high: float, unit: str, sign: str = "") -> str:
    """An interval as text; `sign` "+" shows that of positive numbers too."""
    return f"[{number(low, unit, sign)}, {number(high, unit, sign)}]"


def cases(table: Table) -> list[str]:
    """Number of cases of each column; a range where they differ between rows."""
    shown = []
    for place in range(len(table.columns)):
        found = [line[place] for line in table.cells]
        numbers = sorted({cell.cases for cell in found if cell is not None})
        shown.append("-".join(map(str, numbers[:1] + numbers[1:][-1:])) or NONE)
    return shown


def shown_difference(difference: Difference, unit: str) -> str:
    """A difference with its sign, and its interval."""
    if difference.value is None:
        return NONE
    value = number(difference.value, unit, sign="+")
    if difference.low is None or difference.high is None:
        return value
    return f"{value} {interval(difference.low, difference.high, unit, sign='+')}"


def unit_of(table: Table, column: Column) -> str:
    """The unit of a column's cells."""
    place = table.columns.index(column)
    return next((line[place].unit for line in table.cells if line[place]), "")  # type: ignore[union-attr]


def notes(table: Table) -> Iterator[str]:
    """Lines that belong below the table, as plain text."""
    yield (
        f"Intervals: 95 %, cluster bootstrap over cases ({table.num_samples} samples); where all "
        "cases agree, the exact bound of Clopper and Pearson."
    )
    yield "Missing: without a score, left out. Cut: ended at the limit of tokens."
    roles = {column.role for column in table.columns}
    if "development" in roles:
        yield "(development): settings were chosen on this benchmark."
    if "training" in roles:
        yield "(training): the rows of this benchmark are usual training data."
    if any(column.corrected for column in table.columns):
        yield "(corrected): without the judge's error, after Rogan and Gladen (1978)."
    for name, identity in table.judges.items():
        yield f"Judge {name}: {_identity(identity)}"
    yield from map(_calibration, table.calibrations)
    for pair in table.pairs:
        yield _pair(table, pair)
    for place, column in enumerate(table.columns):
        cells = [(row, line[place]) for row, line in zip(table.rows, table.cells, strict=True)]
        several = len(table.rows) > 1
        said = [
            (f"{row.model}, {row.method}: " if several else "") + text
            for row, cell in cells
            if cell is not None and (text := _counts(cell))
        ]
        if said:
            yield f"{column_label(table, column)}. {'; '.join(said)}."


def _counts(cell: Cell) -> str:
    """What was missing or cut, and why there is no figure; "": nothing."""
    parts = []
    if (cell.missing or cell.cut) and not cell.corrected:  # the column beside it says so already
        parts.append(f"{cell.missing} missing and {cell.cut} cut of {cell.answers} answers")
    if cell.note:
        parts.append(cell.note)
    return ", ".join(parts)


def _identity(identity: Mapping[str, Any]) -> str:
    if not identity:
        return "not identified"
    parts = []
    for key, value in identity.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        parts.append(f"{key} {text}")
    return ", ".join(parts)


def _calibration(calibration: Calibration) -> str:
    found = calibration.agreement
    source = f" of {calibration.source}" if calibration.source else ""
    return (
        f"Judge {calibration.judge} on {found.n} labelled rows{source}: accuracy "
        f"{estimate(found.share)}, kappa {estimate(found.kappa)}, {found.missing} without a verdict"
    )


def _pair(table: Table, pair: JudgePair) -> str:
    found = pair.agreement
    names = f"{pair.column.judge} and {pair.other}"
    attack = "" if pair.column.attack == "none" else f", {pair.column.attack}"
    return (
        f"{pair.column.benchmark}{attack}: {pair.column.metric}. Judges {names} agree on "
        f"{estimate(found.share)} of {found.n} answers, kappa {estimate(found.kappa)}"
    )


def estimate(found: Estimate | None) -> str:
    """A share or kappa with its interval as text."""
    return (
        "undefined" if found is None else f"{found.value:.3f} {interval(found.low, found.high, '')}"
    )


def number(value: float, unit: str, sign: str = "") -> str:
    """A number with the digits that its unit has."""
    return f"{value:{sign}.3f}" if unit in ("share", "") else f"{value:{sign}.1f}"
