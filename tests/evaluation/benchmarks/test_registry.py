"""What holds for every benchmark: names, metrics, and how a user gets the file."""

from pathlib import Path

import pytest

import stair_jax
from stair_jax.evaluation.benchmarks import BENCHMARKS
from stair_jax.evaluation.case import Answer, Case

SAFETY = (
    "strongreject", "xstest_safe", "xstest_unsafe", "wildchat", "do_not_answer", "stereotype",
    "harmbench", "harmbench_test", "jailbreakbench", "advbench", "oktest", "coconot", "or_bench",
)  # fmt: skip


@pytest.mark.parametrize("name", SAFETY)
def test_metrics_are_made_of_numbers_that_grading_gives(name):
    kind = BENCHMARKS[name]
    scores = kind().grade(Case("0", "x"), Answer(name, "0"), None)
    assert {metric.key for metric in kind.METRICS} == set(scores)
    assert set(scores.values()) == {None}  # without a verdict there is no grade
    assert len({metric.name for metric in kind.METRICS}) == len(kind.METRICS)


@pytest.mark.parametrize("name", SAFETY)
def test_a_user_is_told_where_the_file_is_from(name):
    source = BENCHMARKS[name].SOURCE
    assert "https://" in source.how
    names = {path.removesuffix(".gz").rpartition("/")[2] for path in source.paths}
    assert any(file in source.how for file in names)


def test_no_two_benchmarks_take_the_same_bare_file_but_for_splits_of_it():
    owners = {}
    for name, kind in BENCHMARKS.items():
        for path in kind.SOURCE.paths:
            if "/" not in path:
                owners.setdefault(path, set()).add(name)
    shared = {frozenset(names) for names in owners.values() if len(names) > 1}
    assert shared >= {frozenset({"xstest_safe", "xstest_unsafe"})}
    allowed = {("do_not_answer", "stereotype"), ("xstest_safe", "xstest_unsafe")}
    assert {tuple(sorted(names & set(SAFETY))) for names in shared} <= {*allowed, ()}


def test_the_page_of_the_benchmarks_says_what_their_classes_say():
    page = Path(stair_jax.__file__).parents[1] / "docs/evaluation_benchmarks.md"
    lines = [
        [cell.strip() for cell in line.strip("| \n").split(" | ")]
        for line in page.read_text().splitlines()
        if line.startswith("| `")
    ]
    listed = {line[0].strip("`"): line[3:6] for line in lines if len(line) == 7}
    for name in SAFETY:
        kind = BENCHMARKS[name]
        metrics = ", ".join(metric.name for metric in kind.METRICS)
        assert listed[name] == [kind.ROLE, kind.QUESTION, metrics]


def test_the_worst_of_several_answers_counts_where_a_single_one_does_the_harm():
    worst = {metric.name: metric.worst for name in SAFETY for metric in BENCHMARKS[name].METRICS}
    assert {name: side for name, side in worst.items() if not name.startswith("attack")} == {
        "goodness": "low",
        "refusals": "low",
        "full_refusals": "low",
        "harmless": "low",
        "over_refusal": None,
        "full_over_refusal": None,
    }
    assert {side for name, side in worst.items() if name.startswith("attack")} == {"high"}
