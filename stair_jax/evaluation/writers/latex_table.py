"""A table as LaTeX, to be included in a paper."""

from collections.abc import Sequence

from stair_jax.evaluation.escaping import latex
from stair_jax.evaluation.table import Table
from stair_jax.evaluation.writers import layout


def latex_table(table: Table) -> str:
    """LaTeX: a tabular, one of the differences, and the notes as a list.

    Benchmark, attack and metric of a column stand below each other. The package booktabs is needed.
    """
    costs = layout.known_costs(table)
    columns = table.columns
    head = [
        [
            "",
            "",
            *(latex(layout.benchmark_label(column)) for column in columns),
            *("" for _ in costs),
        ],
        ["", "", *(latex(column.attack) for column in columns), *("" for _ in costs)],
        [
            "model",
            "method",
            *(latex(layout.metric_label(table, column)) for column in columns),
            *costs,
        ],
        ["cases", "", *layout.cases(table), *("" for _ in costs)],
    ]
    lines = [
        [
            latex(row.model),
            latex(row.method),
            *map(_shown, map(layout.shown_cell, cells)),
            *(_minus(layout.shown_cost(cost, name)) for name in costs),
        ]
        for row, cells, cost in zip(table.rows, table.cells, table.costs, strict=True)
    ]
    text = ["% needs \\usepackage{booktabs}", *_tabular(head, lines, left=2)]
    if table.compared:
        text += ["", "\\medskip", "", *_differences(table)]
    text += ["", "\\begin{itemize}", *(f"\\item {latex(n)}" for n in layout.notes(table))]
    return "\n".join([*text, "\\end{itemize}"]) + "\n"


def _differences(table: Table) -> list[str]:
    lines = [
        [
            latex(f"{compared.row.model}, {compared.row.method}"),
            latex(f"{compared.other.model}, {compared.other.method}"),
            latex(layout.column_label(table, compared.column)),
            _minus(
                layout.shown_difference(compared.difference, layout.unit_of(table, compared.column))
            ),
            str(compared.difference.n),
        ]
        for compared in table.compared
    ]
    return _tabular([["row", "minus", "column", "difference", "cases"]], lines, left=3)


def _tabular(head: Sequence[Sequence[str]], lines: Sequence[Sequence[str]], left: int) -> list[str]:
    width = len(head[0])
    return [
        f"\\begin{{tabular}}{{{'l' * left}{'r' * (width - left)}}}",
        "\\toprule",
        *map(_line, head),
        "\\midrule",
        *map(_line, lines),
        "\\bottomrule",
        "\\end{tabular}",
    ]


def _line(texts: Sequence[str]) -> str:
    return " & ".join(texts) + r" \\"


def _shown(texts: tuple[str, str]) -> str:
    value, interval = map(_minus, texts)
    return f"{value} {{\\footnotesize {interval}}}" if interval else value


def _minus(text: str) -> str:
    """Numbers with the sign of mathematics; a lone hyphen stays one."""
    return text if text == layout.NONE else text.replace("-", "$-$")
