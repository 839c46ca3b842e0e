"""AdvGLUE: which word is right for which label."""

import json
from collections import Counter

import numpy as np
import pytest

from stair_jax.errors import UserError
from stair_jax.evaluation.benchmarks.advglue import AdvGlue
from stair_jax.evaluation.case import Answer, Graded

BENCHMARK = AdvGlue()
PAIR = {"premise": "It rains.", "hypothesis": "It is wet."}
ROWS = {
    "sst2": [{"sentence": "so { good", "label": 1}, {"sentence": "so bad", "label": 0}],
    "qqp": [{"question1": "Why?", "question2": "How so?", "label": 1}],
    "mnli": [PAIR | {"label": label} for label in (0, 1, 2)],
    "mnli-mm": [PAIR | {"label": 2}],
    "qnli": [{"question": "Who?", "sentence": "Ann did.", "label": 0}],
    "rte": [{"sentence1": "Ann ran.", "sentence2": "Ann moved.", "label": 1}],
}


@pytest.fixture
def cases(tmp_path):
    path = tmp_path / "dev.json"
    path.write_text(json.dumps(ROWS))
    return BENCHMARK.read(path)


def grade(case, final):
    return BENCHMARK.grade(case, Answer("advglue", case.id, final=final), None)


def test_labels_are_words_whose_meaning_depends_on_the_task(cases):
    assert [(case.id, case.reference) for case in cases] == [
        ("sst2-0", "yes"), ("sst2-1", "no"), ("qqp-0", "yes"), ("mnli-0", "yes"),
        ("mnli-1", "maybe"), ("mnli-2", "no"), ("mnli-mm-0", "no"), ("qnli-0", "yes"),
        ("rte-0", "no"),
    ]  # fmt: skip


def test_the_prompt_holds_the_row_and_the_words(cases):
    assert "so { good" in cases[0].prompt and cases[0].prompt.endswith("one word: yes or no.")
    assert cases[3].prompt.endswith("one word: yes, maybe or no.")
    assert "It rains." in cases[3].prompt and "It is wet." in cases[3].prompt


@pytest.mark.parametrize("final", ["Yes", "**yes**.", "The answer is: yes", "Is it? I say yes"])
def test_the_word_is_found_in_an_answer(cases, final):
    assert grade(cases[0], final) == {"right": 1.0, "unread": 0.0}
    assert grade(cases[1], final) == {"right": 0.0, "unread": 0.0}


@pytest.mark.parametrize("final", ["", "Nobody knows", "It is yes or no", "maybe"])
def test_an_answer_without_one_of_the_words_is_wrong_and_counted(cases, final):
    assert grade(cases[0], final) == {"right": 0.0, "unread": 1.0}


def test_accuracy_is_the_mean_over_tasks(cases):
    graded = [Graded(case, Answer("advglue", case.id), grade(case, "yes")) for case in cases]
    values = np.array([row.scores["right"] for row in graded])
    found = BENCHMARK.METRICS[0].statistic(graded, values, np.ones((1, len(cases))))
    assert found == pytest.approx([(1 / 2 + 1 + 1 / 3 + 0 + 1 + 0) / 6])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"sst2": []}, "has no list 'qqp'"),
        (ROWS | {"rte": [3]}, "rte, item 1: is not a JSON object"),
        (ROWS | {"rte": [{"sentence1": "a", "label": 1}]}, "rte, item 1: there is no column 'sent"),
        (ROWS | {"qnli": [ROWS["qnli"][0] | {"label": 2}]}, "the label 2 is none of 0 to 1"),
        ([ROWS, ROWS], "is not one JSON object"),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path, rows, message):
    path = tmp_path / "dev.json"
    path.write_text(json.dumps(rows))
    with pytest.raises(UserError, match=message):
        BENCHMARK.read(path)


def test_the_real_file_has_six_tasks(real_data):
    cases = BENCHMARK.read(BENCHMARK.SOURCE.find(real_data))
    assert Counter(case.group for case in cases) == {
        "sst2": 148, "qqp": 78, "mnli": 121, "mnli-mm": 162, "qnli": 148, "rte": 81,
    }  # fmt: skip
    assert Counter(case.reference for case in cases if case.group == "rte") == {"yes": 35, "no": 46}
