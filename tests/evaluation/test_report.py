"""From answers and verdicts to the files of a finished evaluation."""

import math

import pytest

from stair_jax import storage
from stair_jax.evaluation.calibration import calibrate
from stair_jax.evaluation.case import Answer
from stair_jax.evaluation.judges.judge import Verdict
from stair_jax.evaluation.report import Verdicts, grade, results_of, write_report
from stair_jax.evaluation.runner import answer_key
from stair_jax.evaluation.table import Column, RowKey, row_label
from stair_jax.evaluation.writers import read_table
from stair_jax.evaluation.writers.terminal_table import terminal_table

ROW, OTHER = RowKey("m", "greedy"), RowKey("m", "best_of_n")


def answers(*finals, row=ROW, attack="none", **changes):
    """Answers to the cases c0, c1, ...; None: missing."""
    return [
        Answer(
            "small",
            f"c{n}",
            attack,
            model=row.model,
            method=row.method,
            final=final or "",
            finish="missing" if final is None else changes.get(f"c{n}", "stop"),
        )
        for n, final in enumerate(finals)
    ]


@pytest.fixture
def judged(small_set):
    """`judge(name, answers, labels)`: verdicts of these answers."""

    def judged(name, found, labels, **changes):
        pairs = zip(found, labels, strict=True)
        verdicts = {answer_key(a): Verdict("harmful", name, label) for a, label in pairs}
        questions = frozenset(changes.pop("questions", ("harmful",)))
        return Verdicts(name, {"name": name}, questions, verdicts, **changes)

    return judged


def cells(table, row=ROW):
    line = table.cells[table.rows.index(row)]
    return {
        (column.metric, column.judge, column.corrected): cell
        for column, cell in zip(table.columns, line, strict=True)
    }


def test_a_missing_answer_has_all_metrics_missing(small_set, judged, tmp_path):
    asked, found = small_set(4), answers("a", None, "b", "c")
    judge = judged("j", found[:1] + found[2:], ["no", "yes", "no"])
    graded = grade(asked, found, judge.found, "harmful")
    assert graded[1].scores == {"harmless": None, "short": None}
    assert [row.scores["harmless"] for row in graded] == [1.0, None, 0.0, 1.0]
    table = write_report(tmp_path, list(results_of([asked], {ROW: found}, [judge])), [asked])
    cell = cells(table)["harmless", "j", False]
    assert (cell.value, cell.n, cell.cases, cell.missing) == (pytest.approx(2 / 3), 3, 4, 1)
    assert cells(table)["short", "j", False].missing == 1


def test_a_verdict_that_could_not_be_read_is_missing_and_never_a_number(small_set, judged):
    asked, found = small_set(2), answers("a", "b")
    judge = judged("j", found, ["no", None])
    (result,) = results_of([asked], {ROW: found}, [judge])
    assert [row.scores for row in result.rows] == [
        {"harmless": 1.0, "short": 1.0},
        {"harmless": None, "short": 1.0},
    ]


def test_answers_that_were_cut_are_counted_and_graded(small_set, judged, tmp_path):
    asked = small_set(3)
    found = answers("a", "b", "c", c0="length", c2="length")
    judge = judged("j", found, ["no", "no", "no"])
    table = write_report(tmp_path, list(results_of([asked], {ROW: found}, [judge])), [asked])
    cell = cells(table)["harmless", "j", False]
    assert (cell.cut, cell.n, cell.value) == (2, 3, 1.0)


def test_what_no_judge_can_grade_has_no_column_and_the_rest_has(small_set, tmp_path):
    """A set without a question is graded without a judge, beside one that is not graded."""
    asked = small_set(2)
    plain = small_set(2)
    kind = type("Plain", (type(plain.benchmark),), {"NAME": "plain", "QUESTION": ""})
    plain = type(plain)(kind(), plain.attack, plain.cases)
    found = answers("a", "a long answer")
    own = [Answer("plain", a.case, model="m", final=a.final) for a in found]
    judges = [Verdicts("rule", {}, frozenset({"refusal"}), {})]
    results = list(results_of([asked, plain], {ROW: [*found, *own]}, judges))
    table = write_report(tmp_path, results, [asked, plain])
    assert [(column.benchmark, column.judge) for column in table.columns] == [("plain", "")] * 2
    assert cells(table)["short", "", False].value == 0.5
    rows = storage.read_jsonl(tmp_path / "graded.jsonl")
    assert {row["benchmark"] for row in rows} == {"plain"}


def test_where_nothing_can_be_graded_the_files_are_there_and_empty(small_set, tmp_path):
    asked = small_set(1)
    write_report(tmp_path, list(results_of([asked], {ROW: answers("a")}, [])), [asked])
    table = read_table(tmp_path / "table.json")
    assert table.rows == table.columns == ()
    assert isinstance(terminal_table(table), str)
    assert storage.read_jsonl(tmp_path / "graded.jsonl") == []


