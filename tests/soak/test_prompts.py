"""A slice of the soak of many prompts, and what it finds where some are lost."""

import pytest

from soak import prompts
from stair_jax.search.entries import Entries


def test_all_prompts_that_can_be_searched_are_queued_in_their_order(tmp_path):
    result = prompts.run(2000, 0, tmp_path)
    assert result.failures == []
    assert result.counts["queued"] + result.counts["left out"] == result.counts["prompts"] == 2250
    assert result.counts["left out"] > 40


def test_prompts_that_are_lost_are_found(monkeypatch, tmp_path):
    take = Entries.take

    def lose_some(entries):
        entry = take(entries)
        return take(entries) if entry.place % 50 == 0 and entries.next is not None else entry

    monkeypatch.setattr(Entries, "take", lose_some)
    failure = prompts.run(800, 0, tmp_path).failures[-1]
    assert "other prompts were queued" in failure.what and "--size 800" in failure.reproduce


def test_prompts_that_are_left_out_for_no_reason_are_found(monkeypatch, tmp_path):
    monkeypatch.setattr(prompts, "_MAX_TOKENS", 20)
    result = prompts.run(800, 0, tmp_path)
    assert any("other prompts were left out" in failure.what for failure in result.failures)


@pytest.mark.parametrize(("seconds", "found"), [(8.0, False), (64.0, True), (0.4, False)])
def test_time_that_grows_faster_than_the_prompts_is_found(monkeypatch, tmp_path, seconds, found):
    few, many = {"read_s": 1.0}, {"read_s": seconds}
    answers = iter([few, many])
    monkeypatch.setattr(prompts, "_queue_all", lambda *arguments: next(answers))
    result = prompts.run(800, 0, tmp_path)
    assert [failure.what for failure in result.failures] == (
        ["read_s grows faster than the number of prompts"] if found else []
    )
