"""Replies of attackers are read as JSON or not at all."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stair_jax.evaluation.attacks.replies import read_object, read_text

WRITTEN = {"improvement": str, "prompt": str}


@given(st.text(min_size=1), st.text(min_size=1), st.booleans())
def test_an_object_is_read_plain_or_from_a_fenced_block(improvement, prompt, ascii_only):
    values = {"improvement": improvement + ".", "prompt": prompt + "?", "more": [1]}
    text = json.dumps(values, ensure_ascii=ascii_only)
    found = {"improvement": values["improvement"], "prompt": values["prompt"]}
    for candidate in (text, f"\n {text}\n"):
        assert read_object(candidate, WRITTEN) == found
    if "```" not in text:
        assert read_object(f"Here:\n```json\n{text}\n```\nGood?", WRITTEN) == found


def test_a_line_end_inside_of_a_text_is_allowed():
    assert read_text('{"prompt": "a\nb"}', "prompt") == "a\nb"


def test_half_of_a_surrogate_pair_is_replaced():
    assert read_text('{"prompt": "a\\ud800"}', "prompt") == "a\ufffd"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I will not do this.",
        'Sure: {"prompt": "a"}',  # neither all of it nor fenced
        '{"prompt": "a"',
        "{'prompt': 'a'}",  # Python, not JSON
        '{"prompt": ["a"]}',
        '{"prompt": " "}',
        '{"prompt": null}',
        '["prompt"]',
        '{"prompt": "a", "prompt": "b"}',
        '{"prompt": "a", "score": NaN}',
        '{"prompt": __import__("os")}',
        "[" * 100_000,
        '{"prompt": "' + "a" * 2**17 + '"}',
        "1" * 10_000,
    ],
)
def test_anything_else_is_not_read(text):
    assert read_text(text, "prompt") is None


def test_numbers_and_flags_must_be_of_their_type():
    assert read_object('{"rating": 7}', {"rating": int}) == {"rating": 7}
    for value in ("true", '"7"', "7.0", "null"):
        assert read_object(f'{{"rating": {value}}}', {"rating": int}) is None
    assert read_object('{"same": true}', {"same": bool}) == {"same": True}
    assert read_object('{"same": 1}', {"same": bool}) is None


@given(st.text())
def test_no_text_makes_it_fail(text):
    assert read_object(text, WRITTEN) is None or isinstance(json.loads(text, strict=False), dict)
