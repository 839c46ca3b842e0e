"""The data card of a split: `README.md`."""

from collections.abc import Mapping
from typing import Any


def format_card(record: Mapping[str, Any]) -> str:
    """The card in Markdown, from what `data.json` says."""
    return "\n\n".join(
        (
            "# Prompts of a run: SFT and iterations",
            "Made by `stair-jax data split`; `data.json` has the sizes, the sources with their "
            "hashes, and the counts; `left_out.jsonl` has each prompt that repeats another one.",
            _files(record),
            _rules(record),
            _sources(record),
            _held_out(record),
            _left_out(record),
            "## Use\n\nEach row keeps the licence of the data set that its `source` names. Prompts "
            "of safety ask for harm: they are to train refusals on and to measure them.\n",
        )
    )


def _files(record: Mapping[str, Any]) -> str:
    lines = ["## Files", "", "| file | safety | helpfulness |", "| --- | --- | --- |"]
    for name, kinds in record["rows"].items():
        counts = " | ".join(str(kinds.get(kind, 0)) for kind in ("safety", "helpfulness"))
        lines.append(f"| `{name}.jsonl` | {counts} |")
    if jailbreaks := record["sizes"]["jailbreaks"]:
        lines += ["", f"Of safety, jailbreaks by iteration: {', '.join(map(str, jailbreaks))}."]
    return "\n".join(lines)


def _rules(record: Mapping[str, Any]) -> str:
    limits = record["thresholds"]
    near = " Prompts that nearly repeat another one are left out; jailbreaks are not compared so."
    near = near if record["drop_near"] else ""
    return (
        "## Rules\n\n"
        f"- Orders are by sha256 of seed {record['seed']} and id, so that more iterations leave "
        "the first ones as they are.\n"
        f"- No normalised text of a prompt is in two files, or twice in one.{near}\n"
        "- A prompt is left out if it, or the goal inside of it, equals a held-out prompt, if the "
        f"Jaccard similarity of their content words is {limits['jaccard']:g} or more (with "
        f"{limits['min_words']} words at least), or if it has {limits['containment']:.0%} of the "
        f"content words of one that has {limits['min_contained']} at least."
    )


def _sources(record: Mapping[str, Any]) -> str:
    lines = ["## Sources", "", "| source | format | rows | read | sha256 |"]
    lines.append("| --- | --- | --- | --- | --- |")
    for name, one in record["sources"].items():
        cells = (_cell(name), _cell(one["format"]), one["rows"], one["read"], one["sha256"][:12])
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def _held_out(record: Mapping[str, Any]) -> str:
    if not record["held_out"]:
        return "## Held out\n\nNothing was held out (`--against`): say so beside any figure."
    lines = ["## Held out", "", "| file | prompts |", "| --- | --- |"]
    lines += [f"| {_cell(name)} | {count} |" for name, count in record["held_out"].items()]
    if record["not_compared"]:
        names = ", ".join(map(_cell, record["not_compared"]))
        lines += ["", f"Without prompts, and so not compared: {names}."]
    return "\n".join(lines)


def _left_out(record: Mapping[str, Any]) -> str:
    lines = ["## Rows", "", "| part | rows | |", "| --- | --- | --- |"]
    for part, counts in record["counts"].items():
        lines += [f"| {part} | {count} | {_cell(what)} |" for what, count in counts.items()]
    return "\n".join(lines)


def _cell(text: str) -> str:
    """A text as a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
