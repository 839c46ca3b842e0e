"""Data of the paper: STAIR-SFT, STAIR-Prompts, and files that its released code reads and writes.

Its `actor_data.jsonl` has pairs {prompt, chosen, rejected, scores, ...} of which both sides are the
steps from the prompt on, joined; or, for SFT, leaves {prompt, chosen, score, ...}.
"""

import re
from typing import Any

from stair_jax.data.numbers import read_flag, read_number, read_whole
from stair_jax.data.records import KINDS, Prompt, SftRow, StepPair
from stair_jax.data.schema import (
    LeftOut,
    Reading,
    Row,
    Schema,
    make_example,
    make_pair,
    make_prompt,
    source_of,
)
from stair_jax.text.steps import REASONING_CLOSE

_STEP_ENDS = re.compile(f"(?<={re.escape(REASONING_CLOSE)})")


def _prompt(row: Row, reading: Reading) -> Prompt:
    return make_prompt(row["prompt"], reading.kind(row), source_of(row))


def _example(row: Row, reading: Reading) -> SftRow:
    return make_example(row["prompt"], row["answer"], reading.kind(row))


def _question(row: Row, reading: Reading) -> Prompt:
    if row["type"] not in KINDS:
        raise ValueError(f"type {row['type']!r} is not {' or '.join(KINDS)}")
    reference = row.get("ground_truth")
    given = None if reference in (None, "") else str(reference)
    return make_prompt(row["question"], row["type"], "STAIR", given)


def _steps_pair(row: Row, reading: Reading) -> StepPair:
    """A pair of next steps: the steps that both sides begin with are the path."""
    reading.check_scores(row)
    chosen, rejected = _steps(row["chosen"]), _steps(row["rejected"])
    shared = 0
    for one, other in zip(chosen[:-1], rejected[:-1], strict=False):
        if one != other:
            break
        shared += 1
    more: dict[str, Any] = {
        "chosen_terminal": read_flag(row["chosen_is_terminal"]),
        "rejected_terminal": read_flag(row["rejected_is_terminal"]),
        "chosen_value": read_number(row["chosen_score"]),
        "rejected_value": read_number(row["rejected_score"]),
        "chosen_visits": read_whole(row.get("chosen_visited_times")),
        "rejected_visits": read_whole(row.get("rejected_visited_times")),
    }
    return make_pair(
        row["prompt"],
        "".join(chosen[shared:]),
        "".join(rejected[shared:]),
        reading.known_kind(row),
        path=tuple(chosen[:shared]),
        depth=len(chosen),
        **more,
    )


def _steps(text: Any) -> list[str]:
    """The steps of an answer, each with its closing tag and what stands in front of it."""
    if not isinstance(text, str):
        raise TypeError(f"{str(text)[:60]!r} is not text")
    return [step for step in _STEP_ENDS.split(text) if step] or [""]


def _finished_example(row: Row, reading: Reading) -> SftRow:
    if not read_flag(row["chosen_is_terminal"]):
        raise LeftOut("the answer is not finished")
    return make_example(row["prompt"], row["chosen"], reading.kind(row))


_LEAF = frozenset(("prompt", "chosen", "chosen_score", "chosen_is_terminal"))

SCHEMAS = (
    Schema(
        "STAIR-SFT",
        frozenset(("prompt", "answer", "source")),
        {"prompts": _prompt, "sft": _example},
        id_column="id",
        others=frozenset(("id", "kind")),
    ),
    Schema(
        "STAIR-Prompts",
        frozenset(("prompt",)),
        {"prompts": _prompt},
        id_column="id",
        others=frozenset(("id", "source", "kind")),
    ),
    Schema(
        "STAIR-search",
        frozenset(("question", "type")),
        {"prompts": _question},
        id_column="id",
    ),
    Schema(
        "STAIR-pairs",
        _LEAF | {"rejected", "rejected_score", "rejected_is_terminal"},
        {"prompts": _prompt, "sft": _finished_example, "dpo": _steps_pair},
    ),
    Schema("STAIR-leaves", _LEAF, {"prompts": _prompt, "sft": _finished_example}),
)
