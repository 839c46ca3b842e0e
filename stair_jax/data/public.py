"""Schemas of public data sets: their columns, and a converter of rows for each use.

PKU-SafeRLHF, UltraFeedback (original and binarized), JailbreakV-28k, STAIR-SFT, STAIR-Prompts, and
the prompt format of the paper's released code. `schemas.py` applies them.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from stair_jax.data.prompts import KINDS
from stair_jax.errors import UserError

Row = Mapping[str, Any]
Use = Literal["prompts", "sft", "dpo"]


class LeftOut(Exception):
    """Raised by a reader for a row that is dropped; the message is the reason."""


class Kinds:
    """Maps the name of a source to a kind, "safety" or "helpfulness"."""

    def __init__(self, given: Mapping[str, str], unknown: set[str]):
        """A mapping with user-given kinds.

        Args:
          given: source -> kind; "*" is any other source.
          unknown: receives the sources whose kind cannot be told, so that all are reported at once.

        Raises:
          UserError: an unknown kind is given.
        """
        for source, kind in given.items():
            if kind not in KINDS:
                raise UserError(
                    f"files.kinds gives {source!r} the unknown kind {kind!r}: "
                    f"use {' or '.join(KINDS)}"
                )
        self._given, self._unknown = given, unknown

    def __call__(self, source: str) -> str:
        """The kind: as given for the source, else by its name, else that of "*"."""
        if source in self._given:
            return self._given[source]
        letters = re.sub("[^a-z]", "", source.lower())
        for name, kind in _NAMES.items():
            if name in letters:
                return kind
        if "*" not in self._given:
            self._unknown.add(source)
        return self._given.get("*", KINDS[0])  # any kind will do: `unknown` becomes an error


# Substrings of the names of sources, reduced to lower-case letters.
_NAMES = {
    "saferlhf": "safety",
    "jailbreak": "safety",
    "ultrafeedback": "helpfulness",
    "safety": "safety",
    "helpfulness": "helpfulness",
}

Reader = Callable[[Row, Kinds], dict[str, Any]]


@dataclass(frozen=True)
class Schema:
    """A data set that is recognised by its columns.

    Attributes:
      name: for messages and ids.
      columns: required columns, by which it is recognised.
      uses: for each use, the function that converts a row; it may raise `LeftOut`.
      id_column: column with the ids of its rows; "": none.
      others: the only further columns that are allowed; None: any.
    """

    name: str
    columns: frozenset[str]
    uses: Mapping[Use, Reader]
    id_column: str = ""
    others: frozenset[str] | None = None

    def fits(self, row: Row) -> bool:
        """Whether a row has the required columns and no others than those allowed."""
        extra = row.keys() - self.columns
        return self.columns <= row.keys() and (self.others is None or extra <= self.others)


def _prompt(prompt: Any, kind: str, source: str) -> dict[str, Any]:
    return {"prompt": prompt, "kind": kind, "source": source}


def _example(prompt: Any, answer: Any, kind: str) -> dict[str, Any]:
    return {"prompt": prompt, "answer": answer, "kind": kind}


def _pair(prompt: Any, chosen: Any, rejected: Any, kind: str) -> dict[str, Any]:
    if chosen == rejected:  # no preference to learn
        raise LeftOut("both answers alike")
    return {"prompt": prompt, "kind": kind, "path": [], "chosen": chosen, "rejected": rejected}


def _flag(value: Any) -> bool:
    """A boolean, also from the text of a CSV file; KeyError for anything else."""
    texts = {"true": True, "1": True, "false": False, "0": False}
    return texts[str(value).strip().lower()]


def _safer_answer(row: Row, kinds: Kinds) -> dict[str, Any]:
    safer = int(row["safer_response_id"])
    if not _flag(row[f"is_response_{safer}_safe"]):
        raise LeftOut("no answer is safe")
    return _example(row["prompt"], row[f"response_{safer}"], "safety")


def _safer_pair(row: Row, kinds: Kinds) -> dict[str, Any]:
    safer = int(row["safer_response_id"])
    return _pair(row["prompt"], row[f"response_{safer}"], row[f"response_{1 - safer}"], "safety")


def _ranked(row: Row) -> list[str]:
    """The completions that have a score, best first; ties keep their order."""
    scored = []
    for completion in row["completions"]:
        scores = (completion.get(name) for name in ("overall_score", "fine-grained_score"))
        score = next((float(value) for value in scores if value is not None), None)
        if score is not None:
            scored.append((score, completion["response"]))
    if not scored:
        raise LeftOut("no answer has a score")
    if len({score for score, _ in scored}) == 1 < len(scored):
        raise LeftOut("all scores alike")
    return [response for _, response in sorted(scored, key=lambda item: -item[0])]


def _best_completion(row: Row, kinds: Kinds) -> dict[str, Any]:
    return _example(row["instruction"], _ranked(row)[0], "helpfulness")


def _ranked_pair(row: Row, kinds: Kinds) -> dict[str, Any]:
    ranked = _ranked(row)
    return _pair(row["instruction"], ranked[0], ranked[-1], "helpfulness")


def _answer(messages: Any) -> str:
    """The assistant's message of a single-turn conversation."""
    roles = [message["role"] for message in messages if message["role"] != "system"]
    if roles != ["user", "assistant"]:
        raise LeftOut("more than one turn")
    return messages[-1]["content"]


