"""What a report has beside its table: figures, methods at equal tokens, means over attacks."""

import importlib
import xml.etree.ElementTree as ElementTree

import pytest

from stair_jax.evaluation.asking import AskedSet
from stair_jax.evaluation.attacks import make_attack
from stair_jax.evaluation.benchmark import METRICS_OF_REFUSALS
from stair_jax.evaluation.benchmarks import get_benchmark
from stair_jax.evaluation.case import Answer, Case, Graded
from stair_jax.evaluation.drawing import write_scaling
from stair_jax.evaluation.method_scaling import main_results
from stair_jax.evaluation.report import write_report
from stair_jax.evaluation.table import Column, RowKey
from stair_jax.evaluation.tabulate import Result, tabulate
from stair_jax.inference.candidates import TestTimeSettings

PAIR = ("stored:pair", "stored:pap_misrepresentation")


def result(name, scores, method="greedy", attack="none", tokens=100, judge="", metrics=None):
    """A result of the model "m": the scores of each case's tries, of its main metric's key."""
    benchmark = get_benchmark(name)
    metrics = metrics or benchmark.METRICS
    rows = [
        Graded(
            Case(f"c{number}", "?"),
            Answer(
                name,
                f"c{number}",
                attack,
                sample,
                model="m",
                method=method,
                tokens=10,
                generated_tokens=tokens,
            ),
            {metrics[0].key: score},
        )
        for number, tries in enumerate(scores)
        for sample, score in enumerate(tries if isinstance(tries, list) else [tries])
    ]
    return Result("m", method, name, attack, metrics, rows, judge=judge)


def report(folder, results, **more):
    names = dict.fromkeys(one.benchmark for one in results)
    sets = [AskedSet(get_benchmark(name), make_attack("none"), ()) for name in names]
    return write_report(folder, results, sets, **more)


def files(folder):
    return sorted(path.name for path in (folder / "figures").iterdir())


def texts(path):
    """Comments of an SVG: matplotlib puts each text before its glyphs."""
    parser = ElementTree.XMLParser(target=ElementTree.TreeBuilder(insert_comments=True))
    root = ElementTree.parse(path, parser).getroot()
    return {node.text.strip() for node in root.iter() if node.tag is ElementTree.Comment}


SCALED = [
    result("gsm8k", [0, 1, 0, 1]),
    result("gsm8k", [0, 1, 1, 1], "best_of_n", tokens=400),
    result("gsm8k", [1, 1, 1, 1], "best_of_n:8", tokens=800),
    result("gsm8k", [1, 1, 0, 1], "beam_search:2x2", tokens=440),
    result("gsm8k", [1, 1, 1, 0], "dvts_self_reward:4x4", tokens=1600),
]


def test_each_method_is_a_line_over_its_sizes(tmp_path):
    report(tmp_path, SCALED, test_time=TestTimeSettings(n=4))
    assert files(tmp_path) == ["scaling_gsm8k.png", "scaling_gsm8k.svg"]
    found = texts(tmp_path / "figures/scaling_gsm8k.svg")
    assert {"greedy", "best_of_n", "beam_search", "dvts_self_reward"} <= found
    assert {"accuracy on gsm8k", "generated tokens an answer"} <= found
    text = (tmp_path / "equal_tokens.md").read_text("utf-8")
    assert "## gsm8k: accuracy" in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| 400", "| 800"]
    assert ", 4, 400 tokens" in lines[2] and ", 2x2, 440 tokens" in lines[2]
    assert ", 8, 800 tokens" in lines[3] and "2x2" not in lines[3]


def test_without_several_sizes_of_a_method_there_is_no_comparison_at_equal_tokens(tmp_path):
    report(tmp_path, SCALED[:2])
    assert files(tmp_path) == ["scaling_gsm8k.png", "scaling_gsm8k.svg"]
    assert not (tmp_path / "equal_tokens.md").exists()


def test_where_no_method_searches_nothing_is_drawn(tmp_path):
    report(tmp_path, [SCALED[0]])
    assert not (tmp_path / "figures").exists() and (tmp_path / "table.json").exists()


def test_figures_have_the_same_bytes_each_time(tmp_path):
    results = [*SCALED, result("xstest_unsafe", [1, 0, 1], attack="none")]
    for folder in ("a", "b"):
        report(tmp_path / folder, results)
    assert len(files(tmp_path / "a")) == 4  # xstest_unsafe has no answer of a search
    for name in files(tmp_path / "a"):
        first, second = (tmp_path / folder / "figures" / name for folder in "ab")
        assert first.read_bytes() == second.read_bytes()


