"""The report of a file as text for a terminal: what is from the file is escaped and shortened."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from stair_jax.data.file_report import FileReport, Overlaps, Repeats, Use
from stair_jax.text.terminal import printable

_MOST = 160  # characters of a text
_LISTED = 8  # sources, columns or files that are named
_PAD = 10


def format_report(report: FileReport) -> str:
    """The report in lines."""
    size = "" if report.bytes is None else f", {report.bytes:,} bytes"
    lines = [f"{shown(report.source)}: {report.form}, {report.rows:,} rows{size}"]
    if report.sha256:
        lines.append(_line("sha256", report.sha256))
    columns = (f"{shown(name)} ({_types(types)})" for name, types in report.columns.items())
    lines.append(_line("columns", _some(list(columns))))
    lines += [_line(f"as {name}", _use(use)) for name, use in report.uses.items()]
    if report.kinds:
        lines.append(_line("kinds", _counts(report.kinds)))
        lines.append(_line("sources", _counts(report.sources)))
    if report.structured is not None:
        lines.append(
            _line("answers", f"{report.structured:,} structured (reasoning steps, final answer)")
        )
    lines += _lengths(report)
    if report.repeats:
        lines += _repeats(report.repeats)
    if report.overlaps:
        lines += _overlaps(report.overlaps)
    for row in report.examples:
        lines += ["  row", *_row(row)]
    return "\n".join(lines)


def shown(value: Any) -> str:
    """A value in one line that is safe on a terminal, shortened."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = printable(" ".join(text[: 4 * _MOST].split()))
    return text if len(text) <= _MOST else f"{text[: _MOST - 1]}…"


def _line(title: str, text: str) -> str:
    return f"  {title:<{_PAD}}  {text}"


def _types(types: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in types.items())


def _some(words: Sequence[str], listed: int = _LISTED) -> str:
    more = f", and {len(words) - listed} more" if len(words) > listed else ""
    return ", ".join(words[:listed]) + more


def _counts(counts: Mapping[str, int]) -> str:
    return _some([f"{shown(name)} {count:,}" for name, count in counts.items()])


def _use(use: Use) -> str:
    parts = [f"{use.rows:,} rows ({use.format})"]
    parts += [f"{count:,} left out: {shown(reason)}" for reason, count in use.left_out.items()]
    if use.unreadable:
        parts.append(f"{use.unreadable:,} cannot be read, the first in {shown(use.first)}")
    parts += [f"{count:,} {shown(note)}" for note, count in use.notes.items()]
    if use.rows and use.is_refused:
        parts.append("refused: too many cannot be read (files.max_bad_share)")
    return "; ".join(parts)


def _lengths(report: FileReport) -> Iterator[str]:
    if not report.lengths:
        return
    yield _line("tokens", f"{report.tokens}; without the chat template")
    for name, one in report.lengths.items():
        yield _line(
            f"  {name}",
            f"{one.least:,} to {one.most:,}, median {one.median:,.0f}, mean {one.mean:,.1f}, "
            f"95 % have at most {one.most_of_95:,.0f}, {one.total:,} in all",
        )


def _repeats(found: Repeats) -> Iterator[str]:
    yield _line(
        "repeats",
        f"{found.rows:,} rows are the same as one before; of the prompts that are taken, "
        f"{found.equal:,} have the words of an earlier one, {found.near:,} nearly those",
    )
    for one in found.examples:
        yield from _alike(one["place"], one["text"], one["first_place"], one["first_text"])


def _overlaps(found: Overlaps) -> Iterator[str]:
    compared = f"{sum(found.compared.values()):,} held-out prompts of {len(found.compared)} files"
    yield _line("overlaps", f"{found.prompts:,} prompts repeat one of {compared}")
    for name, counts in found.by_file.items():
        yield _line("", f"{shown(name)}: {_types(counts)}")
    for one in found.examples:
        yield from _alike(one["place"], one["text"], shown(one["file"]), one["like"])
    if found.without:
        yield _line("", f"without prompts: {_some(list(map(shown, found.without)))}")


def _alike(place: str, text: str, other_place: str, other: str) -> Iterable[str]:
    return _line("", f"{place}: {shown(text)}"), _line("", f"  {other_place}: {shown(other)}")


def _row(row: Mapping[str, Any]) -> Iterator[str]:
    names = list(row)
    for name in names[:_LISTED]:
        yield f"    {shown(name)}: {shown(row[name])}"
    if len(names) > _LISTED:
        yield f"    and {len(names) - _LISTED} more columns"
