"""Benchmarks of users: in a file without code, and registered by a program."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

import stair_jax
from stair_jax.errors import UserError
from stair_jax.evaluation import benchmarks
from stair_jax.evaluation.attacks.settings import AttackSettings
from stair_jax.evaluation.benchmarks import BENCHMARKS, get_benchmark, register
from stair_jax.evaluation.benchmarks.gsm8k import Gsm8k
from stair_jax.evaluation.case import Answer, Graded
from stair_jax.evaluation.judges.judge import Verdict
from stair_jax.evaluation.suites import Wanted, read_sets

PAGE = Path(stair_jax.__file__).parents[1] / "docs/evaluation_own.md"


@pytest.fixture
def write(tmp_path):
    def write(*rows, name="mine.jsonl"):
        path = tmp_path / name
        path.write_text("\n".join(map(json.dumps, rows)))
        return str(path)

    return write


@pytest.fixture
def registry(monkeypatch):
    """The registry, which is as before when the test is over."""
    monkeypatch.setattr(benchmarks, "BENCHMARKS", known := dict(BENCHMARKS))
    return known


def cases_of(benchmark):
    return benchmark.read(benchmark.SOURCE.find(Path("nowhere")))


def scores(benchmark, *answers, verdict=None):
    return [
        benchmark.grade(case, Answer(benchmark.NAME, case.id, **answer), verdict)
        for case, answer in zip(cases_of(benchmark), answers, strict=True)
    ]


def test_the_way_of_grading_stands_behind_the_name_of_the_file(write):
    path = write(
        {"prompt": "2+2?", "reference": 4},
        {"prompt": "Half?", "reference": "1,000"},
        {"prompt": "Any?", "reference": [3, "5"]},
    )
    benchmark = get_benchmark(f"{path}@number")
    assert (benchmark.NAME, benchmark.QUESTION, benchmark.ROLE) == ("mine", "", "reported")
    finals = [{"final": "It is 4."}, {"final": "$1000"}, {"final": "4"}]
    assert scores(benchmark, *finals) == [{"score": 1.0}, {"score": 1.0}, {"score": 0.0}]


def test_a_text_is_compared_as_text_even_if_it_looks_like_a_letter(write):
    path = write({"prompt": "Note?", "reference": "A"}, {"prompt": "Sea?", "reference": ["B C"]})
    benchmark = get_benchmark(f"{path}@text")
    right, wrong = {"score": 1.0}, {"score": 0.0}
    assert scores(benchmark, {"final": "a."}, {"final": "the b, c"}) == [right, right]
    assert scores(benchmark, {"final": ""}, {"final": "b"}) == [wrong, wrong]
    with pytest.raises(
        UserError, match=r"line 2: the column 'reference' holds 'B C', which is no l"
    ):
        cases_of(get_benchmark(f"{path}@choice"))


def test_the_first_row_says_name_question_and_what_labels_count(write):
    header = {
        "name": "polite",
        "question": "refusal",
        "counts": {"partial_refusal": 0.5},
        "macro": True,
        "role": "development",
    }
    path = write(
        {"benchmark": header},
        {"id": "x", "prompt": "a", "group": "one", "system": "Be kind."},
        {"prompt": "b", "group": "two"},
        {"prompt": "b", "group": "two"},
    )
    benchmark = get_benchmark(path)
    assert (benchmark.NAME, benchmark.QUESTION, benchmark.ROLE) == (
        "polite", "refusal", "development",
    )  # fmt: skip
    assert benchmark.KIND == "safety" and benchmark.METRICS[0].labels == ()
    first, second, third = cases_of(benchmark)
    assert (first.id, second.id, first.messages[0]["content"]) == ("x", "2", "Be kind.")
    assert second.cluster == third.cluster != ""
    grades = [
        benchmark.grade(first, Answer("polite", "x"), Verdict("refusal", "rule", label))["score"]
        for label in ("partial_refusal", "full_refusal", None)
    ]
    assert grades == [0.5, 0.0, None]
    rows = [Graded(case, Answer("", ""), {}) for case in (first, second, third)]
    found = benchmark.METRICS[0].statistic(rows, np.array([1.0, 0.0, 0.0]), np.ones((1, 3)))
    assert found == [0.5]


def test_rows_with_choices_are_graded_by_likelihood_without_being_told(write):
    path = write(
        {"prompt": "Capital?", "choices": ["Rome", "Paris, of course"], "reference": 1},
        {"prompt": "Sky?", "choices": ["blue", "red"], "reference": "blue"},
    )
    benchmark = get_benchmark(path)
    assert [case.reference for case in cases_of(benchmark)] == [1, 0]
    assert [metric.name for metric in benchmark.METRICS] == ["accuracy", "accuracy_per_byte"]
    found = scores(benchmark, {"likelihoods": (-2.0, -4.0)}, {"likelihoods": ()})
    assert found == [
        {"score": 0.0, "score_per_byte": 1.0},  # -2/4 and -4/16
        {"score": None, "score_per_byte": None},
    ]


def test_a_comparison_needs_another_answer_and_gives_a_probability(write):
    benchmark = get_benchmark(write({"prompt": "a", "other": "b"}) + "@preference")
    (case,) = cases_of(benchmark)
    assert benchmark.material(case, Answer("mine", "0", final="c")).other == "b"
    verdict = Verdict("preference", "judge", "first", {"p": 0.75})
    assert scores(benchmark, {}, verdict=verdict) == [{"score": 0.75}]
    benchmark = get_benchmark(write({"prompt": "a"}) + "@preference")
    with pytest.raises(UserError, match="line 1: there is no column 'other'"):
        cases_of(benchmark)


def test_the_error_of_a_judge_can_be_taken_out_where_labels_count_1_or_0(write):
    metric = get_benchmark(write({"prompt": "a"}) + "@refusal").METRICS[0]
    assert (metric.name, metric.labels) == ("score", ("full_refusal", "partial_refusal"))


@pytest.mark.parametrize(
    ("header", "names"),
    [
        ({"question": "refusal"}, ["score"]),
        ({"question": "refusal", "metric": "over_refusal"}, ["over_refusal"]),
        ({"match": "text"}, ["accuracy"]),
        ({"match": "text", "metric": "recall_2"}, ["recall_2"]),
        ({"match": "likelihood", "metric": "truthful"}, ["truthful", "accuracy_per_byte"]),
    ],
)
def test_a_file_names_the_figure_that_its_grades_give(write, header, names):
    metrics = get_benchmark(write({"benchmark": header}, {"prompt": "a"})).METRICS
    assert [metric.name for metric in metrics] == names and metrics[0].key == "score"


def test_a_policy_is_shown_to_the_judge(write):
    header = {"question": "safeguard", "policy": "No poems."}
    benchmark = get_benchmark(write({"benchmark": header}, {"prompt": "a"}))
    (case,) = cases_of(benchmark)
    assert benchmark.material(case, Answer("mine", "0")).policy == "No poems."


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({}, "line 1: give either benchmark.match, one of number, choice, text, likelihood, or"),
        ({"match": "text", "question": "refusal"}, "line 1: give either"),
        ({"match": "txt"}, "benchmark.match 'txt': did you mean text"),
        ({"question": "refusals"}, "benchmark.question 'refusals': did you mean refusal"),
        ({"matches": "text"}, "line 1: benchmark.matches: did you mean match"),
        ({"match": 3}, "benchmark.match is not text"),
        ({"match": "text", "macro": "yes"}, "benchmark.macro is not true or false"),
        ({"match": "text", "role": "final"}, "benchmark.role is none of reported, development"),
        ({"match": "text", "kind": "any"}, "benchmark.kind is none of safety, helpfulness"),
        ({"match": "text", "name": "a/b"}, "benchmark.name may hold letters"),
        ({"match": "text", "counts": {"a": 1}}, "benchmark.counts is for questions that have lab"),
        ({"question": "refusal", "counts": {"a": "b"}}, "benchmark.counts is not an object of num"),
        ({"match": "text", "metric": "over refusal"}, "benchmark.metric has at most 32 lower case"),
        ({"match": "text", "metric": "a" * 33}, "benchmark.metric has at most 32 lower case"),
        ({"match": "text", "metric": 3}, "benchmark.metric is not text"),
        ({"match": "text", "metric": "score_per_byte"}, "is the figure by bytes: rename it"),
        ({"match": "text", "name": "gsm8k"}, "there is a benchmark 'gsm8k' already: rename yours"),
    ],
)
def test_a_first_row_with_a_mistake_is_refused(write, header, message):
    path = write({"benchmark": header}, {"prompt": "a", "reference": "b"})
    with pytest.raises(UserError, match=message):
        get_benchmark(path)


@pytest.mark.parametrize(
    ("how", "row", "message"),
    [
        ("number", {"prompt": "a", "reference": "four"}, "holds 'four', which is no number"),
        ("text", {"prompt": "a"}, "the column 'reference' is neither text nor a number"),
        ("text", {"reference": "a"}, "there is no column 'prompt'"),
        ("likelihood", {"prompt": "a", "choices": ["b"]}, "no list of two or more different texts"),
        ("likelihood", {"prompt": "a", "choices": ["b", "b"]}, "no list of two or more different"),
        (
            "likelihood",
            {"prompt": "a", "choices": ["b", "c"], "reference": 2},
            "neither one of 'ch",
        ),
        ("correctness", {"prompt": "a"}, "the column 'reference' is neither text nor a number"),
    ],
)
def test_a_row_that_cannot_be_graded_is_named(write, how, row, message):
    benchmark = get_benchmark(f"{write(row)}@{how}")
    with pytest.raises(UserError, match=f"line 1: .*{message}"):
        cases_of(benchmark)


def test_how_a_file_is_graded_is_said_once(write):
    with pytest.raises(UserError, match=r"does not say how answers are graded: .*mine.jsonl@MATCH"):
        get_benchmark(write({"prompt": "a", "reference": "b"}))
    path = write({"benchmark": {"match": "text"}}, {"prompt": "a", "reference": "b"})
    with pytest.raises(
        UserError, match="says how it is graded in its first row: leave out @number"
    ):
        get_benchmark(f"{path}@number")
    with pytest.raises(UserError, match=r"mine.jsonl@txt: did you mean text\?"):
        get_benchmark(f"{path}@txt")
    with pytest.raises(UserError, match="has no rows with prompts"):
        cases_of(get_benchmark(write({"benchmark": {"match": "text"}})))


def test_names_lead_to_benchmarks_and_other_names_to_the_nearest(tmp_path):
    assert isinstance(get_benchmark("gsm8k"), Gsm8k)
    with pytest.raises(UserError, match="there is no benchmark 'gsm8': did you mean gsm8k"):
        get_benchmark("gsm8")
    with pytest.raises(UserError, match=r"there is no file nowhere\.jsonl"):
        get_benchmark("nowhere.jsonl@text")


@pytest.mark.parametrize(("attack", "name"), [("", "none"), (":rot13", "rot13")])
def test_a_file_of_ones_own_can_be_asked_under_an_attack_wherever_it_is(write, attack, name):
    path = write({"prompt": "a", "reference": "b"})
    wanted = Wanted.parse(f"{path}@text{attack}")
    assert wanted == Wanted(f"{path}@text", name)
    (asked,) = read_sets([wanted], [], AttackSettings())
    assert asked.benchmark.NAME == "mine" and len(asked.cases) == 1


def test_python_files_are_never_run(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("raise SystemExit")
    with pytest.raises(
        UserError, match="Python files are not run; import it in a program of yours"
    ):
        get_benchmark(str(path))
    with pytest.raises(UserError, match="Python files are not run"):
        Wanted.parse(str(path))


def test_a_registered_benchmark_has_a_name_of_its_own(registry):
    class Other(Gsm8k):
        NAME = "other"

    class Taken(Other):
        NAME = "advglue"

    class Empty(Other):
        METRICS = ()

    assert register(Other) is Other and register(Other) is Other
    assert isinstance(get_benchmark("other"), Other)
    with pytest.raises(UserError, match="there is a benchmark 'advglue' already"):
        register(Taken)
    with pytest.raises(UserError, match="the benchmark other has no METRICS"):
        register(Empty)
    assert list(registry) == [*BENCHMARKS, "other"]


def test_the_examples_of_the_docs_work(tmp_path, monkeypatch, registry):
    """The files of the page are written under the names that it gives them, and used."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(
        r"^`(\S+)`:\n\n```(\w+)\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL
    )
    files = {name: text for name, _, text in blocks}
    assert {"capitals.jsonl", "advice.jsonl", "facts.jsonl", "rhymes.py", "rhymes.jsonl"} <= set(
        files
    )
    for name, text in files.items():
        Path(name).write_text(text)
    capitals = get_benchmark("capitals.jsonl@text")
    answers = [{"final": "The answer is Paris."}, {"final": "Oslo"}]
    assert scores(capitals, *answers) == [{"score": 1.0}, {"score": 0.0}]
    advice = get_benchmark("advice.jsonl")
    assert advice.NAME == "advice" and len(cases_of(advice)) == 2
    assert advice.METRICS[0].name == "over_refusal"
    assert [len(case.choices) for case in cases_of(get_benchmark("facts.jsonl"))] == [2, 3]
    exec(compile(files["rhymes.py"], "rhymes.py", "exec"), {"__name__": "rhymes"})
    rhymes = get_benchmark("rhymes")
    (case,) = rhymes.read(rhymes.SOURCE.find(tmp_path))
    grades = [
        rhymes.grade(case, Answer("rhymes", case.id, final=text), None)
        for text in ("A hat.", "A dog.")
    ]
    assert grades == [{"rhymes": 1.0}, {"rhymes": 0.0}]
