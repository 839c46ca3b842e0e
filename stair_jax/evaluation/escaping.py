"""Text from outside, such as names of models and files, in Markdown, LaTeX and CSV.

Control characters, line breaks among them, become visible escapes first.
"""

import re

from stair_jax.text.terminal import printable

_BREAKS = str.maketrans({"\n": "\\n", "\t": "\\t"})

# Backslashes before these mean the same to all renderers; of the others, entities do.
_MARKDOWN = str.maketrans(
    {character: f"\\{character}" for character in "\\`*_{}[]|"}
    | {character: f"&#{ord(character)};" for character in "$~"}
    | {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
)

_LATEX = str.maketrans(
    {character: f"\\{character}" for character in "{}$&#_%"}
    | {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "`": r"\textasciigrave{}",
        "'": r"\textquotesingle{}",
        '"': r"\char34{}",
        # behind the \\ of a line, these would be its options
        "[": "{[}",
        "]": "{]}",
        "*": "{*}",
    }
)
_DASHES = re.compile("-(?=-)")  # two of them would become one longer dash

_FORMULA = ("=", "+", "-", "@")  # what spreadsheets take for the beginning of one


def one_line(text: str) -> str:
    r"""The text in one line, control characters as escapes such as `\n` and `\x1b`."""
    return printable(text.translate(_BREAKS))


def markdown(text: str) -> str:
    """The text as it is, in a cell of a Markdown table."""
    return one_line(text).translate(_MARKDOWN)


def latex(text: str) -> str:
    """The text as it is, in a cell of a LaTeX table.

    Characters beyond ASCII stay: XeLaTeX and LuaLaTeX know all of them, pdfLaTeX some.
    """
    return _DASHES.sub("-{}", one_line(text).translate(_LATEX))


def csv_text(text: str) -> str:
    """The text for a field of a CSV file, behind an apostrophe if it would be a formula.

    The quotes that commas need are the matter of the writer.
    """
    line = one_line(text)
    return f"'{line}" if line.startswith(_FORMULA) else line
