"""Data sets by name: PKU-SafeRLHF, UltraFeedback (original and binarized) and JailbreakV-28k."""

import re

from stair_jax.data.messages import answer
from stair_jax.data.numbers import read_flag, read_number, read_whole
from stair_jax.data.records import Prompt, SftRow, StepPair
from stair_jax.data.schema import (
    KEEPABLE,
    LeftOut,
    Reading,
    Row,
    Schema,
    make_example,
    make_pair,
    make_prompt,
)

# Of JailbreakV-28k, the sources that the paper takes.
JAILBREAK_SOURCES = ("GPT-Generate", "Handcraft", "HH-RLHF")
# UltraFeedback's scores: the overall one is from 1 to 10, the mean of the fine-grained from 1 to 5.
# Both as a share of their range differ by at most this; in rows where an overall "1" was read as
# 10, they differ by more.
_MOST_APART = 0.5


def _flag(row: Row, column: str) -> bool:
    value = read_flag(row[column])
    if value is None:
        raise ValueError(f"{column} is {row[column]!r}, not true or false")
    return value


def _safer(row: Row) -> tuple[int, bool, bool]:
    """Which answer of PKU-SafeRLHF is called the safer, whether it is safe, and the other."""
    safer = read_whole(row["safer_response_id"])
    if safer not in (0, 1):
        raise ValueError(f"safer_response_id is {row['safer_response_id']!r}, not 0 or 1")
    flags = [_flag(row, f"is_response_{number}_safe") for number in (0, 1)]
    return safer, flags[safer], flags[1 - safer]


def _safer_answer(row: Row, reading: Reading) -> SftRow:
    safer, is_safe, other_is_safe = _safer(row)
    if not is_safe:
        raise LeftOut(KEEPABLE["labels"] if other_is_safe else "no answer is safe")
    return make_example(row["prompt"], row[f"response_{safer}"], "safety")


def _safer_pair(row: Row, reading: Reading) -> StepPair:
    safer, is_safe, other_is_safe = _safer(row)
    if not is_safe:
        reading.leave_out("labels" if other_is_safe else "unsafe")
    chosen, rejected = row[f"response_{safer}"], row[f"response_{1 - safer}"]
    return make_pair(row["prompt"], chosen, rejected, "safety")


def _ranked(row: Row, reading: Reading) -> list[str]:
    """The completions of UltraFeedback that have a score, best first; ties keep their order."""
    scored = []
    for completion in row["completions"]:
        overall = read_number(completion.get("overall_score"))
        fine = read_number(completion.get("fine-grained_score"))
        is_apart = (
            overall is not None
            and fine is not None
            and abs((overall - 1) / 9 - (fine - 1) / 4) > _MOST_APART
        )
        if is_apart:
            reading.leave_out("scores")
        score = fine if overall is None else overall
        if score is None:
            reading.notes["completions without a score"] += 1
        else:
            scored.append((score, completion["response"]))
    if not scored:
        raise LeftOut("no answer has a score")
    if len({score for score, _ in scored}) == 1 < len(scored):
        reading.leave_out("ties")
    return [response for _, response in sorted(scored, key=lambda item: -item[0])]


def _best_completion(row: Row, reading: Reading) -> SftRow:
    return make_example(row["instruction"], _ranked(row, reading)[0], "helpfulness")


def _ranked_pair(row: Row, reading: Reading) -> StepPair:
    ranked = _ranked(row, reading)
    return make_pair(row["instruction"], ranked[0], ranked[-1], "helpfulness")


def _chosen_example(row: Row, reading: Reading) -> SftRow:
    text = answer(row["chosen"], row["prompt"], reading)
    return make_example(row["prompt"], text, "helpfulness")


def _chosen_pair(row: Row, reading: Reading) -> StepPair:
    reading.check_scores(row)
    chosen, rejected = (
        answer(row[side], row["prompt"], reading) for side in ("chosen", "rejected")
    )
    return make_pair(row["prompt"], chosen, rejected, "helpfulness")


def _jailbreak(row: Row, reading: Reading) -> Prompt:
    """Attacks that were made for language models: those in images lose their meaning as text."""
    if "transfer_from_llm" in row and not _flag(row, "transfer_from_llm"):
        raise LeftOut("the attack is in its image")
    taken = [_letters(source) for source in reading.options.jailbreak_sources]
    source = str(row.get("from") or "")
    if taken and not any(name in _letters(source) for name in taken):
        raise LeftOut(f"its source {source!r} is none of files.jailbreak_sources")
    return make_prompt(row["jailbreak_query"], "safety", "JailbreakV-28k")


def _letters(name: str) -> str:
    """A name without what its spellings differ in: `GPT-Generate`, `GPT_Generate`."""
    return re.sub("[^a-z0-9]", "", name.lower())


SCHEMAS = (
    Schema(
        "PKU-SafeRLHF",
        frozenset(
            (
                "prompt",
                "response_0",
                "response_1",
                "is_response_0_safe",
                "is_response_1_safe",
                "safer_response_id",
            )
        ),
        {
            "prompts": lambda row, _: make_prompt(row["prompt"], "safety", "PKU-SafeRLHF"),
            "sft": _safer_answer,
            "dpo": _safer_pair,
        },
    ),
    Schema(
        "UltraFeedback",
        frozenset(("instruction", "completions")),
        {
            "prompts": lambda row, _: make_prompt(
                row["instruction"], "helpfulness", "UltraFeedback"
            ),
            "sft": _best_completion,
            "dpo": _ranked_pair,
        },
    ),
    Schema(
        "UltraFeedback-binarized",
        frozenset(("prompt", "prompt_id", "chosen", "rejected")),
        {
            "prompts": lambda row, _: make_prompt(row["prompt"], "helpfulness", "UltraFeedback"),
            "sft": _chosen_example,
            "dpo": _chosen_pair,
        },
    ),
    Schema(
        "JailbreakV-28k",
        frozenset(("jailbreak_query", "redteam_query")),
        {"prompts": _jailbreak},
        id_column="id",
    ),
)
