"""Tables of results: places of cells, costs, differences, agreement of judges, JSON."""

import json
import random

import pytest

from stair_jax.errors import UserError
from stair_jax.evaluation.benchmark import Metric
from stair_jax.evaluation.calibration import calibrate
from stair_jax.evaluation.case import Answer, Case, Graded
from stair_jax.evaluation.cells import cell
from stair_jax.evaluation.table import Column, RowKey, Table
from stair_jax.evaluation.tabulate import AttackMean, Result, tabulate
from stair_jax.evaluation.writers import read_table, write_table

REFUSED = Metric("refusals", "refused", labels=("refusal",))
SAMPLES = 100
BASE, TUNED = RowKey("base", "greedy"), RowKey("tuned", "greedy")


def result(row, scores, benchmark="xstest", attack="none", metrics=(REFUSED,), **more):
    """A result with one answer a case, of 10 tokens of 30 in 2 steps."""
    rows = [
        Graded(
            Case(str(index), "?"),
            Answer(
                benchmark,
                str(index),
                attack,
                model=row.model,
                method=row.method,
                tokens=10,
                generated_tokens=30,
                steps=2,
            ),
            {"refused": score},
        )
        for index, score in enumerate(scores)
    ]
    return Result(row.model, row.method, benchmark, attack, metrics, rows, **more)


def a_table():
    """Two models, two benchmarks, two judges of one of them, and a calibration of one of these."""
    calibration = calibrate(
        ["refusal"] * 18 + ["answer"] * 21 + [None],
        ["refusal"] * 20 + ["answer"] * 20,
        judge="rule",
        source="labels.csv",
    )
    results = []
    for row, scores in ((BASE, [1, 0, 0, None, 1, 0]), (TUNED, [1, 1, 0, 1, 1, 1])):
        identity = {"phrases": 17}
        judged = {"judge": "rule", "identity": identity, "calibration": calibration}
        results += [
            result(row, scores, **judged, seconds=1.5, latencies=(0.2, 0.4)),
            result(row, [0, 0, 1, 1, 1, 0], judge="model", identity={"sha256": "ab"}, seconds=1.5),
            result(row, [0.25, 0.75], "hhh", seconds=0.5),
        ]
    return tabulate(results, num_samples=SAMPLES), results


def test_rows_and_columns_come_in_the_order_of_the_results():
    table, _ = a_table()
    assert table.rows == (BASE, TUNED)
    assert table.columns == (
        Column("xstest", "none", "refusals", "rule"),
        Column("xstest", "none", "refusals", "rule", corrected=True),
        Column("xstest", "none", "refusals", "model"),
        Column("hhh", "none", "refusals"),
    )


def test_a_cell_stands_at_its_row_and_column():
    table, results = a_table()
    expected = cell(results[3].rows, REFUSED, "rule", num_samples=SAMPLES)
    assert table.cell(TUNED, table.columns[0]) == expected
    correction = results[0].calibration.correction(("refusal",))
    corrected = cell(results[0].rows, REFUSED, "rule", correction, num_samples=SAMPLES)
    assert table.cell(BASE, table.columns[1]) == corrected
    assert corrected.corrected and corrected.value != cell(results[0].rows, REFUSED).value


def test_where_a_row_has_no_answers_there_is_no_cell():
    table = tabulate([result(BASE, [1]), result(TUNED, [1], "hhh")], num_samples=SAMPLES)
    assert [[one is None for one in line] for line in table.cells] == [[False, True], [True, False]]
    assert table.compared == ()


def test_columns_of_a_benchmark_stand_side_by_side():
    table = tabulate([result(BASE, [1]), result(BASE, [1], "hhh"), result(TUNED, [1], judge="j")])
    assert [column.benchmark for column in table.columns] == ["xstest", "xstest", "hhh"]


def test_the_mean_over_attacks_is_a_column_of_rows_that_have_all_of_them():
    results = [
        result(BASE, [1, 0, 1, 0], attack="pair", judge="j"),
        result(BASE, [1, 1, 1, 0], attack="pap", judge="j"),
        result(TUNED, [1, 1, 1, 1], attack="pair", judge="j"),
    ]
    mean = AttackMean("xstest", ("pair", "pap"))
    table = tabulate(results, [mean, AttackMean("hhh", ("pair",))], num_samples=SAMPLES)
    assert [column.attack for column in table.columns] == ["pair", "pap", "mean of pair, pap"]
    assert table.cells[0][2].value == pytest.approx((0.5 + 0.75) / 2)
    assert table.cells[1][2] is None
    assert table.costs[0].answers == 8


