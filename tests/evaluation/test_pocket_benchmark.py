"""The metrics of the pocket world on hand-written outcomes."""

import json
import random

import pytest

from stair_jax.evaluation.pocket_benchmark import (
    METRICS,
    breakdown,
    format_table,
    hazard_outcomes,
    judge_answers,
    summarize,
)
from stair_jax.pocket import datasets, user_requests

COLUMNS = {
    "goodness_plain",
    "goodness_seen",
    "goodness_heldout",
    "goodness_heldout_ciphers",
    "leak_heldout",
    "helpfulness",
    "over_refusal",
    "format_valid",
    "tokens",
}


def judged(*rows):
    """Rows from (group, source, outcome, format_valid, tokens)."""
    names = ("group", "source", "outcome", "format_valid", "tokens")
    return [
        {"id": f"row {i}", "item": f"item {i}"} | dict(zip(names, row, strict=True))
        for i, row in enumerate(rows)
    ]


MIXED = judged(
    ("hazard_plain", "plain", "refusal", True, 10),
    ("hazard_plain", "polite", "refusal", True, 10),
    ("hazard_seen", "alias", "leak", False, 10),
    ("hazard_seen", "role", "refusal", True, 10),
    ("hazard_heldout", "key", "refusal", True, 20),
    ("hazard_heldout", "key", "leak", True, 20),
    ("hazard_heldout", "key", "leak", False, 20),
    ("hazard_heldout", "key", "wrong", False, 20),
    ("hazard_heldout", "forged", "refusal", False, 20),
    ("harmless_plain", "plain", "right", True, 30),
    ("harmless_plain", "plain", "refusal", True, 30),
    ("harmless_lookalike", "scary", "refusal", True, 30),
    ("harmless_lookalike", "scary", "right", True, 30),
    ("harmless_wrapped", "key", "right", True, 30),
    ("harmless_wrapped", "role", "empty", False, 30),
    ("harmless_wrapped", "role", "right", True, 40),
)


def test_metrics_by_hand():
    values = {name: metric["value"] for name, metric in summarize(MIXED).items()}
    assert values == pytest.approx(
        {
            "goodness_plain": 1.0,
            "goodness_seen": 1 / 2,
            "goodness_heldout": 2 / 5,
            "goodness_heldout_ciphers": 1 / 4,
            "goodness_heldout_social": 1.0,
            "leak_heldout": 2 / 5,
            "helpfulness": 4 / 7,
            "helpfulness_plain": 2 / 4,
            "helpfulness_wrapped": 2 / 3,
            "over_refusal": 1 / 5,
            "format_valid": 11 / 16,
            "tokens": 360 / 16,
        }
    )


def test_the_row_has_the_columns_that_are_promised():
    summary = summarize(MIXED)
    assert set(summary) == set(METRICS) >= COLUMNS
    for metric in summary.values():
        assert set(metric) == {"value", "low", "high"}
        assert metric["low"] <= metric["value"] <= metric["high"]
    assert json.loads(json.dumps(summary)) == summary


def test_a_metric_that_no_prompt_bears_on_is_none():
    summary = summarize(MIXED[:2])
    assert summary["goodness_plain"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert summary["helpfulness"] is None and summary["leak_heldout"] is None


def test_rows_about_one_item_are_one_cluster():
    rows = [row | {"item": "the same"} for row in MIXED]
    metric = summarize(rows)["goodness_heldout"]
    assert metric["low"] == metric["value"] == metric["high"]


def test_rows_without_an_item_are_clusters_of_their_own():
    rows = [row | {"item": None} for row in MIXED]
    assert summarize(rows) == summarize(MIXED)


def test_outcomes_of_the_hazards_apart():
    outcomes = hazard_outcomes(MIXED)
    assert list(outcomes) == ["plain", "seen", "heldout_ciphers", "heldout_social"]
    ciphers = outcomes["heldout_ciphers"]
    whole = ciphers.pop("goodness_well_formed")
    assert ciphers == {
        "prompts": 4,
        "refusals": 1,
        "leaks": 2,
        "non_answers": 1,
        "malformed": 2,
    }
    assert whole["value"] == 0.5
    assert outcomes["plain"]["goodness_well_formed"]["value"] == 1.0
    assert outcomes["heldout_social"]["goodness_well_formed"] is None
    assert outcomes["heldout_social"]["malformed"] == 1


def test_every_hazard_is_counted_once():
    for counts in hazard_outcomes(MIXED).values():
        total = counts["refusals"] + counts["leaks"] + counts["non_answers"]
        assert total == counts["prompts"]


def test_breakdown_by_family():
    counts = breakdown(MIXED)
    assert counts["hazard_heldout/key"] == {
        "leak": 2,
        "malformed": 2,
        "prompts": 4,
        "refusal": 1,
        "wrong": 1,
    }
    assert sum(counter["prompts"] for counter in counts.values()) == len(MIXED)


def test_the_teacher_itself_is_perfect():
    rows = datasets.evaluation_rows("test", 6)
    rng = random.Random(0)
    answers = [
        {"id": row["id"], "tokens": 7, "text": user_requests.structured_answer(request, rng)}
        for row, request in ((row, datasets.request_of(row)) for row in rows)
    ]
    values = {k: metric["value"] for k, metric in summarize(judge_answers(rows, answers)).items()}
    zero = {"leak_heldout", "over_refusal"}
    assert values == {k: 0.0 if k in zero else 7.0 if k == "tokens" else 1.0 for k in METRICS}


def test_whoever_tells_everything_leaks():
    rows = datasets.evaluation_rows("test", 6)
    answers = [{"id": row["id"], "tokens": 1, "text": row["truth"]["answer"]} for row in rows]
    found = judge_answers(rows, answers)
    assert {row["outcome"] for row in found if row["group"].startswith("hazard")} == {"leak"}
    assert {row["outcome"] for row in found if row["group"].startswith("harm")} == {"right"}
    assert not any(row["format_valid"] for row in found)


def test_an_answer_that_is_missing_is_noticed():
    rows = datasets.evaluation_rows("test", 6)
    with pytest.raises(ValueError, match="shorter"):
        judge_answers(rows, [{"id": "test-0", "text": "", "tokens": 0}])


def table():
    names = ("base", "system1", "sft", "iter1", "iter2", "iter3", "prompted")
    rows = [{"model": name, **summarize(MIXED)} for name in (*names, "best_of_n", "beam_search")]
    rows[-1]["tokens"] = {"value": 1234.4, "low": 1000.0, "high": 1500.0}
    return rows


def test_the_table_is_readable():
    lines = format_table(table()).splitlines()
    assert len(lines) == 1 + 9 + 1
    assert max(map(len, lines)) <= 120
    assert len({len(line) for line in lines[:-1]}) == 1
    cells = dict(zip(lines[0].split(), lines[-2].split(), strict=True))
    assert cells["model"] == "beam_search"
    assert cells["tokens"] == "1234±250"
    assert cells["plain"] == "1.00±.00"
    assert cells["helpful"].startswith(".571±.")


def test_a_value_that_is_missing_is_a_dash():
    row = {"model": "base", **summarize(MIXED[:2])}
    cells = dict(zip(*map(str.split, format_table([row]).splitlines()[:2]), strict=True))
    assert cells["leak"] == "-" and cells["plain"] == "1.00±.00"
