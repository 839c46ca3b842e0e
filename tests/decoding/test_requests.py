"""Requests, their validation, and random keys."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stair_jax.decoding.driver import run_all
from stair_jax.decoding.requests import Handle, Request, Sampling, request_key
from stair_jax.errors import UserError

PARTS = st.lists(st.one_of(st.integers(), st.text(max_size=5)), max_size=4).map(tuple)


def test_a_key_is_the_same_everywhere():
    # printf "(0, 'prompt', 1)" | sha256sum begins with 46d13f4d 6e8b2314.
    assert request_key(0, "prompt", 1) == (0x4D3FD146, 0x14238B6E)


@given(PARTS, PARTS)
def test_different_paths_have_different_keys(first, second):
    assert (request_key(0, *first) == request_key(0, *second)) == (first == second)


@given(st.integers(), PARTS)
def test_a_key_is_two_words(seed, path):
    key = request_key(seed, *path)
    assert len(key) == 2
    assert all(0 <= word < 2**32 for word in key)


def test_a_key_is_made_of_ints_and_strings_only():
    with pytest.raises(TypeError, match="ints and strings"):
        request_key(0, 1.5)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": 1e39}, "temperature"),
        ({"top_k": -1}, "top_k"),
        ({"top_k": 2**31}, "top_k"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.5}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop_ids": tuple(range(9))}, "stop_ids"),
    ],
)
def test_a_wrong_setting_is_named(setting, message):
    with pytest.raises(UserError, match=message):
        Sampling(**setting)


def test_a_request_needs_tokens():
    with pytest.raises(UserError, match="no tokens"):
        Request("a", (), sampling=Sampling())
    assert Request("a", (), parent=Handle((1, 2)), sampling=Sampling()).sequence == (1, 2)


def test_a_request_either_samples_or_scores():
    with pytest.raises(UserError, match="either"):
        Request("a", (1,))
    with pytest.raises(UserError, match="either"):
        Request("a", (1,), sampling=Sampling(), score_ids=(1,))


class Idle:
    pending = 0

    def submit(self, requests):
        raise AssertionError("nothing may be submitted")

    def step(self):
        return []


def test_run_all_refuses_equal_ids():
    requests = [Request("a", (1,), sampling=Sampling())] * 2
    with pytest.raises(ValueError, match="the same id"):
        run_all(Idle(), requests)


def test_run_all_refuses_a_busy_engine():
    busy = Idle()
    busy.pending = 1
    with pytest.raises(ValueError, match="pending"):
        run_all(busy, [])
