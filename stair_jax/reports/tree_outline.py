"""A search tree as an outline: steps with visits, values, rewards, and the pairs made of them."""

from collections.abc import Mapping, Sequence
from typing import Any

from stair_jax.reports.markup import folded, inline, name, number, turns
from stair_jax.reports.trees import ShownTree
from stair_jax.search.tree_records import Node, TreeRecord
from stair_jax.text.steps import TAG_PATTERN

_SHORT = 160  # characters of a step that is not folded
_SCORES = ("helpfulness", "safety", "reward")


def tree_block(tree: ShownTree, length: int, most_nodes: int) -> str:
    """A tree: an HTML block without blank lines.

    Args:
      tree: that is shown.
      length: characters of a text at most.
      most_nodes: nodes at most; those of pairs first, then the ones with most visits.
    """
    record = tree.record
    said = "".join(
        folded(name(question), inline(text, length)) for question, text in tree.said.items()
    )
    before = "".join(f"{turns([turn], length)}<br>" for turn in _turns(record))
    start = "".join(record.start or ())
    kept = kept_nodes(record, tree.pairs, most_nodes)
    lines = [
        f"<p><b>{name(tree.search)}</b>, tree {name(record.id)} "
        f"({name(record.kind)}, {name(record.source)}): "
        f"{len(record.nodes) - 1} steps, {record.iterations} iterations, "
        f"{record.generated_tokens} tokens sampled, {record.seconds:.1f} s beside others, "
        f"{len(tree.pairs)} pairs</p>",
        f"<p><b>Prompt.</b> {before}{inline(record.prompt, length)}</p>",
        *([f"<p><b>Begun with.</b> {inline(start, length)}</p>"] if start else []),
        *([f"<p>{said}</p>"] if said else []),
        *_outline(tree, 0, kept, record.children(), length),
    ]
    return "\n".join(lines)


def kept_nodes(record: TreeRecord, pairs: Sequence[tuple[int, int]], most: int) -> set[int]:
    """The nodes that are shown, each with all nodes above it.

    Those of pairs come first, then those with most visits; ties go to the lower index.
    """
    first = [node for pair in pairs for node in pair if node < len(record.nodes)]
    others = sorted(
        range(1, len(record.nodes)), key=lambda index: (-record.nodes[index].visits, index)
    )
    kept = {0}
    for node in dict.fromkeys([*first, *others]):
        path = set(record.path(node)) - kept
        if len(kept) - 1 + len(path) <= most:
            kept |= path
    return kept


def _turns(record: TreeRecord) -> list[tuple[str, str]]:
    system = [("system", record.system)] if record.system else []
    turns = [(turn["role"], turn["content"]) for turn in record.history or ()]
    return [*system, *turns]


def _outline(
    tree: ShownTree, index: int, kept: set[int], children: Sequence[Sequence[int]], length: int
) -> list[str]:
    """The lines of the list below a node; no recursion deeper than the tree."""
    shown = [child for child in children[index] if child in kept]
    left = len(children[index]) - len(shown)
    lines = []
    for child in shown:
        below = _outline(tree, child, kept, children, length)
        lines += [f"<li>{_node(tree, child, length)}", *below, "</li>"]
    if left:
        lines.append(f"<li><i>and {left} more</i></li>")
    return ["<ul>", *lines, "</ul>"] if lines else []


def _node(tree: ShownTree, index: int, length: int) -> str:
    node = tree.record.nodes[index]
    figures = f"visits {node.visits}, value {number(node.value)}"
    if node.reward is not None:
        figures += f", reward {number(node.reward)}"
    if node.missing:
        figures += f", {node.missing} rewards missing"
    ends = ", ends the answer" if node.terminal else ""
    return (
        f"{_mark(tree.pairs, index)}<b>{index}</b> ({figures}{ends}) "
        f"{_text(node, length)}{_judgements(node.judgements, length)}"
    )


def _mark(pairs: Sequence[tuple[int, int]], index: int) -> str:
    """Which pairs a node is of."""
    over = [str(worse) for better, worse in pairs if better == index]
    under = [str(better) for better, worse in pairs if worse == index]
    marks = []
    if over:
        marks.append(f"chosen over {', '.join(over)}")
    if under:
        marks.append(f"rejected for {', '.join(under)}")
    return f"<b>[{'; '.join(marks)}]</b> " if marks else ""


def _text(node: Node, length: int) -> str:
    text = TAG_PATTERN.sub("", node.text).strip() or node.text
    if len(text) <= _SHORT:
        return inline(text) or "<i>empty</i>"
    return folded(inline(text.replace("\n", " "), _SHORT), inline(text, length))


def _judgements(judgements: Sequence[Mapping[str, Any]], length: int) -> str:
    """The answers that were judged here, with their scores."""
    return "".join(
        folded(f"judged: {_scores(entry)}", inline(str(entry.get("answer", "")), length))
        for entry in judgements
    )


def _scores(entry: Mapping[str, Any]) -> str:
    malformed = "malformed, " if entry.get("malformed") else ""
    found = [
        f"{score} {number(entry[score])}"
        for score in _SCORES
        if isinstance(entry.get(score), int | float)
    ]
    return malformed + (", ".join(found) or "no reward")
