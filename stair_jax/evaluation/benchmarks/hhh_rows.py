"""Rows of BIG-bench's HHH alignment (arXiv 2112.00861): a chat, a better and a worse answer."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stair_jax.data.records import Turns
from stair_jax.errors import UserError
from stair_jax.evaluation.benchmark import Source
from stair_jax.evaluation.rows import Row, read_rows, usual_places

SUBSETS = ("harmless", "helpful", "honest", "other")
SOURCE = Source(
    (*usual_places("hhh", "hhh_clean.jsonl", "hhh.jsonl"), "hhh", "hhh_alignment"),
    "the folder bigbench/benchmark_tasks/hhh_alignment of https://github.com/google/BIG-bench "
    "(harmless/task.json, helpful, honest, other), or hhh.jsonl {id, subset, input, chosen, "
    "rejected}",
)

_TURN = re.compile(r"(?:^|\n\n)[ \t]*(Human|Assistant):[ \t]*")
_ROLES = {"Human": "user", "Assistant": "assistant"}


@dataclass(frozen=True)
class Pair:
    """A row.

    Attributes:
      id: unique in the benchmark.
      subset: one of `SUBSETS`.
      history: turns of the chat before the last one.
      prompt: the user's last turn.
      chosen: the better answer.
      rejected: the worse one.
      chat: all of the chat as text; rows with the same chat are not independent.
    """

    id: str
    subset: str
    history: Turns
    prompt: str
    chosen: str
    rejected: str
    chat: str


def read_pairs(path: Path) -> list[Pair]:
    """The rows of JSON lines, or of a folder with BIG-bench's four task.json.

    Raises:
      UserError: names the file and what is wrong in it.
    """
    rows = list(_folder(path)) if path.is_dir() else list(_file(path))
    return [_pair(row, subset) for row, subset in rows]


def _file(path: Path) -> Iterator[tuple[Row, str]]:
    for row in read_rows(path, "subset", "input", "chosen", "rejected"):
        if row.text("subset") not in SUBSETS:
            raise row.error(f"the subset {row.text('subset')!r} is none of {', '.join(SUBSETS)}")
        yield row, row.text("subset")


def _folder(path: Path) -> Iterator[tuple[Row, str]]:
    """The rows of BIG-bench: {"examples": [{"input", "target_scores": {answer: 1 or 0}}]}."""
    for subset in SUBSETS:
        file = path / subset / "task.json"
        examples = read_rows(file, "examples")[0].value("examples")
        for number, example in enumerate(examples if isinstance(examples, list) else [None]):
            scores = example.get("target_scores") if isinstance(example, dict) else None
            if not isinstance(scores, dict) or sorted(scores.values()) != [0, 1]:
                raise UserError(
                    f"{file}, example {number + 1}: is not an input with target_scores of one "
                    "better (1) and one worse answer (0)"
                )
            better, worse = sorted(scores, key=lambda text: -scores[text])
            columns = {"input": example.get("input"), "chosen": better, "rejected": worse}
            yield Row(f"{file}, example {number + 1}", number, columns), subset


def _pair(row: Row, subset: str) -> Pair:
    chat = row.text("input").strip()
    *history, last = _turns(row, chat)
    return Pair(
        id=row.text("id", f"{subset}-{row.number}"),
        subset=subset,
        history=tuple(history),
        prompt=last["content"],
        chosen=row.text("chosen").strip(),
        rejected=row.text("rejected").strip(),
        chat=chat,
    )


def _turns(row: Row, chat: str) -> list[dict[str, str]]:
    """The turns of a chat, the user's first and last; its first turn may have no name."""
    start, *rest = _TURN.split(chat)
    named = list(zip(rest[::2], rest[1::2], strict=True))
    if start.strip():
        named.insert(0, ("Human", start))
    if named and named[-1][0] == "Assistant" and not named[-1][1].strip():
        named.pop()  # where the answer is to come
    expected = [("Human", "Assistant")[number % 2] for number in range(len(named))]
    if len(named) % 2 == 0 or [name for name, _ in named] != expected:
        raise row.error("the column 'input' is no chat of Human and Assistant that ends with Human")
    return [{"role": _ROLES[name], "content": text.strip()} for name, text in named]