def _chosen_example(row: Row, kinds: Kinds) -> dict[str, Any]:
    return _example(row["prompt"], _answer(row["chosen"]), "helpfulness")


def _chosen_pair(row: Row, kinds: Kinds) -> dict[str, Any]:
    chosen, rejected = _answer(row["chosen"]), _answer(row["rejected"])
    return _pair(row["prompt"], chosen, rejected, "helpfulness")


def _jailbreak(row: Row, kinds: Kinds) -> dict[str, Any]:
    """A jailbreak prompt, if it was made for text-only models.

    The others carry the attack in an image, and their text alone is none.
    """
    if not _flag(row.get("transfer_from_llm", True)):
        raise LeftOut("the attack is in its image")
    return _prompt(row["jailbreak_query"], "safety", "JailbreakV-28k")


def _source(row: Row) -> str:
    return str(row.get("source") or "")


def _stair_prompt(row: Row, kinds: Kinds) -> dict[str, Any]:
    return _prompt(row["prompt"], kinds(_source(row)), _source(row))


def _stair_example(row: Row, kinds: Kinds) -> dict[str, Any]:
    return _example(row["prompt"], row["answer"], kinds(_source(row)))


def _question(row: Row, kinds: Kinds) -> dict[str, Any]:
    if row["type"] not in KINDS:
        raise ValueError(f"type {row['type']!r} is not {' or '.join(KINDS)}")
    prompt = _prompt(row["question"], row["type"], "STAIR")
    reference = row.get("ground_truth")
    return prompt if reference in (None, "") else {**prompt, "reference": str(reference)}


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
            "prompts": lambda row, kinds: _prompt(row["prompt"], "safety", "PKU-SafeRLHF"),
            "sft": _safer_answer,
            "dpo": _safer_pair,
        },
    ),
    Schema(
        "UltraFeedback",
        frozenset(("instruction", "completions")),
        {
            "prompts": lambda row, _: _prompt(row["instruction"], "helpfulness", "UltraFeedback"),
            "sft": _best_completion,
            "dpo": _ranked_pair,
        },
    ),
    Schema(
        "UltraFeedback-binarized",
        frozenset(("prompt", "prompt_id", "chosen", "rejected")),
        {
            "prompts": lambda row, _: _prompt(row["prompt"], "helpfulness", "UltraFeedback"),
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
    Schema(
        "STAIR-SFT",
        frozenset(("prompt", "answer", "source")),
        {"prompts": _stair_prompt, "sft": _stair_example},
        id_column="id",
        others=frozenset(("id", "kind")),
    ),
    Schema(
        "STAIR-Prompts",
        frozenset(("prompt",)),
        {"prompts": _stair_prompt},
        id_column="id",
        others=frozenset(("id", "source")),
    ),
    Schema(
        "STAIR-search",
        frozenset(("question", "type")),
        {"prompts": _question},
        id_column="id",
    ),
)