def test_two_judges_have_columns_of_their_own_and_their_agreement(small_set, judged, tmp_path):
    asked, found = small_set(4), answers("a", "b", "c", "d")
    first = judged("first", found, ["no", "no", "yes", "yes"])
    second = judged("second", found, ["no", "yes", "yes", None])
    results = list(results_of([asked], {ROW: found}, [first, second]))
    table = write_report(tmp_path, results, [asked])
    assert cells(table)["harmless", "first", False].value == 0.5
    assert cells(table)["harmless", "second", False].value == pytest.approx(1 / 3)
    assert cells(table)["harmless", "second", False].missing == 1
    (pair,) = [pair for pair in table.pairs if pair.column.metric == "harmless"]
    assert (pair.column.judge, pair.other) == ("first", "second")
    agreed = pair.agreement
    assert (agreed.n, agreed.missing, agreed.share.value) == (3, 1, pytest.approx(2 / 3))
    # Of three rows: first no, no, yes; second no, yes, yes. Chance is (2/3)(1/3) + (1/3)(2/3).
    assert agreed.kappa.value == pytest.approx((2 / 3 - 4 / 9) / (1 - 4 / 9))
    assert table.judges == {"first": {"name": "first"}, "second": {"name": "second"}}


def test_a_calibrated_judge_has_a_corrected_column(small_set, judged, tmp_path):
    labels = ["no"] * 40 + ["yes"] * 40
    said = ["no"] * 30 + ["yes"] * 10 + ["no"] * 10 + ["yes"] * 30
    calibration = calibrate(said, labels, [str(n) for n in range(80)], "j", "labels.jsonl")
    asked, found = small_set(8), answers(*"abcdefgh")
    judge = judged("j", found, ["no"] * 4 + ["yes"] * 4, calibrations={"harmful": calibration})
    table = write_report(tmp_path, list(results_of([asked], {ROW: found}, [judge])), [asked])
    raw, corrected = (cells(table)["harmless", "j", which] for which in (False, True))
    # Rogan and Gladen: (0.5 + 0.75 - 1) / (0.75 + 0.75 - 1), which is 0.5 again.
    assert raw.value == 0.5 and corrected.value == pytest.approx(0.5)
    assert corrected.high - corrected.low > raw.high - raw.low
    assert len(table.calibrations) == 1


def test_rows_and_columns_are_in_the_order_of_rows_and_sets(small_set, judged, tmp_path):
    sets = [small_set(2), small_set(2, "rot13")]
    by_row = {
        row: answers("a", "b", row=row) + answers("a", "b", row=row, attack="rot13")
        for row in (ROW, OTHER)
    }
    everything = [answer for found in by_row.values() for answer in found]
    judge = judged("j", everything, ["no", "yes"] * 4)
    table = write_report(tmp_path, list(results_of(sets, by_row, [judge])), sets)
    assert table.rows == (ROW, OTHER)
    plain = [column for column in table.columns if column.attack in ("none", "rot13")]
    assert plain[:4] == [
        Column("small", attack, metric, "j")
        for attack in ("none", "rot13")
        for metric in ("harmless", "short")
    ]
    assert [row_label(row) for row in table.rows] == ["m", "m, best_of_n"]
    rows = storage.read_jsonl(tmp_path / "graded.jsonl")
    assert len(rows) == 8
    assert rows[0] == {
        "model": "m",
        "method": "greedy",
        "benchmark": "small",
        "attack": "none",
        "case": "c0",
        "group": "",
        "cluster": "",
        "sample": 0,
        "judge": "j",
        "score/harmless": 1.0,
        "score/short": 1.0,
    }


def test_details_of_two_judges_are_kept_apart(small_set, judged, tmp_path):
    asked = small_set(2)

    def details(self, rows):
        return {"harmless": sum(row.scores["harmless"] for row in rows)}

    kind = type("Told", (type(asked.benchmark),), {"details": details})
    asked = type(asked)(kind(), asked.attack, asked.cases)
    found = answers("a", "b")
    judges = [judged("first", found, ["no", "no"]), judged("second", found, ["no", "yes"])]
    write_report(tmp_path, list(results_of([asked], {ROW: found}, judges)), [asked])
    assert storage.read_json(tmp_path / "details.json") == {
        "m": {"small": {"harmless": 2.0}, "small, second": {"harmless": 1.0}}
    }


def test_the_table_is_written_in_all_its_forms(small_set, judged, tmp_path):
    asked, found = small_set(2), answers("a", "b")
    judge = judged("j", found, ["no", "yes"])
    table = write_report(tmp_path, list(results_of([asked], {ROW: found}, [judge])), [asked])
    assert {path.name for path in tmp_path.iterdir()} == {
        "table.json", "table.md", "table.tex", "table.csv", "details.json", "graded.jsonl",
    }  # fmt: skip
    assert read_table(tmp_path / "table.json") == table
    values = [cell.value for cell in table.cells[0]]
    assert values == [0.5, 1.0] and not any(map(math.isnan, values))
