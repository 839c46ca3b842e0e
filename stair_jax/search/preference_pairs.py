"""Preference pairs from search trees: step-level pairs for DPO, and pairs for the PRM.

Threshold sampling as in the paper: two nodes make a pair if their values differ by more than v0
and, for DPO, the larger value is at least v1.

Each function takes one tree and returns (pairs in a fixed order, Counter). The Counter holds the
number of pairs made, and why the other candidates were left out: `no_value` (never evaluated, or
all evaluations missing), `malformed` (the better node ends an answer with a second output block, or
with text behind its block), `too_long`, `few_visits`, `small_gap`, `low_value`, the reasons of
`pair_filters.py` where these are set, `limit`. Trees from outside have no token ids: their pairs
have none either and are not left out for their length.

Of a tree with a start the path of a pair begins with its steps, and `depth` counts them.
"""

import math
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from stair_jax.data.records import PathPair, StepPair
from stair_jax.search.pair_candidates import Candidates, Mask, Nodes, Pairs, passed
from stair_jax.search.pair_filters import PairFilterSettings, filtered
from stair_jax.search.pair_outcomes import refusal_shares
from stair_jax.search.tree_records import TreeRecord
from stair_jax.settings import Settings, setting

T = TypeVar("T")


@dataclass(frozen=True)
class StepPairSettings(PairFilterSettings):
    """Threshold sampling of pairs for DPO, beside `PairFilterSettings`; a limit of 0 is none.

    Attributes:
      v0: the values of a pair differ by more than this.
      v1: and the larger is at least this.
      min_visits: of both sides; terminal nodes are exempt.
      max_tokens: prompt, path and the longer side.
      max_pairs_per_parent: the largest gaps are kept.
      max_pairs_per_depth: the same for the steps of one depth of a tree.
      max_pairs_per_tree: the same for a tree.
    """

    v0: float = setting(0.5, least=0)
    v1: float = 0.8
    min_visits: int = setting(4, least=0)
    max_tokens: int = setting(2048, least=1)
    max_pairs_per_parent: int = setting(0, least=0)
    max_pairs_per_depth: int = setting(0, least=0, absent=0)
    max_pairs_per_tree: int = setting(0, least=0)


@dataclass(frozen=True)
class PrmPairSettings(Settings):
    """Pairs for the process reward model; a limit of 0 is none.

    Attributes:
      v0: the values of a pair differ by more than this.
      min_visits: of both sides; terminal nodes are exempt.
      max_tokens: prompt and the longer path.
      max_pairs_per_tree: of nodes at the same depth; a fixed random choice is kept.
      max_trajectory_pairs_per_tree: of full answers; the same.
    """

    v0: float = setting(0.5, least=0)
    min_visits: int = setting(1, least=0)
    max_tokens: int = setting(2048, least=1)
    max_pairs_per_tree: int = setting(0, least=0)
    max_trajectory_pairs_per_tree: int = setting(0, least=0)


# Thresholds of the released code, as far as it has them.
_STEP_DEFAULTS, _PRM_DEFAULTS = StepPairSettings(), PrmPairSettings()


def sibling_pairs(
    record: TreeRecord, settings: StepPairSettings = _STEP_DEFAULTS
) -> tuple[list[StepPair], Counter[str]]:
    """Pairs of children of one parent: two next steps after the same path."""
    counts: Counter[str] = Counter()
    candidates = Candidates(record, settings.max_tokens)
    pairs = candidates.siblings()
    chosen = passed(*pairs, left_out(record, candidates, pairs, settings), counts)
    nodes = record.nodes
    chosen = _limit_each(
        record, chosen, lambda n: nodes[n].parent, settings.max_pairs_per_parent, counts
    )
    chosen = _limit_each(
        record, chosen, lambda n: nodes[n].depth, settings.max_pairs_per_depth, counts
    )
    chosen = _largest_gaps(record, chosen, settings.max_pairs_per_tree, counts)
    counts["pairs"] = len(chosen)
    refusals = refusal_shares(record) if chosen else []
    return [_sibling_pair(record, refusals, *pair) for pair in sorted(chosen)], counts


