"""SimpleQA: accuracy, and accuracy given attempted."""

import numpy as np
import pytest

from stair_jax.evaluation.benchmarks.simpleqa import SimpleQa
from stair_jax.evaluation.case import Answer, Graded
from stair_jax.evaluation.judges.judge import Verdict

BENCHMARK = SimpleQa()
METRICS = {metric.name: metric for metric in BENCHMARK.METRICS}


@pytest.fixture
def cases(table):
    metadata = "{'topic': 'Art', 'answer_type': 'Person'}"
    path = table(
        "simpleqa.csv",
        ("metadata", "problem", "answer"),
        (metadata, "Who?", "Ann"),
        ("no literal", "When?", "1907"),
    )
    return BENCHMARK.read(path)


def test_a_judge_is_shown_the_right_answer(cases):
    material = BENCHMARK.material(cases[0], Answer("simpleqa", "0", final="Bob"))
    assert (material.prompt, material.answer, material.reference) == ("Who?", "Bob", "Ann")
    assert [case.group for case in cases] == ["Art", ""]


def test_accuracy_given_attempted_is_a_ratio_of_sums(cases):
    labels = ["correct", "incorrect", "not_attempted", "correct"]
    rows = []
    for label in labels:
        scores = BENCHMARK.grade(
            cases[0], Answer("simpleqa", "0"), Verdict("correctness", "j", label)
        )
        rows.append(Graded(cases[0], Answer("simpleqa", "0"), scores))
    weights = np.array([[1.0, 1, 1, 1], [0, 2, 1, 1], [0, 0, 4, 0]])
    found = {}
    for name, metric in METRICS.items():
        values = np.array([row.scores[metric.key] for row in rows])
        found[name] = metric.statistic(rows, values, weights)
    np.testing.assert_allclose(found["accuracy"], [1 / 2, 1 / 4, 0])
    np.testing.assert_allclose(found["accuracy_attempted"], [2 / 3, 1 / 3, np.nan])
    np.testing.assert_allclose(found["attempted"], [3 / 4, 3 / 4, 0])


@pytest.mark.parametrize("verdict", [None, Verdict("correctness", "j")])
def test_without_a_verdict_all_is_missing(cases, verdict):
    scores = BENCHMARK.grade(cases[0], Answer("simpleqa", "0"), verdict)
    assert scores == {"correct": None, "attempted": None}


def test_the_real_file_has_4326_questions_in_ten_topics(real_data):
    cases = BENCHMARK.read(BENCHMARK.SOURCE.find(real_data))
    assert len(cases) == 4326
    assert len({case.group for case in cases}) == 10
    assert all(case.reference for case in cases)
