"""Rows that a source loses on the way into a run: told, written down, and limited in number."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stair_jax.data.schemas import Dropped
from stair_jax.data.text_files import Unreadable
from stair_jax.errors import UserError
from stair_jax.storage import write_jsonl

MAX_BAD_SHARE = 0.01  # of a source's rows, where nobody says another


class LeftOutRows:
    """The rows that are left out, of all sources."""

    def __init__(self, max_bad_share: float):
        """At most this share of a source's rows may be unreadable."""
        self._max_bad_share = max_bad_share
        self._rows: list[dict[str, Any]] = []

    def add(
        self,
        source: str,
        total: int,
        dropped: Sequence[Dropped],
        unreadable: Sequence[Unreadable],
    ) -> str:
        """Notes the rows of a source.

        Args:
          source: its name.
          total: rows that it has.
          dropped: those that are left out for what they say.
          unreadable: those that cannot be read.

        Returns:
          the reasons and how often each came, for the log; empty: nothing is left out.

        Raises:
          UserError: too many are unreadable; names the first.
        """
        if len(unreadable) > self._max_bad_share * total:
            place, reason = unreadable[0]
            raise UserError(
                f"{source}, {place}: {reason}; {len(unreadable)} of {total} rows cannot be read, "
                f"more than the share files.max_bad_share {self._max_bad_share:g}"
            )
        for place, reason in (*dropped, *unreadable):
            self._rows.append({"source": source, "place": place, "reason": reason})
        counts = Counter(reason for _, reason in dropped)
        if unreadable:
            place, reason = unreadable[0]
            counts[f"cannot be read, the first in {place}: {reason}"] = len(unreadable)
        reasons = ", ".join(f"{count} ({reason})" for reason, count in counts.most_common())
        return f"; left out: {reasons}" if reasons else ""

    def write(self, path: Path) -> None:
        """Writes them as JSON lines {source, place, reason}; no file if there are none."""
        if self._rows:
            write_jsonl(path, self._rows)
