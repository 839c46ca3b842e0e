"""The data card of an export: `README.md`, with the front matter that the hub reads."""

from collections.abc import Mapping
from typing import Any

from stair_jax.data.export.formats import FORMATS

_NOTES = {
    "sft": "An answer is one message, reasoning and tags with it.",
    "dpo": "A side is the whole text from the prompt on. Where a pair compares two next steps, "
    "both begin with the same steps before it, which cancel in the loss of DPO, but not in losses "
    "that divide by the length. Trainers put an end of turn behind each side, also behind a step "
    "that does not end its answer.",
    "prm": "Each pair gives both of its paths. A step is labelled true on the better path, and on "
    "the other one as far as it shares the better one's steps; a path with contradictory labels "
    "is left out.",
}


def format_card(record: Mapping[str, Any]) -> str:
    """The card in Markdown, from what `export.json` says."""
    known = FORMATS[record["format"]]
    title = f"# {record['name']}"
    what = (
        f"Made by `stair-jax data export --format={record['format']}`, stair_jax "
        f"{record['version']}: {known.about}."
    )
    parts = [_front_matter(record), title, what, _files(record), *_sections(record), _use(record)]
    return "\n\n".join(parts) + "\n"


def _front_matter(record: Mapping[str, Any]) -> str:
    lines = ["---"]
    if record["licence"]:
        lines.append(f"license: {record['licence']}")
    lines.append("configs:")
    for file in record["files"]:
        lines += [f"- config_name: {file.partition('.')[0]}", f"  data_files: {file}"]
    return "\n".join([*lines, "---"])


def _files(record: Mapping[str, Any]) -> str:
    lines = ["## Files", "", "| file | rows | columns | from | sha256 of it |"]
    lines.append("| --- | --- | --- | --- | --- |")
    for file, one in record["files"].items():
        columns = ", ".join(f"`{column}`" for column in one["columns"])
        source = f"`{one['source']}`, {one['about']}"
        cells = (f"`{file}`", one["rows"], columns, source, f"`{one['source_sha256'][:12]}`")
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def _sections(record: Mapping[str, Any]) -> list[str]:
    """What each file's rows are, what was left out, and how they are loaded."""
    sections = []
    for file, one in record["files"].items():
        use = one["use"]
        loading = FORMATS[record["format"]].loading[use].format(file=file, name=use)
        lines = [f"## {file}", "", _NOTES[use], ""]
        if one["kinds"]:
            shown = ", ".join(f"{count} {kind}" for kind, count in one["kinds"].items())
            lines += [f"Rows of the source by kind: {shown}.", ""]
        lines += ["Left out: " + (_counts(one["left_out"]) or "nothing") + ".", ""]
        sections.append("\n".join([*lines, "```", loading, "```"]))
    return sections


def _counts(left_out: Mapping[str, int]) -> str:
    return "; ".join(f"{count} ({reason})" for reason, count in left_out.items())


def _use(record: Mapping[str, Any]) -> str:
    licence = record["licence"] or "not stated here: each row keeps that of its source"
    return (
        "## Use\n\n"
        f"Licence: {licence}. The rows may hold requests for harm, offensive text and answers of "
        "models; they are made to train and to study safety, and are no advice."
    )
