"""Labels of metrics, by which a judge's error is taken out, agree with how answers are graded."""

import pytest

from stair_jax.evaluation.benchmarks import BENCHMARKS
from stair_jax.evaluation.case import Answer, Case
from stair_jax.evaluation.judges.judge import Verdict
from stair_jax.evaluation.judges.questions import QUESTIONS

CORRECTED = [
    (name, metric)
    for name, benchmark in BENCHMARKS.items()
    for metric in benchmark.METRICS
    if metric.labels
]


def _name(value):
    return value if isinstance(value, str) else value.name


@pytest.mark.parametrize(("name", "metric"), CORRECTED, ids=_name)
def test_a_verdict_gives_1_for_the_labels_of_a_metric_and_0_for_the_others(name, metric):
    benchmark = BENCHMARKS[name]()
    graded = {
        label: benchmark.grade(Case("a", "?"), Answer(name, "a"), Verdict("q", "j", label))
        for label in QUESTIONS[benchmark.QUESTION].labels
    }
    assert set(metric.labels) < set(graded)
    for label, scores in graded.items():
        assert scores[metric.key] == float(label in metric.labels)


def test_shares_of_refusals_harm_and_right_answers_can_be_corrected():
    assert {"xstest_safe", "xstest_unsafe", "do_not_answer", "harmbench", "simpleqa"} <= {
        name for name, _ in CORRECTED
    }
