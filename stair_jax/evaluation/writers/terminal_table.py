"""A table as plain text in columns."""

from collections.abc import Sequence

from stair_jax.evaluation.escaping import one_line
from stair_jax.evaluation.table import Table
from stair_jax.evaluation.writers import layout


def terminal_table(table: Table) -> str:
    """Plain text with the notes; what there is less of, rows or columns, stands side by side."""
    costs = layout.known_costs(table)
    names = [f"{row.model}, {row.method}" for row in table.rows]
    heads = [*(layout.column_label(table, column) for column in table.columns), *costs]
    body = [
        [
            *(" ".join(filter(None, layout.shown_cell(cell))) for cell in cells),
            *(layout.shown_cost(cost, head) for head in costs),
        ]
        for cells, cost in zip(table.cells, table.costs, strict=True)
    ]
    lines = [["", *heads], *([name, *line] for name, line in zip(names, body, strict=True))]
    lines.append(["cases", *layout.cases(table), *("" for _ in costs)])
    if len(heads) > len(names):
        lines = [list(line) for line in zip(*lines, strict=True)]
    text = _aligned([[one_line(part) for part in line] for line in lines])
    if table.compared:
        text += ["", "differences on the cases that both have", *_aligned(_differences(table))]
    return "\n".join([*text, "", *map(one_line, layout.notes(table))]) + "\n"


def _differences(table: Table) -> list[list[str]]:
    return [
        [
            one_line(
                f"{compared.row.model}, {compared.row.method} - {compared.other.model}, "
                f"{compared.other.method}"
            ),
            one_line(layout.column_label(table, compared.column)),
            layout.shown_difference(compared.difference, layout.unit_of(table, compared.column)),
            f"{compared.difference.n} cases",
        ]
        for compared in table.compared
    ]


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """The first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip()
        for line in lines
    ]
