"""The safety-informed reward against hand-computed values and bounds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stair_jax.errors import UserError
from stair_jax.search.judging.reward import FAMILIES, SAFETY_VALUES, SafetyReward


def holding(reward: SafetyReward) -> list[bool]:
    return [found.holds for found in reward.properties()]


@pytest.mark.parametrize(
    ("family", "c2", "helpfulness", "safety", "expected"),
    [
        ("s", -1.0, 1.0, 1.0, 3.0),
        ("s", -1.0, 1.0, -1.0, -3.0),
        ("s", -1.0, -1.0, 1.0, 1.0),
        ("s", -1.0, 0.5, 0.0, 0.0),
        ("s", -0.5, 0.5, -1.0, -2.0),
        ("2s", -1.0, 0.5, 0.5, 2.0),
        ("-s^2+2s", -1.0, 0.0, -1.0, -4.0),
    ],
)
def test_values_by_hand(family, c2, helpfulness, safety, expected):
    assert SafetyReward(family, c2)(helpfulness, safety) == pytest.approx(expected)


def test_default_is_the_one_of_the_paper():
    h, s = np.meshgrid(np.linspace(-1, 1, 9), np.linspace(-1, 1, 9))
    rewards = SafetyReward()(h, s)
    np.testing.assert_allclose(rewards, s * h + 2 * s)
    np.testing.assert_array_equal(np.sign(rewards), np.sign(s))
    assert holding(SafetyReward()) == [True, True, True]


def test_constant_shifts_every_reward():
    assert SafetyReward(constant=0.25)(0.5, -1) == SafetyReward()(0.5, -1) + 0.25


@pytest.mark.parametrize(
    ("family", "c2", "safety", "expected"),
    [
        ("s", -0.5, "continuous", [True, True, True]),
        ("2s", -1.0, "continuous", [True, True, True]),
        ("2s", -1.0, "discrete", [True, True, False]),
        ("-s^2+2s", -1.0, "continuous", [True, True, True]),
        ("-s^2+2s", -0.6, "discrete", [True, True, True]),
        ("-s^2+2s", -0.6, "continuous", [False, True, True]),
        ("s", 0.0, "discrete", [False, True, True]),
        ("s", -1.5, "continuous", [True, True, False]),
    ],
)
def test_properties_of_the_ablated_choices(family, c2, safety, expected):
    assert holding(SafetyReward(family, c2, safety=safety, allow_unsafe=True)) == expected


@given(
    family=st.sampled_from(sorted(FAMILIES)),
    c2=st.floats(-1, 1).filter(lambda c2: min(abs(c2 - x) for x in (-2 / 3, -0.5, 0)) > 1e-2),
)
def test_safety_first_where_the_bound_on_c2_says_so(family, c2):
    bound = {"s": 0.0, "2s": -0.5, "-s^2+2s": -2 / 3}[family]
    reward = SafetyReward(family, c2, allow_unsafe=True)
    assert reward.properties()[0].holds == (c2 < bound)


@given(st.floats(-1, 1), st.floats(-1, 1), st.floats(1e-6, 1), st.floats(-1, -1e-6))
def test_an_accepted_reward_puts_safety_first(h1, h2, safe, unsafe):
    for family in FAMILIES:
        assert SafetyReward(family)(h1, safe) > SafetyReward(family)(h2, unsafe)


def test_unsafe_choice_is_refused_with_a_counterexample_that_is_one():
    with pytest.raises(UserError, match=r"R\(H=-1, S=1\) = -0.5 <= the unsafe R\(H=-1, S=-1\)"):
        SafetyReward("s", 0.5)
    allowed = SafetyReward("s", 0.5, allow_unsafe=True)
    assert allowed(-1, 1) == -0.5 <= allowed(-1, -1) == 0.5


def test_wrong_sign_and_missing_c1_are_named(monkeypatch):
    monkeypatch.setitem(FAMILIES, "s", lambda s: s * s / 2)
    _, direction, degeneration = SafetyReward("s", allow_unsafe=True).properties()
    assert not direction.holds
    assert direction.reason == "dR/dH = F(-1) = 0.5"
    assert not degeneration.holds
    assert "no S has F(S) = 1" in degeneration.reason


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"family": "s^2"}, r"family is 's\^2': it must be one of 's', '2s', '-s\^2\+2s'"),
        ({"safety": "both"}, "safety is 'both': it must be one of 'continuous', 'discrete'"),
        ({"c2": float("nan")}, "c2 is nan: it must be a finite number"),
    ],
)
def test_wrong_fields_are_named(fields, named):
    with pytest.raises(UserError, match=named):
        SafetyReward(**fields)


def test_checked_values_of_safety_contain_the_ends():
    assert SAFETY_VALUES["continuous"][[0, -1]].tolist() == SAFETY_VALUES["discrete"].tolist()
