"""Texts of models and data sets stay texts wherever they are shown."""

import markdown
import pytest

from stair_jax.samples import Sample, shorten

HOSTILE = [
    "<script>alert(1)</script>",
    "a\n\n# heading\n\n[click](javascript:alert(1)) ![x](http://a.b/c.png) **bold**",
    "a\n```\n<b>x</b>\n```\n~~~\n<i>y</i>",
    "</code></pre><img src=x onerror=alert(1)>",
    "\n\n<div markdown='1'>\n\n*x*\n\n</div>",
    "a\r<b>b</b>\u2028<i>c</i>\x0b<u>d</u>\x85<s>e</s>\x0c<q>f</q>",
    "\t<b>tab</b>\n \t<b>mixed</b>",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_markdown_in_a_sample_is_not_rendered(text):
    """TensorBoard renders with this package and these extensions."""
    sample = Sample("pair", {"prompt": text, "chosen_answer": "fine"}, {"margin": 0.25})
    page = markdown.markdown(
        sample.to_markdown(),
        extensions=["markdown.extensions.tables", "markdown.extensions.fenced_code"],
    )
    tags = {piece.partition(">")[0].strip("/") for piece in page.split("<")[1:]}
    assert tags <= {"p", "strong", "pre", "code"}
    assert page.count("<pre>") == 2
    assert "<strong>chosen answer</strong>" in page and "0.25" in page


@pytest.mark.parametrize("text", HOSTILE)
def test_html_in_a_sample_is_escaped(text):
    page = Sample("answer", {"<b>": text}).to_html()
    tags = {piece.partition(">")[0].strip("/").split()[0] for piece in page.split("<")[1:]}
    assert tags == {"b", "pre"}


def test_a_line_of_the_log_is_one_line_without_control_characters():
    line = Sample("answer", {"text": "a\nb\x1b[31m\u202e\x07\r"}, {"value": None}).to_line()
    assert line == r"answer: text 'a\nb\x1b[31m\u202e\x07\r'; value none"


def test_long_texts_are_cut_in_their_middle():
    text = "start " + "x" * 100_000 + " end"
    cut = shorten(text, 60)
    assert cut.startswith("start xxx") and cut.endswith("xxx end")
    assert f"[... {len(text) - 60} characters ...]" in cut
    assert shorten("x" * 60, 60) == "x" * 60
    assert len(Sample("answer", {"text": text}).to_dict()["text"]) < 20_100
    assert len(Sample("answer", {"text": text}).to_markdown()) < 20_200
    assert len(Sample("answer", {"text": text}).to_line()) < 400
