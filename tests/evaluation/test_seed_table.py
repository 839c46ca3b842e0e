"""Tables over runs and seeds: from graded answers, through names, to Markdown, CSV and figures."""

import csv
import io

import numpy as np
import pytest

from stair_jax import storage
from stair_jax.errors import UserError
from stair_jax.evaluation.benchmark import Metric
from stair_jax.evaluation.benchmarks import BENCHMARKS
from stair_jax.evaluation.benchmarks.confaide import Confaide1
from stair_jax.evaluation.case import Answer, Case, Graded
from stair_jax.evaluation.costs import Cost
from stair_jax.evaluation.graded_rows import graded_rows, read_results
from stair_jax.evaluation.seed_details import details_markdown
from stair_jax.evaluation.seed_figures import write_figures
from stair_jax.evaluation.seed_table import (
    SeedRun,
    Shown,
    choose,
    collect,
    column_name,
    seed_table,
)
from stair_jax.evaluation.statistics import macro_mean
from stair_jax.evaluation.table import Column, RowKey
from stair_jax.evaluation.tabulate import AttackMean, Result, tabulate
from stair_jax.evaluation.writers import write_table
from stair_jax.evaluation.writers.seed_lines import seed_csv, seed_markdown

SAFE, UNSAFE = BENCHMARKS["xstest_safe"], BENCHMARKS["xstest_unsafe"]


def result(kind, values, model="m", method="greedy", attack="none", judge="rule", **changes):
    """Graded answers to a benchmark of refusals; 1: refused."""
    graded = [
        Graded(
            Case(f"c{n}", "", group=f"g{n % 2}", cluster=f"k{n // 2}"),
            Answer(kind.NAME, f"c{n}", attack, model=model, method=method),
            {"refused": value, "fully_refused": value},
        )
        for n, value in enumerate(values)
    ]
    return Result(model, method, kind.NAME, attack, kind.METRICS, graded, judge=judge, **changes)


def write(folder, results):
    storage.write_jsonl(folder / "graded.jsonl", graded_rows(results))
    write_table(tabulate(results), folder)


def test_graded_answers_are_read_as_they_were(tmp_path):
    results = [result(SAFE, [0.0, 1.0, None, 0.0]), result(UNSAFE, [1.0, 1.0], method="prompted")]
    write(tmp_path, results)
    found, table = read_results(tmp_path)
    assert tabulate(found) == tabulate(results) == table  # intervals, with their clusters, too
    assert [one.metrics for one in found] == [SAFE.METRICS, UNSAFE.METRICS]


def test_references_that_are_numbers_are_read_too(tmp_path):
    """A correlation needs them."""
    graded = [
        Graded(
            Case(str(n), "", reference=float(n)),
            Answer("confaide_1", str(n), model="m"),
            {"rating": float(n**2), "error": 0.0},
        )
        for n in range(5)
    ]
    metrics = tuple(m for m in Confaide1.METRICS if m.key == "rating")
    write(tmp_path, [Result("m", "greedy", "confaide_1", "none", metrics, graded)])
    (found,), table = read_results(tmp_path)
    assert [row.case.reference for row in found.rows] == [0.0, 1.0, 2.0, 3.0, 4.0]
    place = next(i for i, column in enumerate(table.columns) if column.metric == "correlation")
    squares = [n**2 for n in range(5)]
    assert table.cells[0][place].value == pytest.approx(np.corrcoef(range(5), squares)[0, 1])


@pytest.mark.parametrize("name", ["accuracy", "refusals", "over_refusal"])
@pytest.mark.parametrize("statistic", [None, macro_mean])
def test_a_benchmark_in_a_users_file_need_not_be_there_any_more(tmp_path, statistic, name):
    rows = result(SAFE, [1.0, 0.0, 1.0, 0.0, 0.0]).rows
    rows = [Graded(row.case, row.answer, {"score": row.scores["refused"]}) for row in rows]
    metric = Metric(name, "score", **({"statistic": statistic} if statistic else {}))
    write(tmp_path, [Result("m", "greedy", "mine", "none", (metric,), rows)])
    (found,), _ = read_results(tmp_path)
    assert found.metrics == (metric,)


