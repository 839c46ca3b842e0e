"""The throttle: its arithmetic, and its rate against simulated servers, in simulated time."""

import heapq
import random

import pytest

from stair_jax.endpoints.throttle import Throttle


def succeed(throttle, count):
    for _ in range(count):
        throttle.start()
        throttle.succeed()


def refuse(throttle, now=0.0, wait=0.0):
    throttle.refuse(throttle.start(), now, wait, 1.0)


def test_the_limit_falls_to_three_quarters_and_rises_by_one_after_25_successes():
    throttle = Throttle(64)
    succeed(throttle, 5 * 12)  # 8, and one more after each five: nothing was refused yet
    assert throttle.limit == 20
    refuse(throttle)
    assert throttle.limit == 15
    succeed(throttle, 24)
    assert throttle.limit == 15
    succeed(throttle, 1)
    assert throttle.limit == 16


def test_the_refusals_of_one_burst_are_one_decrease():
    throttle = Throttle(64)
    tickets = [throttle.start() for _ in range(8)]
    for ticket in tickets:
        throttle.refuse(ticket, 0.0, None, 1.0)
    assert (throttle.limit, throttle.in_flight, throttle.refused) == (6, 0, 8)
    refuse(throttle)
    assert throttle.limit == 4  # .75 of 6, rounded down


def test_the_refused_limit_is_remembered_and_tried_again_with_patience():
    throttle = Throttle(64)
    refuse(throttle)  # at 8
    assert throttle.limit == 6
    succeed(throttle, 25)
    assert throttle.limit == 7
    succeed(throttle, 99)
    assert throttle.limit == 7
    succeed(throttle, 1)
    assert throttle.limit == 8
    succeed(throttle, 25)  # what was refused holds now: forgotten
    succeed(throttle, 25)
    assert throttle.limit == 10


def test_the_limit_stays_between_one_and_the_most():
    throttle = Throttle(10)
    succeed(throttle, 1000)
    assert throttle.limit == 10
    for _ in range(50):
        refuse(throttle)
    assert throttle.limit == 1
    assert throttle.may_start(0.0)
    assert Throttle(3).limit == 3


def test_a_wait_that_the_endpoint_asks_for_is_heeded():
    throttle = Throttle(8)
    refuse(throttle, now=100.0, wait=7.5)
    assert not throttle.may_start(107.4) and throttle.may_start(107.5)
    ticket = throttle.start()
    refuse(throttle, now=108.0, wait=1.0)
    throttle.refuse(ticket, 108.5, 3.0, 1.0)  # of the same burst, but it knows better
    assert throttle.paused_until == 111.5


def test_pauses_grow_until_a_call_succeeds_where_the_endpoint_says_nothing():
    throttle = Throttle(8)
    pauses = []
    for _ in range(9):
        refuse(throttle, now=throttle.paused_until, wait=None)
        pauses.append(throttle.paused_until - sum(pauses))
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    succeed(throttle, 1)
    refuse(throttle, now=1000.0, wait=None)
    assert throttle.paused_until == 1001.0


def simulate(rate, latency, retry_after, seconds=240.0, warm=60.0):
    """(share of the server's rate after `warm` seconds, share of refused calls).

    The server is a token bucket that holds the calls of one second; it refuses after 50 ms.
    """
    rng, throttle = random.Random(0), Throttle(256)
    now = last = 0.0
    tokens, events, number, served, refused = float(rate), [], 0, [], 0
    while now < seconds:
        while throttle.may_start(now):
            number += 1
            tokens, last = min(rate, tokens + (now - last) * rate), now
            accepted = tokens >= 1
            tokens -= accepted
            end = now + (latency * rng.uniform(0.5, 1.5) if accepted else 0.05)
            heapq.heappush(events, (end, number, accepted, throttle.start()))
        times = [events[0][0]] if events else []
        if throttle.in_flight < throttle.limit and throttle.paused_until > now:
            times.append(throttle.paused_until)
        now = min(times)
        while events and events[0][0] <= now:
            _, _, accepted, ticket = heapq.heappop(events)
            if accepted:
                throttle.succeed()
                served.append(now)
            else:
                throttle.refuse(ticket, now, retry_after, rng.uniform(0.5, 1.5))
                refused += 1
    late = sum(time >= warm for time in served)
    return late / (seconds - warm) / rate, refused / (refused + len(served))


@pytest.mark.parametrize("retry_after", [None, 1.0])
@pytest.mark.parametrize(("rate", "latency"), [(20, 0.3), (20, 3), (50, 0.3), (50, 3), (100, 1)])
def test_nine_tenths_of_a_servers_rate_are_used_and_few_calls_refused(rate, latency, retry_after):
    share, refused = simulate(rate, latency, retry_after)
    assert share >= 0.9
    assert 0 < refused < 0.02
