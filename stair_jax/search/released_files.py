"""The files of the paper's released code: search trees and preference pairs in its own form.

A file of trees is a JSON list. A tree is flat, {"tree_size": n, "0": node, "0.0": node, "0.1":
node, "0.0.0": node, ...}: a key is that of the parent with the number of the child behind it. A
node is {prompt, trajectory, is_terminal, is_valid_selected, depth, visited_times, reward,
value_sum, true_value, p}, where the trajectory lists the texts of the steps down to it. Neither a
kind nor an id is in it: they are those of the prompt. A line of `actor_data.jsonl` is {prompt,
chosen, rejected, chosen_score, ...}, where a side is the text of path and step together.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from stair_jax.data.records import Prompt, StepPair
from stair_jax.errors import UserError
from stair_jax.record_log import RecordLog
from stair_jax.search.tree_records import Node, TreeRecord
from stair_jax.storage import read_json, read_jsonl
from stair_jax.text.steps import REASONING_CLOSE

ROOT = "0"
SIZE = "tree_size"
_GZIP_MAGIC = b"\x1f\x8b"
# Trajectories end with the stop token as text, which for us is a token and no text.
_STOP_TEXT = re.compile(r"(<\|(eot_id|end_of_text|im_end|endoftext)\|>\s*)+\Z")


def to_released(record: TreeRecord) -> dict[str, Any]:
    """A tree in the form of the released code.

    Token ids, judgements, costs, kind and id have no place there. A node all of whose rewards are
    missing is one without visits.
    """
    children = record.children()
    tags = {0: ROOT}
    found: dict[str, Any] = {SIZE: len(record.nodes)}
    queue = [0]
    for index in queue:  # breadth first, as there: the list grows while it is iterated
        found[tags[index]] = _released_node(record, index)
        tags |= {child: f"{tags[index]}.{n}" for n, child in enumerate(children[index])}
        queue += children[index]
    return found


def _released_node(record: TreeRecord, index: int) -> dict[str, Any]:
    node = record.nodes[index]
    return {
        "prompt": record.prompt,
        "trajectory": record.texts(record.path(index)),
        "is_terminal": node.terminal,
        "is_valid_selected": False,  # of a search that is over
        "depth": node.depth,
        "visited_times": node.visits,
        "reward": node.reward,
        "value_sum": 0.0 if node.value is None else node.value * node.visits,
        "true_value": node.value,
        "p": node.prior if index else 1.0,
    }


def from_released(
    data: Mapping[str, Any],
    prompt: Prompt,
    where: str = "a released tree",
    encode_prompt: Callable[[str], Sequence[int]] | None = None,
    encode_step: Callable[[str], Sequence[int]] | None = None,
) -> TreeRecord:
    """Reads a tree in the form of the released code; nodes are numbered breadth first.

    Args:
      data: the tree.
      prompt: id, kind and source of the record; see `question_of`.
      where: file and tree, for messages.
      encode_prompt: prompt -> rendered token ids, for the root; None: they stay unknown.
      encode_step: step text -> token ids (`Tokenizer.encode_answer`), or None. A text may have
        several tokenisations, so these are not always the ids that the model sampled.

    Raises:
      UserError: the tree is not whole, or contradicts itself; names the node.
    """
    question = question_of(data, where)
    tags, nodes = [ROOT], [_node(data, ROOT, -1, [], question, where)]
    paths: list[list[str]] = [[]]
    for index, tag in enumerate(tags):  # the list grows while it is iterated
        for child in _child_tags(data, tag):
            if nodes[index].terminal:
                raise UserError(f"{where}, node {tag!r}: it ends its answer, and has children")
            nodes.append(_node(data, child, index, paths[index], question, where))
            paths.append(data[child]["trajectory"])
            tags.append(child)
    keys = data.keys() - {SIZE}
    if stray := sorted(keys - set(tags)):
        raise UserError(
            f"{where}: the node {stray[0]!r} has no parent, or one before it is missing"
        )
    if data.get(SIZE, len(tags)) != len(tags):
        raise UserError(f"{where} has {len(tags)} nodes, and {SIZE} is {data[SIZE]!r}")
    return TreeRecord(
        id=prompt.id,
        prompt=question,
        kind=prompt.kind,
        source=prompt.source,
        model="",
        settings="",
        nodes=tuple(_encoded(node, question, encode_prompt, encode_step) for node in nodes),
    )


def question_of(data: Mapping[str, Any], where: str) -> str:
    """The prompt of a released tree.

    Raises:
      UserError: it has none.
    """
    root = data.get(ROOT)
    question = root.get("prompt") if isinstance(root, Mapping) else None
    if not isinstance(question, str):
        raise UserError(f"{where} is no tree of the released code: it has no node {ROOT!r}")
    return question


def _child_tags(data: Mapping[str, Any], tag: str) -> Iterator[str]:
    number = 0
    while (child := f"{tag}.{number}") in data:
        yield child
        number += 1


def _node(
    data: Mapping[str, Any], tag: str, parent: int, path: list[str], question: str, where: str
) -> Node:
    """A node without its tokens, checked."""
    node = data[tag]
    where = f"{where}, node {tag!r}"
    if not isinstance(node, Mapping):
        raise UserError(f"{where} is no JSON object")
    if node.get("prompt") != question:
        raise UserError(f"{where}: its prompt is not that of the root")
    depth = tag.count(".")
    steps = node.get("trajectory")
    if not isinstance(steps, list) or len(steps) != depth or steps[:-1] != path:
        raise UserError(f"{where}: its trajectory is not that of its parent and one step more")
    if not all(isinstance(step, str) for step in steps):
        raise UserError(f"{where}: a step of its trajectory is no text")
    visits, terminal = node.get("visited_times"), node.get("is_terminal")
    if type(visits) is not int or visits < 0:
        raise UserError(f"{where}: visited_times is {visits!r}, and not a number of visits")
    if not isinstance(terminal, bool):
        raise UserError(f"{where}: is_terminal is {terminal!r}, and not true or false")
    value = _number(node, "true_value", where) if visits else None
    total = _number(node, "value_sum", where)
    if value is not None and not math.isclose(value, total / visits, abs_tol=1e-6):
        raise UserError(f"{where}: true_value is {value}, and value_sum / visits {total / visits}")
    reward = node.get("reward")
    text = steps[-1] if steps else ""
    return Node(
        parent=parent,
        text=_STOP_TEXT.sub("", text) if terminal else text,
        tokens=None,
        depth=depth,
        visits=visits,
        value=value,
        reward=None if reward is None else _number(node, "reward", where),
        terminal=terminal,
        prior=_number(node, "p", where),
    )


def _number(node: Mapping[str, Any], name: str, where: str) -> float:
    value = node.get(name)
    if type(value) not in (int, float) or not math.isfinite(value):  # type: ignore[arg-type]
        raise UserError(f"{where}: {name} is {value!r}, and not a finite number")
    return float(value)  # type: ignore[arg-type]


def _encoded(
    node: Node,
    question: str,
    encode_prompt: Callable[[str], Sequence[int]] | None,
    encode_step: Callable[[str], Sequence[int]] | None,
) -> Node:
    encode, text = (encode_step, node.text) if node.depth else (encode_prompt, question)
    return node if encode is None else replace(node, tokens=tuple(encode(text)))


def read_tree_file(path: Path) -> Iterator[tuple[Mapping[str, Any], str]]:
    """The trees of a file, ours or those of the released code, as JSON values with their places.

    Args:
      path: `trees.jsonl.gz` of a search; or a JSON list, a single tree, or JSON lines, gzipped or
        not.

    Raises:
      UserError: the file cannot be read, is cut off, or holds something else.
    """
    number = 0
    for value in _values(path):
        for tree in value if isinstance(value, list) else [value]:
            number += 1
            where = f"{path}, tree {number}"
            if not isinstance(tree, Mapping):
                raise UserError(f"{where}, is no JSON object")
            yield tree, where


def _values(path: Path) -> Iterator[Any]:
    try:
        with open(path, "rb") as file:
            is_gzip = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    if not is_gzip:
        yield from _plain_values(path)
        return
    whole = 0
    for record, end in RecordLog(path).members():
        whole = end
        yield record
    if whole < path.stat().st_size:
        raise UserError(f"{path} is cut off or damaged after byte {whole}: copy it again")


def _plain_values(path: Path) -> list[Any]:
    try:
        return [read_json(path)]
    except UserError:
        return [*read_jsonl(path)]  # JSON lines after all; if not, its message names the line


def to_released_pair(pair: StepPair) -> dict[str, Any]:
    """A pair as a line of the released code's `actor_data.jsonl`.

    Whether a side ends its answer is read from its text where the pair does not say it.
    """

    def ends(text: str, known: bool | None) -> bool:
        return not text.rstrip().endswith(REASONING_CLOSE) if known is None else known

    path = "".join(pair.path)
    return {
        "prompt": pair.prompt,
        "chosen": path + pair.chosen,
        "rejected": path + pair.rejected,
        "chosen_score": pair.chosen_value,
        "rejected_score": pair.rejected_value,
        "chosen_is_terminal": ends(pair.chosen, pair.chosen_terminal),
        "rejected_is_terminal": ends(pair.rejected, pair.rejected_terminal),
        "chosen_visited_times": pair.chosen_visits,
        "rejected_visited_times": pair.rejected_visits,
    }
