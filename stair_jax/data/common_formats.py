"""Formats that many data sets share: pairs, chat messages, Alpaca, questions with answers.

They say nothing of the kind of their rows, which is that of `files.kinds`; pairs need none.
"""

from stair_jax.data.messages import answer, question, question_and_answer
from stair_jax.data.records import Prompt, SftRow, StepPair
from stair_jax.data.schema import (
    LeftOut,
    Reader,
    Reading,
    Row,
    Schema,
    make_example,
    make_pair,
    make_prompt,
    source_of,
)

_PAIRS, _MESSAGES, _ALPACA, _ANSWERS = 1, 2, 3, 4  # tiers


def _prompts_from(column: str) -> Reader:
    def read(row: Row, reading: Reading) -> Prompt:
        _check_single(row, reading)
        text = question(row[column], reading)
        return make_prompt(text, reading.kind(row), source_of(row))

    return read


def _examples_from(prompt: str, target: str) -> Reader:
    def read(row: Row, reading: Reading) -> SftRow:
        _check_single(row, reading)
        asked = question(row[prompt], reading)
        return make_example(asked, answer(row[target], asked, reading), reading.kind(row))

    return read


def _pairs_from(prompt: str) -> Reader:
    def read(row: Row, reading: Reading) -> StepPair:
        _check_single(row, reading)
        reading.check_scores(row)
        asked = question(row[prompt], reading)
        chosen, rejected = (answer(row[side], asked, reading) for side in ("chosen", "rejected"))
        return make_pair(asked, chosen, rejected, reading.known_kind(row))

    return read


def _conversations_from(column: str) -> Reader:
    def read(row: Row, reading: Reading) -> SftRow:
        _check_single(row, reading)
        return make_example(*question_and_answer(row[column], reading), reading.kind(row))

    return read


def _instruction(row: Row, reading: Reading) -> str:
    """Instruction and input of Alpaca, one below the other."""
    _check_single(row, reading)
    text, given = row["instruction"], row.get("input")
    if not isinstance(text, str) or not isinstance(given or "", str):
        raise TypeError("instruction or input is not text")
    return f"{text}\n\n{given}" if given and given.strip() else text


def _check_single(row: Row, reading: Reading) -> None:
    """Leaves a row out that has further turns in columns of their own."""
    if row.get("history"):
        raise LeftOut("it has more than one turn")
    if any(str(row.get(column) or "").strip() for column in ("system", "system_prompt")):
        reading.leave_out("system")


def _alpaca_prompt(row: Row, reading: Reading) -> Prompt:
    return make_prompt(_instruction(row, reading), reading.kind(row), source_of(row))


def _alpaca_example(row: Row, reading: Reading) -> SftRow:
    return make_example(_instruction(row, reading), row["output"], reading.kind(row))


def _alpaca_pair(row: Row, reading: Reading) -> StepPair:
    reading.check_scores(row)
    sides = row["chosen"], row["rejected"]
    return make_pair(_instruction(row, reading), *sides, reading.known_kind(row))


def _question_with_reference(row: Row, reading: Reading) -> Prompt:
    _check_single(row, reading)
    reference = row["answer"]
    given = None if reference in (None, "") else str(reference)
    return make_prompt(row["question"], reading.kind(row), source_of(row), given)


def _pairs(prompt: str) -> Schema:
    return Schema(
        f"{prompt}-pairs",
        frozenset((prompt, "chosen", "rejected")),
        {
            "prompts": _prompts_from(prompt),
            "sft": _examples_from(prompt, "chosen"),
            "dpo": _pairs_from(prompt),
        },
        tier=_PAIRS,
    )


def _chat(column: str) -> Schema:
    return Schema(
        column,
        frozenset((column,)),
        {"prompts": _prompts_from(column), "sft": _conversations_from(column)},
        tier=_MESSAGES,
    )


def _answered(prompt: str, target: str) -> Schema:
    read = _question_with_reference if target == "answer" and prompt == "question" else None
    return Schema(
        f"{prompt}-{target}",
        frozenset((prompt, target)),
        {"prompts": read or _prompts_from(prompt), "sft": _examples_from(prompt, target)},
        tier=_ANSWERS,
    )


SCHEMAS = (
    _pairs("prompt"),
    _pairs("question"),
    _pairs("conversations"),
    Schema(
        "Alpaca-pairs",
        frozenset(("instruction", "chosen", "rejected")),
        {"prompts": _alpaca_prompt, "dpo": _alpaca_pair},
        tier=_PAIRS,
    ),
    _chat("messages"),
    _chat("conversations"),
    Schema(
        "Alpaca",
        frozenset(("instruction", "output")),
        {"prompts": _alpaca_prompt, "sft": _alpaca_example},
        tier=_ALPACA,
    ),
    _answered("question", "answer"),
    _answered("question", "response"),
    _answered("prompt", "answer"),
    _answered("prompt", "response"),
    _answered("prompt", "completion"),
)
