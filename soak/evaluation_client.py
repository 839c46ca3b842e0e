"""The process that `soak/evaluations.py` kills: `stair-jax evaluate`, which notes what it does.

python -m soak.evaluation_client LOG FLAGS...

A line of the log is [what, key]: "asked" and "answered" a case, "judged" an answer, "joined" the
records of a file, "report": all is there but the table.
"""

import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from stair_jax import launch
from stair_jax.evaluation import asking, runner, shards
from stair_jax.evaluation.judges import rules
from stair_jax.stages import evaluate_parts

Note = Callable[[str, str], None]


def main(arguments: Sequence[str]) -> int:
    """Evaluates; returns the exit status."""
    log, *flags = arguments
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(what: str, key: str) -> None:
        os.write(descriptor, json.dumps([what, key]).encode() + b"\n")

    _note_answers(note)
    _note_before(rules.RuleJudge, "task", lambda self, question, material, key: key, "judged", note)
    _note_before(shards.Shards, "finish", lambda self: self.path.name, "joined", note)
    _note_before(evaluate_parts, "write_report", lambda *arguments: "", "report", note)
    return launch.main(["stair-jax", "evaluate", *flags])


def _note_answers(note: Note) -> None:
    """Notes when a case is asked, and when its last answer is there."""
    task = asking.AskTask
    _note_before(task, "start", _key, "asked", note)
    for name in ("start", "receive"):
        before = getattr(task, name)

        def noting(self: Any, *arguments: Any, before: Any = before) -> Any:
            found = before(self, *arguments)
            if self.done:
                note("answered", _key(self))
            return found

        setattr(task, name, noting)


def _key(task: Any) -> str:
    return runner.key_of(*task._ask.key)


def _note_before(owner: Any, name: str, key: Callable[..., str], what: str, note: Note) -> None:
    before = getattr(owner, name)

    def noting(*arguments: Any) -> Any:
        note(what, key(*arguments))
        return before(*arguments)

    setattr(owner, name, noting)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
