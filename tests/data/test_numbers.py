"""One reader of numbers: what is no finite number is no score."""

import math
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stair_jax.data.numbers import read_flag, read_number, read_whole

NONE = [
    *(None, True, False, "", " ", "N/A", "n/a", "nan", "NaN", "inf", "-Infinity", "1_0", "8,5"),
    *("1e999", "٣", "0x1", "4/5", "good", [], {}, [3], math.nan, math.inf, -math.inf, 10**400),
    *(Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity"), np.float32("nan")),
]


@pytest.mark.parametrize("value", NONE, ids=repr)
def test_what_is_no_finite_number_is_none(value):
    assert read_number(value) is None and read_whole(value) is None


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (3, 3.0),
        (-2.5, -2.5),
        ("7", 7.0),
        (" +.5e1 ", 5.0),
        ("8.", 8.0),
        (Decimal("9.50"), 9.5),
        (np.int64(4), 4.0),
    ],
)
def test_numbers_are_read_in_any_form(value, number):
    assert read_number(value) == number


@given(st.floats() | st.integers() | st.text() | st.none() | st.booleans())
def test_whatever_is_given_the_result_is_finite_or_none(value):
    number = read_number(value)
    assert number is None or math.isfinite(number)
    if type(value) is float and math.isfinite(value):
        assert number == value == read_number(repr(value))


def test_whole_numbers_may_be_written_as_floats():
    assert [read_whole(value) for value in (1, 1.0, "1.0", "0")] == [1, 1, 1, 0]
    assert read_whole(1.5) is None and read_whole("1.5") is None


def test_flags():
    assert [read_flag(value) for value in (True, "true", " True", 1, "1", 1.0)] == [True] * 6
    assert [read_flag(value) for value in (False, "FALSE", 0, "0", 0.0)] == [False] * 5
    assert [read_flag(value) for value in (None, "", "maybe", 2, math.nan)] == [None] * 5
