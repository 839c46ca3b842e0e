"""Formats that many data sets share: pairs, chat messages, Alpaca, questions with answers.

They say nothing of the kind of their rows, which is that of `files.kinds`; pairs need none.
"""

from collections.abc import Callable
from typing import Any

from stair_jax.data.messages import Chat, answer, question, read_chat
from stair_jax.data.records import Prompt, SftRow, StepPair, Turns
from stair_jax.data.schema import (
    KEEPABLE,
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
        before = _before(row, reading)
        chat = read_chat(row[column], reading, is_answered=False)
        return make_prompt(chat.question, reading.kind(row), source_of(row), **before(chat))

    return read


def _examples_from(prompt: str, target: str) -> Reader:
    def read(row: Row, reading: Reading) -> SftRow:
        if row.get("path"):
            raise LeftOut("a step behind others is no whole answer")
        before = _before(row, reading)
        chat = read_chat(row[prompt], reading, is_answered=False)
        said = answer(row[target], chat.question, reading)
        return make_example(chat.question, said, reading.kind(row), **before(chat))

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
        before = _before(row, reading)
        chat = read_chat(row[column], reading, is_answered=True)
        return make_example(chat.question, chat.answer, reading.kind(row), **before(chat))

    return read


def _instruction(row: Row) -> str:
    """Instruction and input of Alpaca, one below the other."""
    text, given = row["instruction"], row.get("input")
    if not isinstance(text, str) or not isinstance(given or "", str):
        raise TypeError("instruction or input is not text")
    return f"{text}\n\n{given}" if given and given.strip() else text


def _check_single(row: Row, reading: Reading) -> None:
    """Leaves a row out that has further turns in columns of their own."""
    if row.get("history"):
        raise LeftOut(KEEPABLE["turns"])
    if _system(row):
        reading.leave_out("system")


def _system(row: Row) -> str:
    texts = (str(row.get(column) or "") for column in ("system", "system_prompt"))
    return next((text for text in texts if text.strip()), "")


def _before(row: Row, reading: Reading) -> Callable[[Chat], dict[str, Any]]:
    """What gives the turns before a question: those in columns of their own, then the chat's.

    Raises:
      LeftOut: there are such columns, and they are not kept.
      TypeError: a history is no list of [question, answer].
    """
    if not reading.keeps("turns"):
        _check_single(row, reading)
        return lambda chat: {}
    system = "" if reading.keeps("system") else _system(row)
    history: Turns = ()
    for pair in row.get("history") or ():
        if not isinstance(pair, list) or [type(text) for text in pair] != [str, str]:
            raise TypeError("its history is no list of [question, answer]")
        roles = ("user", "assistant")
        history += tuple({"role": r, "content": t} for r, t in zip(roles, pair, strict=True))
    return lambda chat: {
        "system": chat.system or system or None,
        "history": (*history, *chat.history) or None,
    }


def _alpaca_prompt(row: Row, reading: Reading) -> Prompt:
    chat, before = Chat(_instruction(row)), _before(row, reading)
    return make_prompt(chat.question, reading.kind(row), source_of(row), **before(chat))


def _alpaca_example(row: Row, reading: Reading) -> SftRow:
    chat, before = Chat(_instruction(row)), _before(row, reading)
    return make_example(chat.question, row["output"], reading.kind(row), **before(chat))


def _alpaca_pair(row: Row, reading: Reading) -> StepPair:
    reading.check_scores(row)
    _check_single(row, reading)
    sides = row["chosen"], row["rejected"]
    return make_pair(_instruction(row), *sides, reading.known_kind(row))


def _question_with_reference(row: Row, reading: Reading) -> Prompt:
    chat, before = Chat(row["question"]), _before(row, reading)
    reference = row["answer"]
    given = None if reference in (None, "") else str(reference)
    return make_prompt(chat.question, reading.kind(row), source_of(row), given, **before(chat))


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