def trajectory_pairs(
    record: TreeRecord, settings: StepPairSettings = _STEP_DEFAULTS
) -> tuple[list[StepPair], Counter[str]]:
    """Pairs of full answers (terminal nodes), with an empty path: the ablation without steps."""
    counts: Counter[str] = Counter()
    candidates = Candidates(record, settings.max_tokens)
    pairs = candidates.within(candidates.terminals)
    reasons = left_out(record, candidates, pairs, settings, are_answers=True)
    chosen = passed(*pairs, reasons, counts)
    chosen = _largest_gaps(record, chosen, settings.max_pairs_per_tree, counts)
    counts["pairs"] = len(chosen)
    refusals = refusal_shares(record) if chosen else []
    return [_trajectory_pair(record, refusals, *pair) for pair in sorted(chosen)], counts


def prm_pairs(
    record: TreeRecord, settings: PrmPairSettings = _PRM_DEFAULTS
) -> tuple[list[PathPair], Counter[str]]:
    """Pairs of nodes of one depth, whatever their parents, and pairs of full trajectories.

    As in the paper, only the gap between the values counts. Two terminal nodes make a pair of full
    trajectories, whatever their depths, and are then not also counted as a pair of steps.

    Args:
      record: a finished tree.
      settings: the threshold and the limits.

    Returns:
      (pairs {id, prompt, kind, form, chosen_path, rejected_path, ...}, counts); `form` is "step" or
      "trajectory", and the paths are lists of step texts from the root.
    """
    counts: Counter[str] = Counter()
    candidates = Candidates(record, settings.max_tokens)
    levels: dict[int, list[int]] = {}
    for index, node in enumerate(record.nodes[1:], start=1):
        levels.setdefault(node.depth, []).append(index)
    answers = set(candidates.terminals)
    steps = [
        pair
        for _, level in sorted(levels.items())
        for pair in _passed(
            candidates, candidates.within(level, unless_both=answers), settings, counts
        )
    ]
    full = _passed(candidates, candidates.within(candidates.terminals), settings, counts)
    steps = _sample(record, steps, settings.max_pairs_per_tree, counts)
    full = _sample(record, full, settings.max_trajectory_pairs_per_tree, counts)
    counts["step_pairs"], counts["trajectory_pairs"] = len(steps), len(full)
    counts["pairs"] = len(steps) + len(full)
    pairs = [_prm_pair(record, *pair, form="step") for pair in sorted(steps)]
    return pairs + [_prm_pair(record, *pair, form="trajectory") for pair in sorted(full)], counts


