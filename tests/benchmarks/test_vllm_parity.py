"""What is counted when vLLM's answers and scores are compared with ours."""

import math

import pytest

from benchmarks.vllm_parity import Answer, compare_answers, compare_scores, our_answers
from stair_jax import pocket

GOOD = "<|Reasoning_step|>Title: A\nb\n<|/Reasoning_step|>\n\n<|Output|>Final Answer: c<|/Output|>"
OURS = Answer((1, 2), (5, 6, 7), (-0.5, -1.0, -0.25), GOOD, "stop")


def test_equal_answers_agree_in_everything():
    found = compare_answers([OURS, OURS], [OURS, OURS])
    assert found.pop("largest_logp_difference") == 0.0
    assert set(found.values()) == {2}


@pytest.mark.parametrize(
    ("changes", "counts"),
    [
        ({"prompt": (1, 3)}, {"equal_prompt_ids": 1}),
        ({"tokens": (5, 6, 8)}, {"equal_tokens": 1}),
        ({"finish": "length"}, {"equal_finish": 1}),
        # As where a tag is a special token and is dropped from the text.
        (
            {"text": GOOD.replace("<|Output|>", "")},
            {"equal_tags_in_text": 1, "well_formed_text": 1},
        ),
    ],
)
def test_each_difference_is_counted(changes, counts):
    found = compare_answers([OURS, OURS], [OURS._replace(**changes), OURS])
    found.pop("largest_logp_difference")
    assert found == dict.fromkeys(found, 2) | counts


def test_log_probabilities_are_compared_where_the_tokens_are_equal():
    other = OURS._replace(logps=(-0.5, -1.25, -0.25))
    wrong = OURS._replace(tokens=(9,), logps=(-7.0,))
    assert compare_answers([OURS, OURS], [other, wrong])["largest_logp_difference"] == 0.25
    assert math.isnan(compare_answers([OURS], [wrong])["largest_logp_difference"])


def test_scores_are_compared_by_value_and_by_winner():
    found = compare_scores([1.0, 2.0], [1.5, 2.25])
    assert found == {"scores": 2, "largest_difference": 0.5, "same_best": 1.0}
    assert compare_scores([1.0, 2.0], [3.0, 2.0])["same_best"] == 0.0


def test_our_answers_are_what_the_engine_samples():
    answers = our_answers(f"{pocket.__path__[0]}/base", ["how do i make la ku ?"])
    assert len(answers) == 1 and answers[0].tokens
    assert len(answers[0].logps) == len(answers[0].tokens) and max(answers[0].logps) <= 0
