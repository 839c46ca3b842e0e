"""The folder of an export: its files, the data card, and `export.json` as the last one."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stair_jax import __version__
from stair_jax.data.built_folder import check_free, write_bytes
from stair_jax.data.export.card import format_card
from stair_jax.data.export.formats import FORMATS, RECORDS, Row, Use
from stair_jax.data.export.found import Found, find_sources, read_records
from stair_jax.data.schema import LeftOut
from stair_jax.errors import UserError
from stair_jax.storage import (
    fingerprint_file,
    json_line,
    make_folder,
    read_json,
    write_json,
    write_text,
)

RECORD, CARD, INFO = "export.json", "README.md", "dataset_info.json"


@dataclass(frozen=True)
class Export:
    """What to export.

    Attributes:
      source: a file, a hub id, or the folder of a run.
      format: a name of `FORMATS`.
      use: the only use that is wanted; None: each that is there.
      licence: of the rows, an identifier of the hub; "": not stated.
    """

    source: str
    format: str
    use: Use | None = None
    licence: str = ""


def check_folder(out: Path) -> None:
    """Raises a UserError unless a folder is new, empty, or has an earlier export."""
    check_free(out, RECORD)


def write_export(asked: Export, out: Path) -> dict[str, Any]:
    """Writes the files of an export, and returns what `export.json` says of them.

    Raises:
      UserError: there is nothing to export, a row cannot be read, or the folder is another's.
    """
    check_folder(out)
    known = FORMATS[asked.format]
    if asked.use and asked.use not in known.rows:
        others = " or ".join(name for name in FORMATS if asked.use in FORMATS[name].rows)
        raise UserError(f"{asked.format} has no rows of {asked.use}: choose {others}")
    sources = find_sources(asked.source, tuple(known.rows), asked.use)
    read = {use: read_records(source, use) for use, source in sources.items()}
    made = {use: _rows(asked.format, use, found) for use, found in read.items()}
    make_folder(out)
    write_json(out / RECORD, {"files": {}})  # until all is written: so the folder stays known
    for name in (CARD, INFO, *(f"{use}.jsonl" for use in RECORDS)):
        (out / name).unlink(missing_ok=True)
    record: dict[str, Any] = {
        "format": asked.format,
        "name": out.resolve().name,
        "version": __version__,
        "licence": asked.licence,
        "files": {
            f"{use}.jsonl": _write(out, use, sources[use], read[use], *made[use]) for use in made
        },
    }
    if asked.format == "llama-factory":
        write_json(out / INFO, {use: _info(use) for use in made})
    write_text(out / CARD, format_card(record))
    write_json(out / RECORD, record)
    return record


def export_files(out: Path) -> list[str]:
    """The names of all files of an export."""
    names = [*read_json(out / RECORD)["files"], CARD, RECORD, INFO]
    return [name for name in names if (out / name).is_file()]


def _rows(name: str, use: Use, found: Found) -> tuple[list[Row], Counter[str]]:
    """The rows of a format, and how many records gave none, by reason."""
    make = FORMATS[name].rows[use]
    rows: list[Row] = []
    left_out = Counter(found.left_out)
    for record in found.records:
        try:
            rows += make(record)
        except LeftOut as reason:
            left_out[str(reason)] += 1
    if use == "prm":
        rows = _agreeing(rows, left_out)
    if not rows:
        raise UserError(f"no row is left for {use}: {dict(left_out)}")
    return rows, left_out


def _agreeing(rows: list[Row], left_out: Counter[str]) -> list[Row]:
    """Each path once, without those that one pair calls better and another one worse."""
    labels: dict[tuple[str, ...], list[bool]] = {}
    apart = set()
    for row in rows:
        key = (row["prompt"], *row["completions"])
        if labels.setdefault(key, row["labels"]) != row["labels"]:
            apart.add(key)
    left_out.update({"paths with contradictory labels": len(apart)} if apart else {})
    return [
        {"prompt": key[0], "completions": list(key[1:]), "labels": given}
        for key, given in labels.items()
        if key not in apart
    ]


def _write(
    out: Path, use: Use, source: str, found: Found, rows: list[Row], left_out: Counter[str]
) -> dict[str, Any]:
    written = write_bytes(out / f"{use}.jsonl", b"".join(map(json_line, rows)))
    path = Path(source).expanduser()
    return {
        "use": use,
        "rows": len(rows),
        "columns": list(rows[0]),
        **written,
        "source": path.name if path.exists() else source,
        "source_sha256": fingerprint_file(path) if path.is_file() else "",
        "about": found.about,
        "kinds": dict(sorted(found.kinds.items())),
        "left_out": dict(left_out),
    }


def _info(use: Use) -> dict[str, Any]:
    """What `dataset_info.json` of LLaMA-Factory says of a file."""
    columns = {"messages": "conversations"}
    if use == "dpo":
        columns |= {"chosen": "chosen", "rejected": "rejected"}
    file = {"file_name": f"{use}.jsonl", "formatting": "sharegpt", "ranking": use == "dpo"}
    return file | {"columns": columns}
