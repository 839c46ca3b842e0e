"""What a model writes cannot control the terminal that shows it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stair_jax.text.terminal import printable, printable_json

FORGED = [
    "\x1b[2J",
    "\x1b]0;title\x07",
    "\x9b31m",
    "\x08\x08",
    "\r> rm",
    "\x7f",
    "\u202etxt",
    "\x00",
]


@pytest.mark.parametrize("text", FORGED)
def test_control_characters_become_escapes(text):
    shown = printable(text)
    assert shown.isprintable() and shown.isascii()
    assert shown.encode().decode("unicode_escape") == text


@given(st.text())
def test_text_is_left_as_it_is_but_for_control_characters(text):
    shown = printable(text)
    assert not any((ord(c) < 32 and c not in "\n\t") or 127 <= ord(c) < 160 for c in shown)
    shown.encode()  # no lone surrogate is left
    if text.replace("\n", "").replace("\t", "").isprintable():
        assert shown == text


def test_other_scripts_and_emoji_are_printed():
    text = "שלום\u200f 日本\t\u0939\u093f\n👩\u200d👧"
    assert printable(text) == text


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_line_of_json_keeps_its_value(text):
    line = printable_json(json.dumps({"text": text}, ensure_ascii=False))
    assert json.loads(line) == {"text": text}
    assert printable(line) == line
