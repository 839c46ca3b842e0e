"""How long an endpoint asks to wait."""

import email.utils
import time

import pytest

from stair_jax.endpoints.client import _retry_after


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "1"}, 1.0),
        ({"retry-after": "0"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1e999"}, None),
        ({"retry-after": "later"}, None),
        ({"retry-after": "Mon, 01 Jan 1990 00:00:00 GMT"}, None),
        ({"retry-after": "Mon, 01 Jan 99999 00:00:00 GMT"}, None),
    ],
)
def test_a_wait_is_a_positive_number_or_not_said(headers, seconds):
    assert _retry_after(headers) == seconds


def test_a_wait_may_be_a_date(monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1_000_000.0)
    assert _retry_after({"retry-after": email.utils.formatdate(1_000_030, usegmt=True)}) == 30.0
