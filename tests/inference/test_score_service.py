"""A reward model as a service: batches of fixed shape, whatever comes when."""

import numpy as np
import pytest

from stair_jax.decoding.score_requests import ScoreRequest
from stair_jax.inference.score_service import ScoreService


class Scores:
    """What a device computes: there after a few looks."""

    def __init__(self, values, looks):
        self.values, self.looks = values, looks

    def copy_to_host_async(self):
        pass

    def is_ready(self):
        self.looks -= 1
        return self.looks < 0

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.values, np.float32)


class Sums:
    """Scores a sequence by the sum of its tokens; notes the batches."""

    rows = 4

    def __init__(self, looks=1):
        self.looks, self.batches = looks, []

    def bucket(self, length):
        return 8 if length <= 8 else 16

    def dispatch(self, sequences, bucket):
        assert 0 < len(sequences) <= self.rows
        assert all(self.bucket(len(sequence)) == bucket for sequence in sequences)
        self.batches.append(len(sequences))
        padding = [-1.0] * (self.rows - len(sequences))
        return Scores([*map(sum, sequences), *padding], self.looks)


def request(number, length=3):
    return ScoreRequest((number,), (number,) * length)


def drain(service):
    found = {}
    for _ in range(100):
        for completion in service.step():
            assert completion.id not in found
            found[completion.id] = completion.value
        if not service.pending:
            return found
    raise AssertionError("never done")


@pytest.mark.parametrize("looks", [0, 1, 3])
def test_each_sequence_gets_its_score(looks):
    service = ScoreService(Sums(looks))
    service.submit([request(number, 3 if number % 3 else 12) for number in range(11)])
    assert service.pending == 11
    expected = {(number,): number * (3 if number % 3 else 12) for number in range(11)}
    assert drain(service) == expected


def test_a_batch_waits_until_it_is_full_or_nothing_more_comes():
    scorer = Sums(looks=0)
    service = ScoreService(scorer)
    service.submit([request(1), request(2)])
    service.step()
    service.submit([request(3)])  # begins the waiting anew
    for _ in range(3):
        assert service.step() == []
    assert scorer.batches == [] and service.pending == 3
    service.submit([request(4), request(5)])
    assert {completion.id for completion in service.step()} == {(1,), (2,), (3,), (4,)}
    assert scorer.batches == [4] and service.pending == 1
    assert drain(service) == {(5,): 15.0} and scorer.batches == [4, 1]


def test_cancelled_requests_get_no_score():
    scorer = Sums(looks=2)
    service = ScoreService(scorer)
    service.submit([request(number) for number in range(6)])
    service.step()  # four are being computed, two wait
    service.cancel([(1,), (5,), (77,)])
    assert drain(service) == {(0,): 0.0, (2,): 6.0, (3,): 9.0, (4,): 12.0}
    assert scorer.batches == [4, 1]
    service.submit([request(1)])  # the id is free again
    assert drain(service) == {(1,): 3.0}
