"""Tables within a Markdown file: each between two marks, with the command that makes it.

    <!-- table: NAME -->
    ...
    <!-- end of table: NAME -->

What stands between the marks is replaced as a whole, and can be compared with what the command
gives now: so every figure of a document can be traced to the answers that it is made of.
"""

import re
import shlex
from collections.abc import Sequence

from stair_jax.errors import UserError, did_you_mean

_START = re.compile(r"^<!-- table: (?P<name>[\w.+-]+) -->[ \t]*$", re.MULTILINE)
_FENCE = re.compile(r"^```bash\n(?P<command>stair-jax .*?)\n```$", re.MULTILINE | re.DOTALL)
_WIDTH = 96  # characters of a line of a command


def block_names(text: str) -> list[str]:
    """The names of all blocks of a document, in order."""
    return [match["name"] for match in _START.finditer(text)]


def read_block(text: str, name: str, where: str) -> str:
    """What stands in a block, without the marks.

    Args:
      text: of the document.
      name: of the block.
      where: the document, for messages.

    Raises:
      UserError: there is no such block, or there are two, or it has no end.
    """
    start, end = _bounds(text, name, where)
    return text[start:end]


def replace_block(text: str, name: str, body: str, where: str) -> str:
    """The document with another content of a block; see `read_block`."""
    start, end = _bounds(text, name, where)
    return text[:start] + body + text[end:]


def make_block(table: str, words: Sequence[str]) -> str:
    """The content of a block: a table, and the command below it.

    Args:
      table: in Markdown.
      words: of the command.
    """
    return f"\n{table.strip()}\n\n```bash\n{_wrapped(words)}\n```\n\n"


def command_of(body: str) -> list[str]:
    """The words of the command in a block; empty: there is none yet."""
    match = _FENCE.search(body)
    return shlex.split(match["command"].replace("\\\n", " ")) if match else []


def has_table(body: str) -> bool:
    """Whether a block holds a table already."""
    return any(line.startswith("|") for line in body.splitlines())


def _bounds(text: str, name: str, where: str) -> tuple[int, int]:
    names = block_names(text)
    if names.count(name) != 1:
        found = "comes twice" if name in names else f"is not there: {did_you_mean(name, names)}"
        raise UserError(f"{where}: the mark <!-- table: {name} --> {found}")
    start = next(match.end() + 1 for match in _START.finditer(text) if match["name"] == name)
    end = text.find(f"<!-- end of table: {name} -->", start)
    following = _START.search(text, start)
    if end < 0 or (following and following.start() < end):
        raise UserError(f"{where}: the table {name} has no <!-- end of table: {name} -->")
    return start, end


def _wrapped(words: Sequence[str]) -> str:
    """A command in lines that a shell joins."""
    lines = [""]
    for word in map(shlex.quote, words):
        if lines[-1] and len(lines[-1]) + len(word) > _WIDTH:
            lines.append("   ")
        lines[-1] = f"{lines[-1]} {word}" if lines[-1] else word
    return " \\\n".join(lines)
