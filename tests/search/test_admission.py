"""Cache use of a tree: hand-computed, and against a count of everything in flight."""

import random

import pytest

from stair_jax.decoding.requests import Completion, Handle, Request, Sampling
from stair_jax.search.admission import Admission, Load

SAMPLING = Sampling()


def request(id, tokens, parent=None):
    return Request(id, (1,) * tokens, parent, SAMPLING)


def completion(id, sampled):
    return Completion(id, (1,) * sampled)


def test_what_a_tree_pins_by_hand():
    admission = Admission(1000, guess=300)
    load, parent = Load(admission), Handle((1,) * 50)
    load.submitted(request("a", 0, parent))  # 50 for the parent, and 10 sampled
    load.submitted(request("b", 5, parent))  # 5, and 20 sampled; the parent counts once
    assert len(load) == 2
    load.completed(completion("a", 10))
    load.submitted(request("c", 30))  # 30, and 0 sampled
    load.completed(completion("b", 20))
    load.completed(completion("c", 0))
    assert len(load) == 0
    # levels 50, 60, 85, 75, 105, 80, 30, 0, in the order of the events
    peak, level = load.pinned()
    assert peak == 105
    assert level == pytest.approx((50 + 60 + 85 + 75 + 105 + 80 + 30 + 0) / 8)


def test_a_tree_starts_when_its_peak_fits_beside_the_others():
    admission = Admission(1000, guess=300)
    loads = []
    while admission.has_room(1000):
        loads.append(Load(admission))
    assert len(loads) == 3  # 2 x 300 + 300 fit, 3 x 300 + 300 do not
    assert not Admission(1000, guess=300).has_room(299)  # bounded by the engine's free tokens
    loads.pop().close(finished=False)  # not included in the means
    assert admission.has_room(1000)
    load = loads.pop()
    load.submitted(request("a", 100))
    load.completed(completion("a", 100))
    load.close(finished=True)  # peak 200, average 100
    while admission.has_room(1000):
        loads.append(Load(admission))
    assert len(loads) == 9  # 8 x 100 + 200
    for number, load in enumerate(loads):  # 100 each, and 100 expected to be sampled
        load.submitted(request(number, 100))
    loads.pop().close(finished=False)
    assert not admission.has_room(1000)


def test_pinned_tokens_are_those_of_a_plain_count():
    rng = random.Random(0)
    admission = Admission(10**6, guess=1)
    load, in_flight, most = Load(admission), {}, 0
    parents = [None, *(Handle((1,) * n) for n in (7, 31, 64))]
    for number in range(500):
        if in_flight and rng.random() < 0.5:
            id = rng.choice(list(in_flight))
            _, _, sampled = in_flight.pop(id)
            load.completed(completion(id, sampled))
        else:
            parent, own, sampled = rng.choice(parents), rng.randint(1, 20), rng.randint(0, 40)
            in_flight[number] = parent, own, sampled
            load.submitted(request(number, own, parent))
        used = {parent for parent, _, _ in in_flight.values() if parent is not None}
        most = max(
            most,
            sum(own + sampled for _, own, sampled in in_flight.values())
            + sum(len(parent.tokens) for parent in used),
        )
        assert len(load) == len(in_flight)
    for id, (_, _, sampled) in in_flight.items():
        load.completed(completion(id, sampled))
    assert load.pinned()[0] == most
    load.close(finished=True)
    # Nothing is in flight any more: only the peak has to fit.
    assert admission.has_room(most) and not admission.has_room(most - 1)