def thin(pairs: Sequence[T], limit: int) -> list[T]:
    """At most `limit` pairs, evenly spread over the sequence (for equal numbers of samples)."""
    if len(pairs) <= limit:
        return list(pairs)
    return [pairs[i * len(pairs) // limit] for i in range(limit)]


def left_out(
    record: TreeRecord,
    candidates: Candidates,
    pairs: tuple[Nodes, Nodes],
    settings: StepPairSettings,
    are_answers: bool = False,
) -> dict[str, Mask]:
    """For each reason the pairs for DPO that it leaves out: the thresholds, then the filters."""
    reasons = candidates.left_out(*pairs, settings.v0, settings.v1, settings.min_visits)
    return reasons | filtered(record, pairs, candidates.gap(*pairs), settings, are_answers)


def _passed(
    candidates: Candidates,
    pairs: tuple[Nodes, Nodes],
    settings: PrmPairSettings,
    counts: Counter[str],
) -> Pairs:
    """The PRM's pairs that pass the thresholds; the others are counted by reason."""
    reasons = candidates.left_out(*pairs, settings.v0, -math.inf, settings.min_visits)
    return passed(*pairs, reasons, counts)


def _limit_each(
    record: TreeRecord,
    pairs: Pairs,
    key: Callable[[int], int],
    limit: int,
    counts: Counter[str],
) -> Pairs:
    """Of the pairs whose better nodes have one `key` the `limit` (0: all) with the largest gaps."""
    if not limit:
        return pairs
    groups: dict[int, Pairs] = {}
    for pair in sorted(pairs):
        groups.setdefault(key(pair[0]), []).append(pair)
    return [
        pair for found in groups.values() for pair in _largest_gaps(record, found, limit, counts)
    ]


def _largest_gaps(record: TreeRecord, pairs: Pairs, limit: int, counts: Counter[str]) -> Pairs:
    """The `limit` pairs (0: all) with the largest value gaps; ties go to the lowest indices."""
    if not limit or len(pairs) <= limit:
        return pairs
    counts["limit"] += len(pairs) - limit
    values = [node.value or 0.0 for node in record.nodes]
    return sorted(pairs, key=lambda pair: (values[pair[1]] - values[pair[0]], pair))[:limit]


def _sample(record: TreeRecord, pairs: Pairs, limit: int, counts: Counter[str]) -> Pairs:
    """`limit` random pairs (0: all), by a generator seeded with the tree's id.

    The sample then depends neither on the order of the trees nor on the run.
    """
    if not limit or len(pairs) <= limit:
        return pairs
    counts["limit"] += len(pairs) - limit
    generator = np.random.default_rng(zlib.crc32(record.id.encode()))
    return [pairs[i] for i in generator.choice(len(pairs), limit, replace=False)]


def _head(record: TreeRecord, better: int, worse: int) -> dict[str, Any]:
    """The fields that pairs of all forms have."""
    chosen, rejected = record.nodes[better], record.nodes[worse]
    return {
        "id": f"{record.id}:{better}:{worse}",
        "prompt": record.prompt,
        "system": record.system,
        "history": record.history,
        "start": record.start,
        "kind": record.kind,
        "chosen_value": chosen.value,
        "rejected_value": rejected.value,
        "chosen_visits": chosen.visits,
        "rejected_visits": rejected.visits,
        "depth": record.start_steps + chosen.depth,
        "chosen_terminal": chosen.terminal,
        "rejected_terminal": rejected.terminal,
    }


def _sibling_pair(
    record: TreeRecord, refusals: Sequence[float | None], better: int, worse: int
) -> StepPair:
    path = record.path(record.nodes[better].parent)
    return StepPair(
        **_head(record, better, worse),
        path=tuple(record.answer_texts(path)),
        chosen=record.nodes[better].text,
        rejected=record.nodes[worse].text,
        path_tokens=_tokens(record.answer_tokens(path)),
        chosen_tokens=record.nodes[better].tokens,
        rejected_tokens=record.nodes[worse].tokens,
        chosen_refusals=refusals[better],
        rejected_refusals=refusals[worse],
    )


def _trajectory_pair(
    record: TreeRecord, refusals: Sequence[float | None], better: int, worse: int
) -> StepPair:
    chosen, rejected = record.path(better), record.path(worse)
    return StepPair(
        **_head(record, better, worse),
        path=record.start or (),
        chosen="".join(record.texts(chosen)),
        rejected="".join(record.texts(rejected)),
        path_tokens=_tokens(record.answer_tokens([])),
        chosen_tokens=_tokens(record.tokens(chosen)),
        rejected_tokens=_tokens(record.tokens(rejected)),
        chosen_refusals=refusals[better],
        rejected_refusals=refusals[worse],
    )


def _prm_pair(record: TreeRecord, better: int, worse: int, form: str) -> PathPair:
    chosen, rejected = record.path(better), record.path(worse)
    return PathPair(
        **_head(record, better, worse),
        chosen_path=tuple(record.answer_texts(chosen)),
        rejected_path=tuple(record.answer_texts(rejected)),
        form=form,
        chosen_tokens=_tokens(record.answer_tokens(chosen)),
        rejected_tokens=_tokens(record.answer_tokens(rejected)),
    )


def _tokens(tokens: Sequence[int] | None) -> tuple[int, ...] | None:
    return None if tokens is None else tuple(tokens)
