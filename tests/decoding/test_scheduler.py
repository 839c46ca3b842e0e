"""The queue of waiting requests."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stair_jax.decoding.requests import Request, Sampling
from stair_jax.decoding.scheduler import Queue, make_buckets


def fill(prompts, buckets=(4, 8)):
    queue = Queue(buckets)
    for index, prompt in enumerate(prompts):
        sequence = (*prompt, 0)
        queue.push(Request(index, sequence, sampling=Sampling()), sequence, tuple(prompt))
    return queue


def ids(batch):
    return [waiting.request.id for waiting in batch]


@pytest.mark.parametrize(
    ("buckets", "expected"),
    [(None, (32, 48, 64, 96, 100)), ((64, 16, 16, 200), (16, 64, 100)), ((), (100,))],
)
def test_buckets_rise_up_to_the_length_of_the_context(buckets, expected):
    assert make_buckets(buckets, 100) == expected


def test_a_bucket_is_served_in_the_order_of_arrival():
    queue = fill([(1,) * 5, (2,), (3,) * 6, (4,) * 4])
    assert queue.oldest == 8
    assert ids(queue.take(8, 4, 4)) == [0, 2]
    assert queue.oldest == 4
    assert ids(queue.take(4, 4, 4)) == [1, 3]
    assert not queue


def test_equal_prompts_count_once():
    queue = fill([(1,), (1,), (2,), (1,), (3,), (1,)])
    assert ids(queue.take(4, 2, 10)) == [0, 1, 2, 3]
    assert ids(queue.take(4, 2, 1)) == [4]
    assert ids(queue.take(4, 2, 10)) == [5]


@given(st.lists(st.lists(st.integers(0, 2), max_size=8)), st.integers(1, 4), st.integers(1, 6))
def test_each_request_is_taken_once_within_the_limits(prompts, max_prompts, max_rows):
    queue = fill(prompts)
    seen = []
    while queue:
        bucket = queue.oldest
        batch = queue.take(bucket, max_prompts, max_rows)
        assert 1 <= len(batch) <= max_rows
        assert len({waiting.prompt for waiting in batch}) <= max_prompts
        assert all(len(waiting.prompt) <= bucket for waiting in batch)
        seen += ids(batch)
    assert sorted(seen) == list(range(len(prompts)))