def test_two_results_for_one_place_are_refused():
    with pytest.raises(ValueError, match="two results"):
        tabulate([result(BASE, [1]), result(BASE, [0])])


def test_costs_count_answers_once_that_two_judges_graded():
    table, _ = a_table()
    cost = table.costs[0]
    assert (cost.answers, cost.tokens, cost.generated_tokens, cost.steps) == (8, 10, 30, 2)
    assert cost.seconds == 2.0
    assert cost.latency == pytest.approx(0.3)


def test_seconds_that_are_known_of_a_part_are_not_those_of_the_row():
    table = tabulate([result(BASE, [1], seconds=3.0), result(BASE, [1], "hhh")])
    assert table.costs[0].seconds is None


def test_rows_are_compared_with_the_first_one_on_the_cases_that_both_have():
    table, _ = a_table()
    (compared, *others) = table.compared
    assert (compared.row, compared.other, compared.column) == (TUNED, BASE, table.columns[0])
    assert compared.difference.n == 5
    assert compared.difference.value == pytest.approx(4 / 5 - 2 / 5)
    assert [one.column.corrected for one in others] == [False, False]
    assert others[0].difference.value == 0


def test_rows_are_compared_with_the_one_that_was_asked_for():
    _, results = a_table()
    compared = tabulate(results, baseline=TUNED, num_samples=SAMPLES).compared
    assert {(one.row, one.other) for one in compared} == {(BASE, TUNED)}


def test_a_baseline_without_results_is_refused():
    with pytest.raises(ValueError, match="no result is of the baseline"):
        tabulate([result(BASE, [1])], baseline=TUNED)


def test_what_identifies_a_judge_is_listed_where_it_changed_between_results():
    first = result(BASE, [1], judge="j", identity={"asked": "m", "reported": "m-1"})
    second = result(TUNED, [1], judge="j", identity={"asked": "m", "reported": "m-2"})
    table = tabulate([first, second], num_samples=SAMPLES)
    assert table.judges == {"j": {"asked": "m", "reported": ["m-1", "m-2"]}}


def test_two_judges_of_a_column_have_their_agreement():
    table, _ = a_table()
    (pair,) = table.pairs
    assert (pair.column.judge, pair.other) == ("rule", "model")
    # both rows against 001110: 100-10 agrees at 3 of 5, 110111 at 2 of 6
    assert (pair.agreement.n, pair.agreement.missing) == (11, 1)
    assert pair.agreement.share.value == pytest.approx(5 / 11)


def test_judges_with_scores_between_0_and_1_have_no_share_of_agreement():
    results = [result(BASE, [0.5, 1], judge="a"), result(BASE, [1, 1], judge="b")]
    assert tabulate(results, num_samples=SAMPLES).pairs == ()


def test_a_calibration_without_the_labels_of_the_metric_leaves_the_corrected_cell_empty():
    calibration = calibrate(["yes", "no"], ["yes", "no"], judge="j")
    table = tabulate([result(BASE, [0, 1], judge="j", calibration=calibration)])
    found = table.cells[0][1]
    assert found.value is None and found.note == "no correction: no labelled row is refusal"


def test_the_order_of_graded_answers_changes_nothing():
    table, results = a_table()
    shuffled = []
    for one in results:
        rows = list(one.rows)
        random.Random(1).shuffle(rows)
        shuffled.append(Result(**(vars(one) | {"rows": rows})))
    assert tabulate(shuffled, num_samples=SAMPLES) == table


def test_a_table_is_read_as_it_was_written(tmp_path):
    table, _ = a_table()
    write_table(table, tmp_path)
    assert read_table(tmp_path / "table.json") == table
    assert json.loads((tmp_path / "table.json").read_text())["schema"] == 1
    assert table.calibrations[0].markdown() in (tmp_path / "table.md").read_text()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["table.csv", "table.json", "table.md", "table.tex"]


@pytest.mark.parametrize("row", [{}, {"schema": 1, "rows": 3}, {"schema": "x"}, [], 3])
def test_a_damaged_table_is_one_clear_line(row):
    with pytest.raises(UserError, match="the table cannot be read") as caught:
        Table.from_dict(row)
    assert "\n" not in str(caught.value)


def test_a_newer_table_is_refused():
    with pytest.raises(UserError, match="newer stair_jax"):
        Table.from_dict(a_table()[0].to_dict() | {"schema": 2})