def test_answers_that_do_not_give_the_table_are_refused(tmp_path):
    write(tmp_path, [result(SAFE, [0.0, 1.0])])
    text = (tmp_path / "graded.jsonl").read_text()
    (tmp_path / "graded.jsonl").write_text(text.replace("1.0", "0.0"))
    with pytest.raises(
        UserError, match=r"does not give the figure 0\.5 of xstest_safe: over_refus"
    ):
        read_results(tmp_path)
    (tmp_path / "graded.jsonl").write_text(text.replace('"cluster"', '"x"'))
    with pytest.raises(UserError, match="no column 'cluster' and was written by an older"):
        read_results(tmp_path)


def runs(arms=("a", "b")):
    """Two seeds of each arm, in which a model answers, and another one refuses more."""
    found = []
    for number, arm in enumerate(arms):
        for seed in ("0", "1"):
            results = [
                result(SAFE, [0.0] * 6 + [float(number)] * 2, "base"),
                result(SAFE, [float(seed), 1.0, 0, 0, 0, 0, 0, 0], "iter 3"),
                result(UNSAFE, [1.0] * 8, "iter 3"),
            ]
            costs = {RowKey("base", "greedy"): Cost(8, tokens=10 + 2 * int(seed))}
            costs[RowKey("iter 3", "greedy")] = Cost(8, tokens=5, steps=2)
            values = {"dpo.beta": str(0.1 * (number + 1))}
            found.append(SeedRun(arm, seed, results, costs, values))
    return found


def test_rows_and_columns_have_names_without_what_all_have_in_common():
    answers = collect(runs())
    assert list(answers.rows) == ["a/base", "a/iter_3", "b/base", "b/iter_3"]
    alone = [
        SeedRun(arm, "0", [result(SAFE, [1.0], arm * 2), result(SAFE, [1.0], arm * 2, "prompted")])
        for arm in "ab"
    ]
    assert list(collect(alone).rows) == ["a", "a/prompted", "b", "b/prompted"]
    assert list(collect(runs(("",))).rows) == ["base", "iter_3"]
    assert next(iter(answers.columns)) == "xstest_safe.over_refusal"
    assert column_name(Column("s", "stored:pair", "goodness", "j"), True) == (
        "s:stored:pair.goodness@j"
    )
    assert (
        column_name(Column("s", AttackMean("s", ("a", "b")).name, "goodness")) == "s:mean.goodness"
    )


def test_figures_are_means_over_the_seeds_of_an_arm():
    table = seed_table(collect(runs()), ["b/base", "ours=a/iter_3"], against="b/base")
    assert [row.label for row in table.rows] == ["b/base", "ours"]
    assert [column.name for column in table.columns] == [
        "xstest_safe.over_refusal", "xstest_safe.full_over_refusal", "xstest_unsafe.refusals",
        "xstest_unsafe.full_refusals", "tokens", "steps",
    ]  # fmt: skip
    base, ours = ([cell and cell.value for cell in line] for line in table.cells)
    assert base == [0.25, 0.25, None, None, 11, None]
    assert ours == [pytest.approx(1.5 / 8)] * 2 + [1, 1, 5, 2]
    assert table.cells[1][0].seeds == 2 and table.cells[1][0].n == 8
    less = [cell and cell.value for cell in table.differences[1]]
    assert less == [pytest.approx(-0.0625)] * 2 + [None] * 4
    assert table.differences[0] == (None,) * 6


def test_a_mean_over_attacks_is_a_column():
    mean = AttackMean("xstest_unsafe", ("x", "y"))
    results = [result(UNSAFE, [1.0, 1.0], attack="x"), result(UNSAFE, [0.0, 1.0], attack="y")]
    table = seed_table(collect([SeedRun("", "0", results)], [mean]), columns=["*:mean.refusals"])
    assert table.cells[0][0].value == 0.75


def test_choices_that_fit_nothing_or_too_much_are_named():
    names = ["a/sft", "a/iter3", "b/iter3"]
    assert [each.name for each in choose(["*/iter3", "a/*"], names, "row")] == [
        "a/iter3", "b/iter3", "a/sft",
    ]  # fmt: skip
    with pytest.raises(UserError, match="--rows=a/stf: there is no such row: did you mean a/sft"):
        choose(["a/stf"], names, "row")
    with pytest.raises(UserError, match=r"--rows=x=a/\* is several rows: a/sft, a/iter3"):
        choose(["x=a/*"], names, "row")
    with pytest.raises(UserError, match=r"--against=a/\* is several rows"):
        seed_table(collect(runs()), ["b/base"], against="a/*")


