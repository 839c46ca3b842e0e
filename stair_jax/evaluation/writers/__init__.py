"""A table as text: Markdown, LaTeX, CSV, JSON, and for the terminal."""

from pathlib import Path

from stair_jax.evaluation.table import Table
from stair_jax.evaluation.writers.csv_lines import csv_lines
from stair_jax.evaluation.writers.latex_table import latex_table
from stair_jax.evaluation.writers.markdown_table import markdown_table
from stair_jax.evaluation.writers.terminal_table import terminal_table
from stair_jax.storage import read_json, write_json, write_text

__all__ = [
    "csv_lines",
    "latex_table",
    "markdown_table",
    "read_table",
    "terminal_table",
    "write_table",
]


def write_table(table: Table, folder: Path) -> None:
    """Writes table.json, table.md, table.tex and table.csv into a folder.

    Raises:
      UserError: a file cannot be written.
    """
    write_json(folder / "table.json", table.to_dict())
    write_text(folder / "table.md", markdown_table(table))
    write_text(folder / "table.tex", latex_table(table))
    write_text(folder / "table.csv", csv_lines(table))


def read_table(path: Path) -> Table:
    """A table of its table.json.

    Raises:
      UserError: the file is missing, damaged, or of a newer version; names it.
    """
    return Table.from_dict(read_json(path))
