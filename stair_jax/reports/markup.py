"""Text of models and data sets on a page that is read as Markdown and as HTML.

All such text stands in HTML blocks without blank lines, which Markdown leaves alone, and the
characters that mean something to either are entities. So no link, image, element or cell of a table
comes from it, wherever the page is shown; neither do the links that hosts of pages make afterwards
of addresses, `@names` and `#numbers`: an empty element stands in these.
"""

import re
from collections.abc import Iterable, Sequence

from stair_jax.samples import shorten
from stair_jax.text.terminal import printable

_ENTITIES = str.maketrans(
    {character: f"&#{ord(character)};" for character in "\"'`\\*_{}[]()|~$!^=:@#"}
    | {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
)
_TAB = "    "
_MOST_NAME = 200  # characters
# Behind each of these stands a <wbr>, an element without any width.
_LINKED = re.compile(r"([@#]|:(?=\S)|\bwww(?=\.))", re.IGNORECASE)
_INDENT = re.compile(r"(?m)^ +| {2,}")


def inline(text: str, most: int = 0) -> str:
    """A text in one line of HTML, its line breaks as `<br>`.

    Args:
      text: of anyone.
      most: characters; a longer one keeps its start and end; 0: all of it.
    """
    plain = text.replace("\r\n", "\n").replace("\t", _TAB).strip("\n")
    plain = printable(shorten(plain, most) if most else plain)
    spaced = _INDENT.sub(lambda found: "\N{NO-BREAK SPACE}" * len(found.group()), plain)
    found = [
        part.translate(_ENTITIES) + ("<wbr>" if place % 2 else "")
        for place, part in enumerate(_LINKED.split(spaced))
    ]
    return "".join(found).replace("\n", "<br>")


def folded(summary: str, body: str) -> str:
    """What is shown when the reader opens it.

    Args:
      summary: HTML, always shown.
      body: HTML.
    """
    return f"<details><summary>{summary}</summary>{body}</details>"


def table(rows: Iterable[Sequence[str]], header: Sequence[str] = ()) -> str:
    """An HTML table.

    Args:
      rows: of cells, which are HTML of one line each.
      header: cells of the first row; none: there is no such row.
    """
    lines = ["<table>"]
    if header:
        lines.append(_row(header, "th"))
    return "\n".join([*lines, *(_row(row, "td") for row in rows), "</table>"])


def _row(cells: Sequence[str], tag: str) -> str:
    return "<tr>" + "".join(f'<{tag} valign="top">{cell}</{tag}>' for cell in cells) + "</tr>"


def turns(told: Iterable[tuple[str, str]], most: int) -> str:
    """Turns of a chat, one a line, as HTML.

    Args:
      told: (role, text) of each.
      most: characters of a text at most.
    """
    return "<br>".join(f"<b>{name(role)}:</b> {inline(text, most)}" for role, text in told)


def name(text: str) -> str:
    """A short text, such as an id, in one line."""
    return inline(text.replace("\n", " "), _MOST_NAME)


def number(value: float | None) -> str:
    """A figure with up to three digits behind the point; a dash where there is none."""
    return "-" if value is None else f"{value:.3g}"
