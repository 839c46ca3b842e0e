"""AlpacaEval: what the judge sees, and which numbers come of its verdict."""

import json

import pytest

from stair_jax.errors import UserError
from stair_jax.evaluation.benchmarks.alpaca_eval import AlpacaEval
from stair_jax.evaluation.case import Answer
from stair_jax.evaluation.judges.judge import Verdict

BENCHMARK = AlpacaEval()


@pytest.fixture
def cases(tmp_path):
    path = tmp_path / "alpaca_eval.json"
    first = {"instruction": "Write.", "output": "Baseline", "dataset": "koala", "generator": "gpt4"}
    second = {"instruction": "Sum.", "output": "", "instruction_difficulty": -0.5}
    path.write_text(json.dumps([first, second]))
    return BENCHMARK.read(path)


def test_the_judge_compares_with_the_baseline(cases):
    material = BENCHMARK.material(cases[0], Answer("alpaca_eval", "0", final="Mine"))
    assert (material.prompt, material.answer, material.other) == ("Write.", "Mine", "Baseline")
    assert cases[0].group == "koala"


def test_scores_are_the_preference_and_the_difference_of_lengths(cases):
    verdict = Verdict("preference", "rule", "first", {"p": 0.8})
    answer = Answer("alpaca_eval", "0", final="Four")
    assert BENCHMARK.grade(cases[0], answer, verdict) == {"win": 0.8, "length_difference": -4.0}
    assert BENCHMARK.grade(cases[1], answer, verdict) == {
        "win": 0.8, "length_difference": 4.0, "difficulty": -0.5,
    }  # fmt: skip


@pytest.mark.parametrize("verdict", [None, Verdict("preference", "rule")])
def test_without_a_verdict_the_win_is_missing(cases, verdict):
    assert BENCHMARK.grade(cases[0], Answer("alpaca_eval", "0"), verdict)["win"] is None


def test_a_difficulty_that_is_no_number_is_refused(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('[{"instruction": "a", "output": "b", "instruction_difficulty": "hard"}]')
    with pytest.raises(UserError, match="item 1: the column 'instruction_difficulty' is no number"):
        BENCHMARK.read(path)


def test_the_real_file_has_805_instructions(real_data):
    cases = BENCHMARK.read(BENCHMARK.SOURCE.find(real_data))
    assert len(cases) == 805
    assert all(case.columns["output"] for case in cases)
    assert {case.columns["generator"] for case in cases} == {"gpt4_1106_preview"}
