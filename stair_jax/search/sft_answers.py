"""SFT data from search trees: the good full answers, for the paper's ablation without preferences.

As the `sft` data of the released code, with one difference: an answer that was cut off is none.
Where a tree has a start, so have its examples, and SFT counts no token of it.
"""

import zlib
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from stair_jax.data.records import SftRow
from stair_jax.search.tree_records import TreeRecord
from stair_jax.settings import Settings, setting
from stair_jax.text.steps import is_well_formed


@dataclass(frozen=True)
class SftAnswerSettings(Settings):
    """Which answers of a tree become SFT examples.

    Attributes:
      v1: their value is at least this.
      max_per_prompt: a fixed random choice of so many is kept; 0: all.
      max_tokens: prompt and answer.
      answer_format: "structured" leaves out an answer that breaks the grammar; "plain" takes any.
    """

    v1: float = 0.8
    max_per_prompt: int = setting(8, least=0)
    max_tokens: int = setting(2048, least=1)
    answer_format: Literal["structured", "plain"] = "structured"


def sft_answers(
    record: TreeRecord, settings: SftAnswerSettings
) -> tuple[list[SftRow], Counter[str]]:
    """The full answers (terminal nodes) of a tree whose value is high.

    Args:
      record: a finished tree.
      settings: the threshold and the limits.

    Returns:
      (examples in the order of the nodes, counts): their number as "answers", and why other
      answers were left out: `no_value`, `low_value`, `too_long`, `malformed`, `repeated` (the same
      text as one before), `limit`.
    """
    counts: Counter[str] = Counter()
    found: dict[str, int] = {}
    for index, node in enumerate(record.nodes):
        if node.terminal:
            text = _own_text(record, index)
            reason = _reason(record, index, text, settings) or ("repeated" if text in found else "")
            if reason:
                counts[reason] += 1
            else:
                found[text] = index
    kept = list(found.items())
    if settings.max_per_prompt and len(kept) > settings.max_per_prompt:
        counts["limit"] += len(kept) - settings.max_per_prompt
        # Seeded by the tree's id: the choice depends neither on other trees nor on the run.
        generator = np.random.default_rng(zlib.crc32(record.id.encode()))
        chosen = generator.choice(len(kept), settings.max_per_prompt, replace=False)
        kept = [kept[place] for place in sorted(chosen.tolist())]
    counts["answers"] = len(kept)
    names = ("system", "history", "start")
    given: dict[str, Any] = {name: getattr(record, name) for name in names}
    rows = [
        SftRow(f"{record.id}:{i}", record.prompt, text, record.kind, **given) for text, i in kept
    ]
    return rows, counts


def _own_text(record: TreeRecord, index: int) -> str:
    """What the model wrote of an answer; behind a start the white space before it counts."""
    text = "".join(record.texts(record.path(index)))
    return text.rstrip() if record.start else text.strip()


def _reason(record: TreeRecord, index: int, text: str, settings: SftAnswerSettings) -> str:
    """Why an answer is left out; empty: it is not."""
    node = record.nodes[index]
    if node.value is None:
        return "no_value"
    if node.value < settings.v1:
        return "low_value"
    tokens = record.tokens([0, *record.path(index)])  # the root's: prompt and start
    if tokens is not None and len(tokens) > settings.max_tokens:
        return "too_long"
    whole = "".join((*(record.start or ()), text))
    is_good = is_well_formed(whole) if settings.answer_format == "structured" else bool(text)
    return "" if is_good else "malformed"
