"""The study's pages: each table made of the runs that are there."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

from stair_jax import storage
from stair_jax.errors import UserError
from stair_jax.evaluation import blocks
from stair_jax.monitoring import say
from stair_jax.recipes.study.tables import PAGES, Block

_NOT_YET = "Not run yet"


def page_files(into: str | None, workdir: Path) -> dict[str, Path]:
    """The file of each page that is to be made.

    Args:
      into: a file `PAGE.md`, or the folder of all pages; None: the folder of the study.
      workdir: folder of the study.

    Raises:
      UserError: a file has not the name of a page.
    """
    if into is None or not into.endswith(".md"):
        return {page: Path(into or workdir) / f"{page}.md" for page in PAGES}
    path = Path(into)
    if path.stem not in PAGES:
        names = " or ".join(f"{page}.md" for page in PAGES)
        raise UserError(f"--into={into}: the file has to be named {names}, or be a folder")
    return {path.stem: path}


def make_tables(pages: Mapping[str, Path], workdir: Path) -> None:
    """Makes the tables of some pages; those whose runs are missing say why.

    A table that is in a page already stays where it cannot be made anew.

    Args:
      pages: as `page_files` gives them.
      workdir: folder of the study.

    Raises:
      UserError: a page cannot be read or written, or its marks are wrong.
    """
    for page, path in pages.items():
        before = storage.read_text(path) if path.exists() else ""
        text = before or _empty_page(PAGES[page])
        names = blocks.block_names(text)
        made = 0
        for block in PAGES[page]:
            if block.name not in names:
                continue
            try:
                body = _body(block, path, workdir)
                made += 1
            except UserError as error:
                if blocks.has_table(blocks.read_block(text, block.name, str(path))):
                    say(f"{path}: the table {block.name} stays as it is: {error}")
                    continue
                body = f"\n{_NOT_YET}: {error}\n\n"
            text = blocks.replace_block(text, block.name, body, str(path))
        if text != before:
            storage.write_text(path, text)
        say(f"{path}: {made} of {len(names)} tables are made of the runs that are there")


def _body(block: Block, path: Path, workdir: Path) -> str:
    """A table with its command.

    Raises:
      UserError: there are no answers for it.
    """
    # These read answers, and take seconds to import.
    from stair_jax.commands.table import make_body
    from stair_jax.run.evaluated_runs import has_evaluation

    folders = [
        folder for pattern in block.runs for folder in sorted(workdir.glob(pattern), key=_natural)
    ]
    found = [str(folder) for folder in folders if has_evaluation(folder, block.stage)]
    if not found:
        where = ", ".join(block.runs)
        raise UserError(f"no run of {where} in {workdir} has finished its stage {block.stage}")
    block = replace(block, rows=_rows_of(block, found))
    # Rows are named RUN/ROW only where one of the runs has several that its name does not tell.
    reasons = []
    for against in dict.fromkeys((block.against, block.against.partition("/")[0], "")):
        try:
            body = make_body(_words(replace(block, against=against), found, path))
        except UserError as error:
            reasons.append(error)
            continue
        if block.against and not against:
            say(f"{path}: the table {block.name} has no differences: {reasons[0]}")
        return body
    raise reasons[0]


def _rows_of(block: Block, runs: Sequence[str]) -> tuple[str, ...]:
    """Of the patterns of its rows, those of which there are some: a run's own row has its name.

    Raises:
      UserError: there are none.
    """
    names = [Path(run).name for run in runs]
    rows = tuple(
        row for row in block.rows if "/" in row or any(fnmatchcase(name, row) for name in names)
    )
    if block.rows and not rows:
        raise UserError(f"no run whose row is {' or '.join(block.rows)} has finished")
    return rows


def _words(block: Block, runs: Sequence[str], path: Path) -> list[str]:
    """The command of a table."""
    flags = {
        "stage": block.stage,
        "rows": ",".join(block.rows),
        "columns": ",".join(block.columns),
        "against": block.against,
        "into": str(path),
        "block": block.name,
    }
    words = [f"--{name}={value}" for name, value in flags.items() if value]
    return ["stair-jax", "table", *runs, *words]


def _natural(path: Path) -> tuple[int, str]:
    """Order of paths in which seed 10 is behind seed 9."""
    return len(str(path)), str(path)


def _empty_page(page: Sequence[Block]) -> str:
    """A page with a section for each table."""
    lines = ["# Tables of the study", ""]
    for block in page:
        lines += [f"## {block.title}", "", f"<!-- table: {block.name} -->", ""]
        lines += [f"<!-- end of table: {block.name} -->", ""]
    return "\n".join(lines)
