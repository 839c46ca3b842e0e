"""The endpoint of `benchmarks.teacher_rate`, in simulated time."""

import pytest

from benchmarks.teacher_rate import Bucket


def test_a_bucket_serves_its_rate_and_refuses_the_rest():
    bucket = Bucket(rate=20.0, latency=1.0)
    waits = [bucket.take(100.0 + number / 80) for number in range(8000)]  # for 100 s
    served = [wait for wait in waits if wait is not None]
    assert len(served) == pytest.approx(20 * 101, abs=2)  # and those that it held at first
    assert bucket.refused == len(waits) - len(served)
    assert all(0.5 <= wait <= 1.5 for wait in served)
    assert waits.index(None) >= 20


def test_the_share_is_of_what_the_rate_allows_in_a_time():
    bucket = Bucket(rate=10.0, latency=0.0)
    for number in range(200):
        bucket.take(5.0 + number / 5)  # half of the rate, for 40 s
    assert bucket.share(10.0, 40.0) == pytest.approx(0.5, abs=0.01)
    assert bucket.share(40.0, 50.0) == 0.0 and bucket.refused == 0
