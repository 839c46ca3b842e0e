"""Text of models and data is shown as it is, and is never read as markup."""

from html.parser import HTMLParser

import markdown
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stair_jax.reports.markup import folded, inline, number, table
from stair_jax.text.terminal import printable

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "![image](http://example.com/x.png)",
    "[link](javascript:alert(1))",
    "<http://example.com>",
    "see http://example.com or www.example.com or a@example.com",
    "ping @someone about #12",
    "| a | table | break |\n|---|---|---|",
    "</td></tr></table><h1>out</h1>",
    "</details></summary>",
    "text\n\n# a heading\n\n- a list\n\n    code",
    "```\nfence\n```",
    "&lt;b&gt; stays as it is &amp;amp;",
    "\x1b[31mred\x1b[0m \u202eright to left\u2066",
    "{{ macro }} {% raw %}",
    "[x]: http://example.com 'definition'",
    "'\" onmouseover=alert(1) x='",
    "\ud800 lone",
    "\r\n\r\nline \t tab",
]
TAGS = {"table", "tr", "td", "details", "summary", "br", "wbr"}


class Reader(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.text += "\n" if tag == "br" else ""

    def handle_data(self, data):
        self.text += data


def shown(text):
    """What a reader should see of a text."""
    plain = text.replace("\r\n", "\n").replace("\t", "    ").strip("\n")
    return printable(plain).replace(" ", "\N{NO-BREAK SPACE}")


def page_of(text):
    return table([[inline(text), folded("more", inline(text))]])


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_text_makes_no_element(text):
    block = page_of(text)
    assert "\n\n" not in block and "\r" not in block
    for page in (block, markdown.markdown(f"# Page\n\n{block}\n\nbehind")):
        read = Reader(page)
        assert set(read.tags) <= TAGS | {"h1", "p"}, page
        assert {name for name, _ in read.attributes} <= {"valign"}
        assert read.tags.count("td") == 2 and read.tags.count("h1") <= 1


@given(st.text(max_size=80) | st.text(alphabet="<>&|[]()!`*_@#:/w.\\\n \"'", max_size=40))
def test_any_text_is_read_back_as_it_is(text):
    read = Reader(f"<p>{inline(text)}</p>")
    assert set(read.tags) <= {"p", "br", "wbr"}
    assert read.text.replace(" ", "\N{NO-BREAK SPACE}") == shown(text)


@given(st.text(alphabet="@#:/w.a1hB ", max_size=40))
def test_no_name_number_or_address_is_whole(text):
    """So that hosts of pages find nothing of which they make links."""
    for piece in inline(text).replace("&#64;", "@").replace("&#35;", "#").split("<wbr>"):
        plain = piece.replace("&#58;", ":")
        assert "@" not in plain[:-1] and "#" not in plain[:-1]
        assert "://" not in plain and "www." not in plain.lower()


def test_a_long_text_keeps_its_start_and_end():
    text = inline("a" * 300 + "z" * 300, 90)
    assert text.startswith("a" * 60) and text.endswith("z" * 30)
    assert "510 characters" in text


def test_numbers_are_short_and_missing_ones_are_dashes():
    assert [number(None), number(1.0), number(0.12345)] == ["-", "1", "0.123"]
