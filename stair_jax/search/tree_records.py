"""Records of finished search trees: dataclasses and JSON (`released_files.py`: another form)."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

from stair_jax.data.records import SCHEMA_COLUMN, Texts, Turns, check_schema
from stair_jax.errors import UserError
from stair_jax.record_log import RecordLog, write_records
from stair_jax.text import starts

Judgements = list[dict[str, Any]]


@dataclass(frozen=True)
class Node:
    """One reasoning step (or output block) of an answer, with its search statistics.

    The root stands for the prompt: its `text` is empty and its `tokens` are the rendered prompt,
    with the start of the answer behind it where the tree has one.
    """

    parent: int  # index of the parent node; -1 for the root
    text: str  # of this step alone, with its tags
    tokens: tuple[int, ...] | None  # as sampled, with the stop token; None: of a text from outside
    depth: int  # 0 for the root
    visits: int  # number of rewards in the subtree, missing ones excluded
    value: float | None  # mean of these rewards; None if there is none
    reward: float | None = None  # of a terminal node's own answer
    terminal: bool = False  # the step ends the answer
    prior: float = 0.0  # of the step, see the `prior` setting of a search
    missing: int = 0  # evaluations in the subtree that gave no reward
    judgements: Judgements = field(default_factory=list)  # one entry per evaluation of this node


@dataclass(frozen=True)
class TreeRecord:
    """A finished search tree.

    Two runs of the same search give equal records, except for `seconds` and `worker`.

    `prefilled_tokens` counts the tokens that were in no kept sequence when they were requested: the
    prompt, and what each judgement adds to its kept prefix. An engine that never evicts prefills
    exactly these, plus the judge's templates, which all trees share.
    """

    SCHEMA: ClassVar[int] = 1  # as of `data.records.Record`

    id: str
    prompt: str
    kind: str  # "safety" or "helpfulness"
    source: str
    model: str  # fingerprint
    settings: str  # fingerprint
    nodes: tuple[Node, ...]  # parents before their children; the root is node 0
    iterations: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)  # events, e.g. rollouts, unreadable
    generated_tokens: int = 0  # sampled tokens: steps, rollouts and judgements
    prefilled_tokens: int = 0
    seconds: float = 0.0  # wall time from start to end of the tree, beside others
    system: str | None = None  # as of `data.records.Record`; not written if None, nor are the next
    history: Turns | None = None
    start: Texts | None = None
    start_tokens: int | None = None  # how many of the root's tokens, its last ones, are the start's
    worker: str | None = None  # of a cluster, that searched it

    @property
    def is_chat(self) -> bool:
        """Whether there is a system turn or an earlier turn before the prompt."""
        return bool(self.system or self.history)

    def path(self, index: int) -> list[int]:
        """Node indices from the first step down to `index`, without the root."""
        path: list[int] = []
        while index > 0:
            path.append(index)
            index = self.nodes[index].parent
        return path[::-1]

    def rewards(self) -> list[float]:
        """All rewards that answers of the tree were given: of rollouts and of terminal nodes."""
        found = [entry.get("reward") for node in self.nodes for entry in node.judgements]
        found += [node.value for node in self.nodes if node.terminal]
        return [reward for reward in found if reward is not None and math.isfinite(reward)]

    def children(self) -> list[list[int]]:
        """For each node the indices of its children, in ascending order."""
        children: list[list[int]] = [[] for _ in self.nodes]
        for index, node in enumerate(self.nodes[1:], start=1):
            children[node.parent].append(index)
        return children

    def texts(self, path: Sequence[int]) -> list[str]:
        """Texts of the steps of a path (node indices, as from `path`)."""
        return [self.nodes[index].text for index in path]

    def answer_texts(self, path: Sequence[int]) -> list[str]:
        """The same behind those of the start: the answer from its beginning."""
        return [*(self.start or ()), *self.texts(path)]

    def answer_tokens(self, path: Sequence[int]) -> list[int] | None:
        """Token ids of `answer_texts`; None where some are unknown."""
        root, own = self.nodes[0].tokens, self.tokens(path)
        if not self.start or own is None:
            return own
        if root is None or self.start_tokens is None:
            return None
        return [*root[len(root) - self.start_tokens :], *own]

    @property
    def start_steps(self) -> int:
        """Steps of the answer that the start has finished; `Node.depth` does not count them."""
        return starts.num_steps(self.start or ())

    def tokens(self, path: Sequence[int]) -> list[int] | None:
        """Concatenated token ids of the steps of a path; None where those of a step are unknown."""
        found: list[int] = []
        for index in path:
            tokens = self.nodes[index].tokens
            if tokens is None:
                return None
            found += tokens
        return found

    def to_dict(self) -> dict[str, Any]:
        """The record as plain JSON values."""
        nodes = [
            vars(node) | {"tokens": None if node.tokens is None else list(node.tokens)}
            for node in self.nodes
        ]
        own = vars(self) | {"nodes": nodes, "counts": dict(self.counts)}
        for name in ("system", "history", "start", "start_tokens", "worker"):
            if own[name] is None:
                del own[name]
        return {SCHEMA_COLUMN: self.SCHEMA} | own

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str = "a search tree") -> "TreeRecord":
        """Reads what `to_dict` wrote.

        Raises:
          UserError: the record lacks a field or its tree is no tree; or its schema is newer.
        """
        check_schema(data, cls.SCHEMA, where)
        try:
            nodes = tuple(_node(node) for node in data["nodes"])
            known = {name.name for name in fields(cls)}
            values = {name: value for name, value in data.items() if name in known}
            for name in ("history", "start"):
                if values.get(name) is not None:
                    values[name] = tuple(values[name])
            record = cls(**{**values, "nodes": nodes})
        except (KeyError, TypeError) as error:
            raise UserError(f"not a search tree record: {error}") from error
        _check(record)
        return record


def read_trees(path: str | Path) -> list[TreeRecord]:
    """Reads all trees of a file, in the order in which they were written.

    Args:
      path: `trees.jsonl.gz` of a search stage, or what `write_trees` wrote.

    Raises:
      UserError: there is no such file, it is damaged or cut off, or a tree is of a newer schema.
    """
    if not Path(path).is_file():
        raise UserError(f"there is no file {path}")
    members = list(RecordLog(path).members())
    if (members[-1][1] if members else 0) < Path(path).stat().st_size:
        raise UserError(
            f"{path} is cut off in the record behind {len(members)} whole ones: copy it again, or "
            "let its search finish"
        )
    return [
        TreeRecord.from_dict(record, f"{path}, record {number}")
        for number, (record, _) in enumerate(members, start=1)
    ]


def write_trees(path: str | Path, trees: Iterable[TreeRecord]) -> None:
    """Writes trees as gzipped JSON lines, atomically; replaces a file at `path`.

    Raises:
      UserError: the file cannot be written.
    """
    write_records(path, (tree.to_dict() for tree in trees))


def _node(data: Mapping[str, Any]) -> Node:
    tokens = data["tokens"]
    return Node(**{**data, "tokens": None if tokens is None else tuple(tokens)})


def _check(record: TreeRecord) -> None:
    parents = [node.parent for node in record.nodes]
    if parents[:1] != [-1] or any(not 0 <= p < i for i, p in enumerate(parents[1:], start=1)):
        raise UserError(f"tree {record.id!r} is damaged: a node does not come after its parent")
    start, root = record.start or (), record.nodes[0].tokens
    if not all(isinstance(text, str) for text in start) or starts.objection(start):
        raise UserError(f"tree {record.id!r} is damaged: its start is none")
    if root is not None and not 0 <= (record.start_tokens or 0) <= len(root):
        raise UserError(f"tree {record.id!r} is damaged: its start has more tokens than its root")