def test_two_answers_for_one_place_are_refused():
    own = runs()[0]
    with pytest.raises(UserError, match=r"two runs have answers of base to xstest_safe\.over"):
        collect([own, own])


def test_markdown_shows_figures_cases_and_differences():
    columns = ["over=xstest_safe.over_refusal", "tokens"]
    table = seed_table(collect(runs()), ["base=b/base", "a|b=a/iter_3"], columns, "base")
    lines = seed_markdown(table).splitlines()
    assert lines[0] == "|  | over | tokens | seeds |"
    assert lines[2].startswith("| base | 0.250 [0.000, 0.") and lines[2].endswith(" | 11.0 | 2 |")
    assert lines[3].startswith("| a\\|b | 0.188 [")
    assert lines[4] == "| cases | 8 |  |  |"
    assert lines[6] == "Less base, on the cases that both have:"
    assert lines[10].startswith("| a\\|b | -0.062 [-") and lines[10].endswith(" | - |")
    assert lines[-1] == "Brackets: 95 % intervals, bootstrap over seeds and cases (2000 samples)."


def test_notes_say_what_is_missing_and_what_one_seed_does_not_tell():
    one = SeedRun("", "0", [result(SAFE, [1.0, None, 0.0]), result(UNSAFE, [None])])
    text = seed_markdown(seed_table(collect([one])))
    assert "with one seed they do not tell what seeds change" in text
    assert "Answers without a score, left out: 1 of m, xstest\\_safe.over\\_refusal" in text
    assert "No answer has a score: m, xstest\\_unsafe.refusals" in text


def test_notes_say_why_there_is_no_difference():
    results = [result(SAFE, [1.0, None], "a"), result(SAFE, [None, 1.0], "b")]
    table = seed_table(collect([SeedRun("", "0", results)]), [], ["*.over_refusal"], "b")
    text = seed_markdown(table)
    assert "No case has a number in both: a less b, xstest\\_safe.over\\_refusal." in text


def test_csv_has_all_numbers_in_full():
    table = seed_table(collect(runs()), ["a/*"], ["xstest_safe.over_refusal"], "a/base")
    found = list(csv.DictReader(io.StringIO(seed_csv(table))))
    assert [(line["kind"], line["row"], line["minus"]) for line in found] == [
        ("figure", "a/base", ""), ("figure", "a/iter_3", ""), ("difference", "a/iter_3", "a/base"),
    ]  # fmt: skip
    cell = table.cells[1][0]
    assert [float(found[1][key]) for key in ("value", "low", "high", "least", "greatest")] == [
        cell.value, cell.low, cell.high, 0.125, 0.25,
    ]  # fmt: skip
    assert found[1]["seeds"] == "2" and found[1]["n"] == "8"


def test_details_are_sums_of_counts_and_means_of_figures_over_the_seeds():
    def run(refusals, well_formed):
        group = {"prompts": 10, "refusals": refusals, "well_formed": well_formed}
        return {"pocket": {"hazards": {"plain": group, "se_en": {"prompts": 1}}, "families": {}}}

    details = {"sft": [run(7, {"value": 0.25}), run(6, {"value": 0.75})], "base": [run(1, None)]}
    rows = [Shown("base", "base"), Shown("sft", "a|b")]
    assert details_markdown(rows, details, "pocket.hazards").splitlines() == [
        "|  | group | prompts | refusals | well\\_formed |",
        "| --- | --- | ---: | ---: | ---: |",
        "| base | plain | 10 | 1 | - |",
        "| base | se\\_en | 1 | - | - |",
        "| a\\|b | plain | 20 | 13 | 0.500 (0.250 to 0.750) |",
        "| a\\|b | se\\_en | 2 | - | - |",
    ]
    with pytest.raises(UserError, match=r"no row has them: did you mean pocket\.hazards"):
        details_markdown(rows, details, "pocket.hazard")


def test_figures_of_the_plane_and_of_a_varied_field(tmp_path):
    pytest.importorskip("matplotlib")
    answers = collect(runs())
    write_figures(tmp_path, seed_table(answers), answers)
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {
        "safety_over_refusal.svg", "safety_over_refusal.png",
        "safety_helpfulness.svg", "safety_helpfulness.png",
        "dpo.beta.xstest_safe.over_refusal.svg", "dpo.beta.xstest_safe.over_refusal.png",
        "dpo.beta.xstest_unsafe.refusals.svg", "dpo.beta.xstest_unsafe.refusals.png",
    }  # fmt: skip
