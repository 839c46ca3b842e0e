"""A table as Markdown."""

from collections.abc import Sequence

from stair_jax.evaluation.escaping import markdown
from stair_jax.evaluation.table import Table
from stair_jax.evaluation.writers import layout


def markdown_table(table: Table) -> str:
    """Markdown: a line per row of the table, differences, notes, and the confusion of judges."""
    costs = layout.known_costs(table)
    heads = [markdown(layout.column_label(table, column)) for column in table.columns]
    lines = [
        [
            markdown(row.model),
            markdown(row.method),
            *(" ".join(filter(None, layout.shown_cell(cell))) for cell in cells),
            *(layout.shown_cost(cost, head) for head in costs),
        ]
        for row, cells, cost in zip(table.rows, table.cells, table.costs, strict=True)
    ]
    lines.append(["cases", "", *layout.cases(table), *("" for _ in costs)])
    text = _table(["model", "method", *heads, *costs], lines, left=2)
    if table.compared:
        text += ["", "Differences on the cases that both have:", "", *_differences(table)]
    text += ["", *(f"- {markdown(note)}" for note in layout.notes(table))]
    for calibration in table.calibrations:
        text += ["", calibration.markdown().rstrip("\n")]
    return "\n".join(text) + "\n"


def _differences(table: Table) -> list[str]:
    lines = [
        [
            markdown(f"{compared.row.model}, {compared.row.method}"),
            markdown(f"{compared.other.model}, {compared.other.method}"),
            markdown(layout.column_label(table, compared.column)),
            layout.shown_difference(compared.difference, layout.unit_of(table, compared.column)),
            str(compared.difference.n),
        ]
        for compared in table.compared
    ]
    return _table(["row", "minus", "column", "difference", "cases"], lines, left=3)


def _table(head: Sequence[str], lines: Sequence[Sequence[str]], left: int) -> list[str]:
    """A table whose first `left` columns are aligned to the left, the others to the right."""
    rule = ["---"] * left + ["---:"] * (len(head) - left)
    return [f"| {' | '.join(line)} |" for line in (head, rule, *lines)]
