"""The replies that were paid for, on the disk: a record log with an index by identity."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stair_jax.endpoints.chat import Usage
from stair_jax.endpoints.replies import Reply
from stair_jax.errors import UserError
from stair_jax.record_log import RecordLog

_SCHEMA = 1
_TOLD = ("model", "date")  # of a reply, where they are known


class Ledger:
    """What an endpoint answered, by the identity of the call.

    A record is a reply, or a call that was lost: it may have been paid, and no reply came. Replies
    stay on the disk and are read when they are asked for; only their places are in memory.

    Attributes:
      calls: records of either kind.
      cost: money for all of them.
      usage: tokens of the replies.
      lost: calls that were lost.
      finishes: replies by how they ended, see `ChatCompletion`.
    """

    def __init__(self, path: str | Path):
        """Opens a ledger, which need not exist.

        Raises:
          UserError: the file cannot be read, is damaged, or is of another kind or version.
        """
        self._log = RecordLog(path)
        self._places: dict[str, tuple[int, int]] = {}  # first byte, and the one after the last
        self.calls, self.cost, self.lost, self.usage = 0, 0.0, 0, Usage()
        self.finishes: Counter[str] = Counter()
        begin = 0
        for record, end in self._log.members():
            try:
                self._count(record, (begin, end))
            except (KeyError, TypeError, ValueError) as error:
                raise UserError(
                    f"{path} is no file of replies that this version reads: move it away, and all "
                    "is asked again"
                ) from error
            begin = end

    def __contains__(self, identity: str) -> bool:
        """Whether the reply of a call is here."""
        return identity in self._places

    def __len__(self) -> int:
        """Number of replies."""
        return len(self._places)

    def get(self, identity: str) -> tuple[Reply, float]:
        """The reply of a call and what it cost.

        Raises:
          UserError: the file cannot be read, or was changed since it was opened.
        """
        record = self._log.at(*self._places[identity])
        return _reply(record), float(record["cost"])

    def append(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Writes records of `reply_record` and `lost_record`, and waits until they are on the disk.

        Raises:
          UserError: they cannot be written; the file is then as before.
        """
        places = self._log.extend(records)
        for record, place in zip(records, places, strict=True):
            self._count(record, place)

    def _count(self, record: Mapping[str, Any], place: tuple[int, int]) -> None:
        if record["schema"] != _SCHEMA:
            raise ValueError(record["schema"])
        self.calls += 1
        self.cost += float(record["cost"])
        if "lost" in record:
            self.lost += 1
            return
        self._places[str(record["id"])] = place
        self.finishes[str(record["finish"])] += 1
        self.usage = Usage(
            self.usage.input_tokens + int(record["input_tokens"]),
            self.usage.output_tokens + int(record["output_tokens"]),
        )


def reply_record(identity: str, reply: Reply, usage: Usage, cost: float) -> dict[str, Any]:
    """The record of a reply; `usage` as told or estimated."""
    record: dict[str, Any] = {
        "schema": _SCHEMA,
        "id": identity,
        "text": reply.text,
        "finish": reply.finish,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cost": cost,
    }
    if reply.reasoning:
        record["reasoning"] = reply.reasoning
    record |= {name: value for name in _TOLD if (value := getattr(reply, name))}
    if reply.top_logprobs:
        record["top_logprobs"] = [list(place.items()) for place in reply.top_logprobs]
    return record


def lost_record(identity: str, why: str, cost: float) -> dict[str, Any]:
    """The record of a call whose reply never came, though it may have been paid."""
    return {"schema": _SCHEMA, "lost": identity, "why": why, "cost": cost}


def _reply(record: Mapping[str, Any]) -> Reply:
    return Reply(
        record["text"],
        record["finish"],
        Usage(record["input_tokens"], record["output_tokens"]),
        record.get("reasoning", ""),
        tuple(_alternatives(place) for place in record.get("top_logprobs", ())),
        record.get("model", ""),
        record.get("date", ""),
    )


def _alternatives(place: Iterable[Sequence[Any]]) -> dict[str, float]:
    return {str(token): float(logp) for token, logp in place}
