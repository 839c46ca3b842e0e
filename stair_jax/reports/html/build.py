"""Writes the report of one run, or of two, as one file."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from stair_jax.errors import UserError
from stair_jax.reports.html.contents import Contents, RunContents, read_contents
from stair_jax.reports.html.page import page, read_assets
from stair_jax.reports.html.parts import Packed, encode_text, pack, to_json
from stair_jax.reports.html.settings import ReportSettings
from stair_jax.storage import atomic_file

REPORT_FILE = "report.html"
_DEFAULTS = ReportSettings()
_MIB = 1 << 20


def write_report(
    folders: Sequence[Path], out: Path | None = None, settings: ReportSettings = _DEFAULTS
) -> Path:
    """Writes the report.

    Args:
      folders: of one run or two.
      out: the file; None: `report.html` in the folder of the first run.
      settings: what of the runs is in it.

    Returns:
      the file.

    Raises:
      UserError: there is no run, a record is damaged, or the file cannot be written.
    """
    contents = read_contents(folders)
    path = out or folders[0] / REPORT_FILE
    with atomic_file(path) as file:
        for text in page(read_assets(), _blocks(contents, settings), live=False):
            file.write(text.encode())
    return path


def check_out(path: Path) -> None:
    """Raises a UserError where a report cannot be written, before anything is read."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--out={path}: the report is HTML: name a file that ends with .html")
    if path.is_dir():
        raise UserError(f"--out={path}: there is a folder of that name")


def _blocks(contents: Contents, settings: ReportSettings) -> Iterator[tuple[str, str]]:
    """All blocks of a file, the head first."""
    packed = [_packed(run, settings) for run in contents.runs]
    notes = [
        note
        for run, parts in zip(contents.runs, packed, strict=True)
        for note in _notes(run, parts)
    ]
    yield "head", encode_text(to_json(contents.head(notes, live=False)))
    for name, make in contents.blocks().items():
        yield name, encode_text(to_json(make()))
    for number, (run, parts) in enumerate(zip(contents.runs, packed, strict=True)):
        for name, found in parts.items():
            block = run.parts[name].block(found.blocks, found.slots)
            yield f"{name}/{number}", encode_text(to_json(block))
            yield from ((f"{name}/{number}/{k}", text) for k, text in enumerate(found.texts))


def _packed(run: RunContents, settings: ReportSettings) -> dict[str, Packed]:
    size = int(settings.size * _MIB)
    return {name: pack(part, getattr(settings, name), size) for name, part in run.lists.items()}


def _notes(run: RunContents, packed: dict[str, Packed]) -> Iterator[str]:
    """What is left out of the file."""
    left_out = [
        f"{found.rows:,} of {len(run.parts[name]):,} {name}"
        for name, found in packed.items()
        if found.rows < len(run.parts[name])
    ]
    if left_out:
        yield (
            f"Of {run.name} the texts of {', '.join(left_out)} are in this file; "
            f"stair-jax view {run.records.folder} shows all."
        )
