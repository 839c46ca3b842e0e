"""Escaped text gives the text back, and breaks no table."""

import csv
import html
import io
import re

import markdown as python_markdown
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stair_jax.evaluation.escaping import csv_text, latex, markdown, one_line

HOSTILE = [
    "a|b",
    "*bold* _it_ **x** `code`",
    "[link](javascript:alert(1))",
    "![image](http://example.org/x.png)",
    "<script>alert(1)</script>",
    "&amp; &lt;",
    r"C:\models\new",
    r"\\ \[2em] \input{/etc/passwd}",
    "100 % of $5 #1 x_1^2 ~ {y}",
    "a--b---c 'q' \"q\" `q` ?` !` << >>",
    "two\nlines\tand \x1b[31mred\x1b[0m",
    "=cmd|' /C calc'!A0",
    "[options] *",
    "名前 é ✓",
]
TEXTS = st.one_of(
    st.sampled_from(HOSTILE), st.text(st.characters(codec="utf-8")), st.text("\\|*_`[]<>&-{}$~^%#'")
)

LATEX_NAMES = {
    "textbackslash": "\\",
    "textasciitilde": "~",
    "textasciicircum": "^",
    "textless": "<",
    "textgreater": ">",
    "textbar": "|",
    "textasciigrave": "`",
    "textquotesingle": "'",
    "char34": '"',
}


def read_latex(text):
    """What LaTeX prints of escaped text; fails at a character that would be a command."""
    parts = re.findall(
        r"\\(text[a-z]+|char34)\{\}|\\([{}$&#_%])|\{([\[\]*])\}|-(\{\})|([^\\{}$&#_%~^<>|`'\"\[\]*])",
        text,
    )
    consumed = re.sub(
        r"\\(text[a-z]+|char34)\{\}|\\([{}$&#_%])|\{([\[\]*])\}|-(\{\})|([^\\{}$&#_%~^<>|`'\"\[\]*])",
        "",
        text,
    )
    assert not consumed, consumed
    return "".join(
        LATEX_NAMES[name] if name else plain or group or ("-" if dash else other)
        for name, plain, group, dash, other in parts
    )


@given(TEXTS)
def test_latex_prints_the_text(text):
    escaped = latex(text)
    assert read_latex(escaped) == one_line(text)
    assert "--" not in escaped


@given(TEXTS)
def test_markdown_without_its_escapes_is_the_text(text):
    escaped = markdown(text)
    without = re.sub(r"\\([!-/:-@\[-`{-~])", lambda match: f"&#{ord(match[1])};", escaped)
    assert html.unescape(without) == html.unescape(one_line(text).replace("&", "&amp;"))
    assert not re.search(r"(?<!\\)(?:\\\\)*\|", escaped)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_renderer_of_markdown_shows_the_text_in_its_cell(text):
    source = f"| a | b |\n| --- | --- |\n| {markdown(text)} | 1 |\n"
    page = python_markdown.markdown(source, extensions=["tables"])
    cells = re.findall(r"<td>(.*?)</td>", page, re.DOTALL)
    assert [html.unescape(cell) for cell in cells] == [one_line(text), "1"]


@given(TEXTS)
def test_a_field_of_csv_is_the_text_and_no_formula(text):
    file = io.StringIO()
    csv.writer(file).writerow([csv_text(text), "x"])
    (row,) = csv.reader(io.StringIO(file.getvalue()))
    assert row[0].removeprefix("'") == one_line(text).removeprefix("'")
    assert not row[0].startswith(("=", "+", "-", "@"))


@given(st.text())
def test_a_line_is_one_line_without_control_characters(text):
    line = one_line(text)
    assert len(line.splitlines()) <= 1
    assert not re.search("[\x00-\x1f\x7f]", line)
