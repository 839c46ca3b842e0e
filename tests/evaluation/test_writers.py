"""Tables as Markdown, LaTeX, CSV and plain text: the same figures, and names that break nothing."""

import csv
import io
import re

import pytest

from stair_jax.evaluation.agreement import Agreement
from stair_jax.evaluation.bootstrap import Estimate
from stair_jax.evaluation.cells import Cell, Difference
from stair_jax.evaluation.costs import Cost
from stair_jax.evaluation.table import Column, Compared, JudgePair, RowKey, Table
from stair_jax.evaluation.writers import csv_lines, latex_table, markdown_table, terminal_table

WRITERS = (markdown_table, latex_table, csv_lines, terminal_table)
HOSTILE = "a|b & $x_1$ \\\\[2em] <b>\n\x1b[31m"


def a_table(model="base", judge="rule"):
    """Two rows, three columns, with all that stands below a table."""
    rows = (RowKey(model, "greedy"), RowKey("tuned", "best_of_n"))
    columns = (
        Column("xstest", "none", "refusals", judge),
        Column("xstest", "none", "refusals", "second"),
        Column("advbench", "pair", "length", role="training"),
    )
    share = Cell(0.875, 0.75, 1.0, 40, 42, 42, 2, 3, judge, metric="refusals")
    tokens = Cell(251.26, 240.0, 260.04, 40, 40, 40, metric="length", unit="tokens")
    none = Cell(None, cases=42, answers=42, missing=42, note="no answer has a score")
    return Table(
        rows=rows,
        columns=columns,
        cells=((share, none, tokens), (share, share, None)),
        costs=(Cost(80, 10.0, None, 2.25), Cost(40, 10.0, 400.0, 2.0, seconds=71.0)),
        compared=(Compared(rows[1], rows[0], columns[0], Difference(-0.125, -0.25, 0.0, 39)),),
        judges={judge: {"phrases": 17}, "second": {}},
        pairs=(JudgePair(columns[0], "second", Agreement(9, 1, Estimate(0.5, 0.25, 0.75), None)),),
    )


def test_markdown_has_figures_intervals_costs_and_differences():
    text = markdown_table(a_table())
    head, _, first, second, cases, *_ = text.splitlines()
    assert head == (
        "| model | method | xstest: refusals (judge rule) | xstest: refusals (judge second) "
        "| advbench (training), pair: length | tokens an answer | generated tokens an answer "
        "| steps an answer | seconds |"
    )
    assert first == (
        "| base | greedy | 0.875 [0.750, 1.000] | - | 251.3 [240.0, 260.0] | 10 | - | 2.2 | - |"
    )
    assert second.startswith("| tuned | best\\_of\\_n | 0.875 [0.750, 1.000] |")
    assert cases.startswith("| cases |  | 42 | 42 | 40 |")
    assert "-0.125 [-0.250, +0.000] | 39 |" in text


def test_latex_has_the_same_figures():
    text = latex_table(a_table())
    assert "base & greedy & 0.875 {\\footnotesize [0.750, 1.000]} & - &" in text
    assert "$-$0.125 [$-$0.250, +0.000] & 39 \\\\" in text
    assert "xstest & xstest & advbench (training) &" in text


def test_csv_has_a_line_a_figure_with_all_digits():
    lines = list(csv.DictReader(io.StringIO(csv_lines(a_table()))))
    assert [line["kind"] for line in lines] == ["cell"] * 5 + ["difference"] + ["cost"] * 6
    first = lines[0]
    assert (first["value"], first["low"], first["missing"], first["cut"]) == (
        "0.875",
        "0.75",
        "2",
        "3",
    )
    assert (first["judge"], first["corrected"], first["role"]) == ("rule", "no", "reported")
    assert (lines[1]["value"], lines[1]["note"]) == ("", "no answer has a score")
    assert lines[2]["value"] == "251.26"
    assert (lines[5]["minus_model"], lines[5]["value"]) == ("base", "-0.125")


def test_a_terminal_shows_side_by_side_what_there_is_less_of():
    lines = terminal_table(a_table()).splitlines()
    assert lines[0].split("  ")[-1] == "cases" and "base, greedy" in lines[0]
    assert lines[1].startswith("xstest: refusals (judge rule)")
    table = a_table()
    narrow = Table(table.rows, table.columns[:1], tuple(line[:1] for line in table.cells), ())
    narrow = Table(**(vars(narrow) | {"costs": (Cost(1), Cost(1))}))
    assert terminal_table(narrow).splitlines()[1].startswith("base, greedy")


@pytest.mark.parametrize("write", [markdown_table, latex_table, terminal_table])
def test_below_a_table_stands_what_its_figures_rest_on(write):
    text = write(a_table()).replace("\\_", "_").replace("{[}", "[").replace("{]}", "]")
    text = text.replace("\\[", "[").replace("\\]", "]").replace("\\%", "%")
    assert "Intervals: 95 %, cluster bootstrap over cases (2000 samples)" in text
    assert "Judge rule: phrases 17" in text and "Judge second: not identified" in text
    assert "(training): the rows of this benchmark are usual training data" in text
    assert "agree on 0.500 [0.250, 0.750] of 9 answers, kappa undefined" in text
    assert "base, greedy: 2 missing and 3 cut of 42 answers; tuned" in text
    assert "42 missing and 0 cut of 42 answers, no answer has a score" in text


@pytest.mark.parametrize("write", WRITERS)
def test_a_name_adds_no_line_column_or_control_character(write):
    plain, hostile = write(a_table()), write(a_table(HOSTILE, HOSTILE))
    assert len(hostile.splitlines()) == len(plain.splitlines())
    assert not re.search("[\x00-\x09\x0b-\x1f]", hostile)


def test_a_name_adds_no_cell_to_a_line():
    def cells(text, line, separator):
        return len(re.findall(separator, text.splitlines()[line]))

    for write, separator, line in (
        (markdown_table, r"(?<!\\)\|", 2),
        (latex_table, r"(?<!\\)&", 8),
    ):
        counts = {cells(write(a_table(name, name)), line, separator) for name in ("base", HOSTILE)}
        assert len(counts) == 1 and counts != {0}
    (hostile, *_) = csv.DictReader(io.StringIO(csv_lines(a_table(HOSTILE))))
    assert hostile["model"].startswith("a|b & $x_1$") and hostile["method"] == "greedy"


@pytest.mark.parametrize("write", WRITERS)
def test_a_table_without_anything_is_written(write):
    assert write(Table((), (), (), ()))