def test_without_matplotlib_one_line_says_how_to_get_it_and_the_rest_is_there(
    tmp_path, monkeypatch, capsys
):
    load = importlib.import_module

    def missing(name, *more):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return load(name, *more)

    monkeypatch.setattr(importlib, "import_module", missing)
    report(tmp_path, SCALED, test_time=TestTimeSettings(n=4))
    (line,) = capsys.readouterr().err.splitlines()
    assert "no figures are drawn" in line and "pip install" in line
    assert (tmp_path / "equal_tokens.md").exists() and (tmp_path / "table.json").exists()
    assert not (tmp_path / "figures").exists()


@pytest.mark.parametrize("attacks", [PAIR, ("pair", "pap_misrepresentation")])
def test_under_both_attacks_there_is_the_papers_mean_of_them(tmp_path, attacks):
    first, second = attacks
    results = [
        result("strongreject", [1, 1, 0.5, 0.5], attack=first, judge="j"),
        result("strongreject", [0, 1, 0.5, 0.5], attack=second, judge="j"),
        result("gsm8k", [1, 0]),
    ]
    table = report(tmp_path, results)
    column = Column("strongreject", f"mean of {first}, {second}", "goodness", "j")
    assert table.cell(RowKey("m", "greedy"), column).value == pytest.approx((0.75 + 0.5) / 2)
    found = texts(tmp_path / "figures/safety_helpfulness.svg")
    assert f"goodness on strongreject under the {column.attack}, by j" in found
    assert "accuracy on gsm8k" in found
    one_alone = report(tmp_path / "b", [results[0]])
    assert not any(column.attack.startswith("mean") for column in one_alone.columns)


def test_over_refusal_stands_for_helpfulness_where_nothing_better_is_there(tmp_path):
    results = [
        result("xstest_unsafe", [1, 1, 0], judge="rule"),
        result("xstest_safe", [0, 0, 1], judge="rule"),
    ]
    report(tmp_path, results)
    found = texts(tmp_path / "figures/safety_helpfulness.svg")
    assert "refusals on xstest_unsafe, by rule" in found
    assert "1 - over_refusal on xstest_safe, by rule" in found
    assert "m, greedy" in found


def test_attacks_of_several_tries_are_drawn_against_queries(tmp_path):
    tries = [[1, 0.25, 1], [1, 1, 1], [0.5, 1, 1]]
    results = [
        result("strongreject", tries, attack="best_of_n", judge="j"),
        result("strongreject", [1, 1, 0], attack="rot13", judge="j"),
    ]
    report(tmp_path, results)
    name = "attack_success_strongreject"
    assert files(tmp_path) == [f"{name}.png", f"{name}.svg"]
    found = texts(tmp_path / f"figures/{name}.svg")
    assert "m, best_of_n" in found and "m, rot13" not in found
    assert "share with goodness at most 0.5 on strongreject, by j" in found


def test_a_judge_of_the_main_metric_goes_before_one_that_counts_refusals():
    benchmarks = {"strongreject": get_benchmark("strongreject")}
    rule = result("strongreject", [1, 0], judge="rule", metrics=METRICS_OF_REFUSALS)
    model = result("strongreject", [1, 0.5], judge="model")
    other = result("strongreject", [1, 0.5], judge="other")
    assert main_results([rule, model, other], benchmarks) == [model]
    assert main_results([rule], benchmarks) == [rule]


def test_the_pocket_world_is_drawn_too(tmp_path):
    metric = get_benchmark("pocket").METRICS
    heldout = next(one for one in metric if one.name == "goodness_heldout")
    helpful = next(one for one in metric if one.name == "helpfulness")
    results = []
    for method, tokens in (("greedy", 30), ("best_of_n", 240), ("beam_search", 200)):
        one = result("pocket", [1, 0, 1], method, tokens=tokens, metrics=(metric[0],))
        for row in one.rows:
            row.scores.update({heldout.key: 1.0, helpful.key: 0.5})
        results.append(Result("m", method, "pocket", "none", metric, one.rows))
    write_scaling(tmp_path, tabulate(results), results, TestTimeSettings())
    assert files(tmp_path) == [
        f"{name}.{ending}"
        for name in ("safety_helpfulness", "scaling_pocket")
        for ending in ("png", "svg")
    ]
