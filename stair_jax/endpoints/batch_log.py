"""Batches that were begun, on the disk: a restart finds what it sent, and waits for it."""

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from stair_jax.endpoints.chat import Usage
from stair_jax.errors import UserError
from stair_jax.record_log import RecordLog

_SCHEMA = 1


@dataclass(frozen=True)
class Batch:
    """Requests that were sent together, or are about to be.

    Attributes:
      most: for each request, by its identity, the tokens that it can use at most.
      key: identifies it at the endpoint before its id is known.
      seconds: when it was begun, since 1970.
      id: that the endpoint has given it; "": not known.
    """

    most: Mapping[str, Usage]
    key: str = field(default_factory=lambda: secrets.token_hex(16))
    seconds: int = field(default_factory=lambda: int(time.time()))
    id: str = ""


class BatchLog:
    """The batches of a ledger, beside it.

    A batch is written down before it is sent, again with its id, and once more when its replies are
    in the ledger.

    Attributes:
      open: those whose replies are not all in the ledger, by their keys.
    """

    def __init__(self, ledger: Path):
        """Reads the batches of the ledger of this path; there need not be any.

        Raises:
          UserError: the file cannot be read, is damaged, or is of another kind or version.
        """
        self.path = ledger.with_name(f"{ledger.name.partition('.')[0]}_batches.jsonl.gz")
        self._log = RecordLog(self.path)
        self.open: dict[str, Batch] = {}
        for record in self._log:
            try:
                self._take(record)
            except (KeyError, TypeError, ValueError) as error:
                raise UserError(
                    f"{self.path} is no file of batches that this version reads: move it away, and "
                    "what is under way at the endpoint is asked and paid again"
                ) from error

    def begin(self, batch: Batch) -> None:
        """A batch is about to be sent."""
        requests = [[id, most.input_tokens, most.output_tokens] for id, most in batch.most.items()]
        self._write({"begun": batch.key, "seconds": batch.seconds, "requests": requests})

    def name(self, batch: Batch, id: str) -> Batch:
        """The endpoint has made it; returns it with its id there."""
        self._write({"made": batch.key, "id": id})
        return self.open[batch.key]

    def end(self, batch: Batch, status: str) -> None:
        """Nothing of it is waited for any more."""
        self._write({"ended": batch.key, "status": status})

    def _write(self, record: Mapping[str, Any]) -> None:
        record = {"schema": _SCHEMA, **record}
        self._log.append(record)
        self._take(record)

    def _take(self, record: Mapping[str, Any]) -> None:
        if record["schema"] != _SCHEMA:
            raise ValueError(record["schema"])
        if "begun" in record:
            key = str(record["begun"])
            most = {str(id): Usage(int(i), int(o)) for id, i, o in record["requests"]}
            self.open[key] = Batch(most, key, int(record["seconds"]))
        elif "made" in record:
            key = str(record["made"])
            self.open[key] = replace(self.open[key], id=str(record["id"]))
        else:
            self.open.pop(str(record["ended"]), None)
