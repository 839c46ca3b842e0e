"""The cap holds with calls under way, whatever they end up costing, and is used up to the end."""

from hypothesis import given
from hypothesis import strategies as st

from stair_jax.endpoints.cap import Cap
from stair_jax.endpoints.chat import Usage
from stair_jax.endpoints.settings import EndpointSettings


def test_calls_under_way_count():
    cap = Cap(EndpointSettings(max_requests=3), calls=1)
    cap.reserve(Usage(1, 1))
    assert cap.fits(Usage(1, 1))
    cap.reserve(Usage(1, 1))
    assert not cap.fits(Usage(1, 1))
    cap.release(Usage(1, 1))  # refused: not paid
    assert cap.fits(Usage(1, 1))
    cap.reserve(Usage(1, 1))
    cap.settle(Usage(1, 1), 0.0)
    cap.settle(Usage(1, 1), 0.0)
    assert (cap.calls, cap.in_flight) == (3, 0)
    assert not cap.fits(Usage(1, 1))


def test_the_most_expensive_end_of_a_call_must_fit_the_budget():
    """Prices of 1 and 2 a million: 100,000 in and 50,000 out cost .2."""
    cap = Cap(EndpointSettings(input_price=1.0, output_price=2.0, budget=1.0), cost=0.5)
    most = Usage(100_000, 50_000)
    assert cap.most(most) == 0.2
    cap.reserve(most)
    cap.reserve(most)
    assert not cap.fits(most)
    cap.settle(most, 0.01)
    assert cap.fits(most)
    assert not cap.fits(Usage(100_001, 150_000))


@given(
    budget=st.integers(1, 50),
    calls=st.integers(1, 20),
    steps=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 100), st.sampled_from("rps"))),
)
def test_the_cap_is_never_passed_and_never_stops_a_call_that_fits(budget, calls, steps):
    """Prices of a million a million: one token costs one."""
    settings = EndpointSettings(
        max_requests=calls, input_price=1e6, output_price=0.0, budget=float(budget)
    )
    cap, under_way, spent, paid = Cap(settings), [], 0.0, 0
    for tokens, share, step in steps:
        if step == "r":
            left = budget - spent - sum(under_way)
            fits = tokens <= left and paid + len(under_way) < calls
            assert cap.fits(Usage(tokens, 0)) == fits
            if fits:
                cap.reserve(Usage(tokens, 0))
                under_way.append(tokens)
        elif under_way and step == "p":
            most = under_way.pop()
            cap.settle(Usage(most, 0), float(most * share // 100))
            spent, paid = spent + most * share // 100, paid + 1
        elif under_way:
            cap.release(Usage(under_way.pop(), 0))
    assert (cap.calls, cap.cost, cap.in_flight) == (paid, spent, len(under_way))
    assert spent <= budget and paid <= calls
