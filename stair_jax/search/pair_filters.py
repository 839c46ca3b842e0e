"""Filters of preference pairs that are not in the paper; by default there are none."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stair_jax.errors import UserError
from stair_jax.search.pair_candidates import Mask, Nodes
from stair_jax.search.tree_records import TreeRecord
from stair_jax.settings import Settings, setting
from stair_jax.text.steps import format_output, is_well_formed


@dataclass(frozen=True)
class PairFilterSettings(Settings):
    """Which pairs are left out beside those of the paper's thresholds; the defaults leave none.

    Attributes:
      v0_share: the values of a pair also differ by more than this share of the tree's spread, which
        is the highest less the lowest reward in the tree; with `v0` 0 by this alone. So trees of
        a judge with close scores give pairs as others do.
      min_tree_spread: a tree of a smaller spread gives no pairs: all of its answers are alike.
      well_formed: only pairs of which both sides, with their path, are in the format of an answer,
        reasoning blocks with a title and then one output block. So babble is neither preferred nor
        what a good step is told from.
      length_gap: the longer side has at most so many times the tokens of the shorter one (of texts
        without token ids: characters), at least 1; 0: any.
    """

    v0_share: float = setting(0.0, least=0, below=1, absent=0.0)
    min_tree_spread: float = setting(0.0, least=0, absent=0.0)
    well_formed: bool = setting(False, absent=False)
    length_gap: float = setting(0.0, least=0, absent=0.0)

    def __post_init__(self) -> None:
        """Raises a UserError that names a setting that cannot be."""
        super().__post_init__()
        if 0 < self.length_gap < 1:
            raise UserError(
                f"length_gap is {self.length_gap:g}: it is the longer side by the shorter one, at "
                "least 1, or 0 for no limit"
            )


def filtered(
    record: TreeRecord,
    pairs: tuple[Nodes, Nodes],
    gap: NDArray[np.float64],
    settings: PairFilterSettings,
    are_answers: bool = False,
) -> dict[str, Mask]:
    """For each filter that is set, by the reason that `counts.json` gives, the pairs it leaves out.

    Args:
      record: a finished tree.
      pairs: (better, worse), node indices.
      gap: between the values of each pair; NaN where one has none.
      settings: the filters.
      are_answers: whether the sides are whole answers, and not the steps of the two nodes.
    """
    better, worse = pairs
    found: dict[str, Mask] = {}
    if settings.min_tree_spread:
        is_narrow = spread(record) < settings.min_tree_spread
        found["small_spread"] = np.full(len(better), is_narrow)
    if settings.v0_share:
        found["small_share"] = ~(gap > settings.v0_share * spread(record))
    if settings.well_formed:
        bad = np.array([not _is_well_formed(record, index) for index in range(len(record.nodes))])
        found["not_well_formed"] = bad[better] | bad[worse]
    if settings.length_gap:
        length = np.array(_lengths(record, are_answers))
        longer = np.maximum(length[better], length[worse])
        shorter = np.minimum(length[better], length[worse])
        found["unequal_lengths"] = longer > settings.length_gap * shorter
    return found


def spread(record: TreeRecord) -> float:
    """The highest less the lowest reward in a tree; 0 where there is none."""
    rewards = record.rewards()
    return max(rewards) - min(rewards) if rewards else 0.0


def _is_well_formed(record: TreeRecord, index: int) -> bool:
    """Whether the answer up to a node is well-formed, or would be with an output block behind."""
    text = "".join(record.answer_texts(record.path(index)))
    return is_well_formed(text if record.nodes[index].terminal else text + format_output("4"))


def _lengths(record: TreeRecord, are_answers: bool) -> Sequence[int]:
    """Tokens of each node's step, or of all steps down to it; characters where ids are unknown."""
    known = all(node.tokens is not None for node in record.nodes)
    own = [len((node.tokens if known else node.text) or ()) for node in record.nodes]
    if not are_answers:
        return own
    total = [0]
    for node, length in zip(record.nodes[1:], own[1:], strict=True):
        total.append(total[node.parent] + length)
    return total
