"""A small run of the soak test of many prompts, and the faults that it finds."""

import pytest

from soak import prompts
from stair_jax.search.prompt_queue import PromptQueue


def test_all_prompts_that_can_be_searched_are_queued_in_order(tmp_path):
    result = prompts.run(480, 0, tmp_path)
    assert result.failures == []
    assert result.counts["queued"] + result.counts["skipped"] == result.counts["prompts"] == 540
    assert result.counts["skipped"] > 10


def test_lost_prompts_are_found(monkeypatch, tmp_path):
    take = PromptQueue.take

    def lose_some(entries):
        entry = take(entries)
        return take(entries) if entry.place % 50 == 0 and entries.next is not None else entry

    monkeypatch.setattr(PromptQueue, "take", lose_some)
    failure = prompts.run(160, 0, tmp_path).failures[-1]
    assert "the queued prompts are not those" in failure.what and "--size 160" in failure.reproduce


def test_prompts_skipped_for_no_reason_are_found(monkeypatch, tmp_path):
    monkeypatch.setattr(prompts, "_MAX_TOKENS", 20)
    result = prompts.run(160, 0, tmp_path)
    assert any("the skipped prompts are not those" in failure.what for failure in result.failures)


@pytest.mark.parametrize(("seconds", "found"), [(8.0, False), (64.0, True), (0.4, False)])
def test_superlinear_time_is_found(monkeypatch, tmp_path, seconds, found):
    few, many = {"read_s": 1.0}, {"read_s": seconds}
    answers = iter([few, many])
    monkeypatch.setattr(prompts, "_queue_all", lambda *arguments: next(answers))
    result = prompts.run(160, 0, tmp_path)
    assert [failure.what for failure in result.failures] == (
        ["read_s grows faster than the number of prompts"] if found else []
    )
