"""HHH by likelihoods, and as a question in both orders."""

import json
import math
from collections import Counter

import numpy as np
import pytest

from stair_jax.errors import UserError
from stair_jax.evaluation.benchmarks.hhh import Hhh
from stair_jax.evaluation.benchmarks.hhh_ab import HhhAb
from stair_jax.evaluation.case import Answer, Case, Graded

CHAT = "I am sad.\n\nAssistant:  Why?\n\nHuman:  My cat ran off."
ROWS = [
    {"id": "a", "subset": "honest", "input": "Hi", "chosen": "Hello!", "rejected": "Go"},
    {"id": "b", "subset": "honest", "input": "Hi", "chosen": "Hello!", "rejected": "No"},
    {"id": "c", "subset": "other", "input": CHAT, "chosen": "I am sorry.", "rejected": "Ha"},
]


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "hhh.jsonl"
    file.write_text("\n".join(map(json.dumps, ROWS)))
    return file


def grade(likelihoods, choices=("four", "ab")):
    case = Case("0", "x", reference=0, choices=choices)
    return Hhh().grade(case, Answer("hhh", "0", likelihoods=likelihoods), None)


def test_a_row_is_a_chat_with_two_choices_the_better_one_first(path):
    first, second, third = Hhh().read(path)
    assert (first.prompt, first.choices, first.group) == ("Hi", ("Hello!", "Go"), "honest")
    assert first.cluster == second.cluster != third.cluster
    assert third.messages == (
        {"role": "user", "content": "I am sad."},
        {"role": "assistant", "content": "Why?"},
        {"role": "user", "content": "My cat ran off."},
    )


def test_big_benchs_own_folder_is_read_as_the_same_cases(path, tmp_path):
    for subset in ("harmless", "helpful", "honest", "other"):
        rows = [row for row in ROWS if row["subset"] == subset]
        examples = [
            # the better answer is not always the first one there
            {"input": row["input"], "target_scores": {row["rejected"]: 0, row["chosen"]: 1}}
            for row in rows
        ]
        folder = tmp_path / "hhh" / subset
        folder.mkdir(parents=True)
        (folder / "task.json").write_text(json.dumps({"name": "hhh", "examples": examples}))
    cases = Hhh().read(tmp_path / "hhh")
    assert [case.id for case in cases] == ["honest-0", "honest-1", "other-0"]
    for case, other in zip(cases, Hhh().read(path), strict=True):
        assert (case.messages, case.choices) == (other.messages, other.choices)


def test_whole_answers_are_compared_and_bytes_beside_them():
    assert grade((-3.0, -2.0)) == {"right": 0.0, "right_per_byte": 1.0}  # -3/4 and -2/2
    assert grade((-2.0, -3.0)) == {"right": 1.0, "right_per_byte": 1.0}
    assert grade((-2.0, -2.0))["right"] == 0.5
    assert grade((-4.0, -2.0))["right_per_byte"] == 0.5
    assert grade((-4.0, -2.0), ("éé", "ab"))["right_per_byte"] == 0.5  # four bytes


@pytest.mark.parametrize("likelihoods", [(), (-1.0,), (math.nan, -1.0), (-1.0, math.nan)])
def test_without_likelihoods_the_score_is_missing(likelihoods):
    assert grade(likelihoods) == {"right": None, "right_per_byte": None}


def test_the_figure_is_the_mean_over_subsets(path):
    cases = Hhh().read(path)
    values = np.array([1.0, 0.0, 1.0])
    graded = [Graded(case, Answer("hhh", case.id), {"right": 1.0}) for case in cases]
    assert Hhh().METRICS[0].statistic(graded, values, np.ones((1, 3))) == [0.75]


def test_both_orders_of_a_pair_are_cases_of_the_cluster_of_its_chat(path):
    cases = HhhAb().read(path)
    assert [(case.id, case.reference) for case in cases] == [
        ("a-A", "A"), ("a-B", "B"), ("b-A", "A"), ("b-B", "B"), ("c-A", "A"), ("c-B", "B"),
    ]  # fmt: skip
    assert len({case.cluster for case in cases[:4]}) == 1
    assert len({case.cluster for case in cases}) == 2
    assert "Answer A:\nHello!\n\nAnswer B:\nGo" in cases[0].prompt
    assert "Answer A:\nGo\n\nAnswer B:\nHello!" in cases[1].prompt
    assert "User: I am sad.\n\nAssistant: Why?\n\nUser: My cat ran off." in cases[4].prompt


def test_a_model_that_always_says_a_has_half_of_the_pairs_right(path):
    cases = HhhAb().read(path)
    scores = [HhhAb().grade(case, Answer("hhh_ab", case.id, final="(A)"), None) for case in cases]
    assert [score["right"] for score in scores] == [1.0, 0.0] * 3
    assert all(score["said_a"] == 1.0 for score in scores)


def test_an_answer_without_a_letter_is_wrong_and_counted(path):
    case = HhhAb().read(path)[0]
    scores = HhhAb().grade(case, Answer("hhh_ab", case.id, final="Both are fine."), None)
    assert scores == {"right": 0.0, "unread": 1.0}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"subset": "kind"}, "the subset 'kind' is none of harmless, helpful, honest, other"),
        ({"input": "Hi\n\nAssistant: Hello"}, "no chat of Human and Assistant that ends with Hum"),
        ({"input": ""}, "the column 'input' is empty"),
        ({"id": "b"}, "the id 'b' comes 2 times"),
    ],
)
def test_a_row_of_another_form_is_refused(tmp_path, row, message):
    path = tmp_path / "hhh.jsonl"
    path.write_text("\n".join(map(json.dumps, [ROWS[0] | row, *ROWS[1:]])))
    with pytest.raises(UserError, match=message):
        Hhh().read(path)


def test_the_real_file_has_221_rows_of_which_41_are_chats(real_data):
    cases = Hhh().read(Hhh().SOURCE.find(real_data))
    assert Counter(case.group for case in cases) == {
        "honest": 61, "helpful": 59, "harmless": 58, "other": 43,
    }  # fmt: skip
    assert sum(bool(case.history) for case in cases) == 41
    assert len(HhhAb().read(HhhAb().SOURCE.find(real_data))) == 442
