"""Preference pairs for DPO and the PRM: reading JSON lines, and encoding as token sequences."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from stair_jax.data.encoded import Encoded
from stair_jax.data.packing import Example
from stair_jax.data.sequences import Row, joined, step_ids
from stair_jax.errors import UserError
from stair_jax.storage import read_jsonl
from stair_jax.text.chat import encode_prompt
from stair_jax.text.tokenizer import Tokenizer

Pair = tuple[Example, Example]  # chosen, rejected
Fields = Mapping[str, type]

STEP_FIELDS: Fields = {"id": str, "prompt": str, "path": list, "chosen": str, "rejected": str}
PATH_FIELDS: Fields = {"id": str, "prompt": str, "chosen_path": list, "rejected_path": list}


def read_pairs(path: str | Path, fields: Fields) -> list[dict[str, Any]]:
    """Reads the pairs of a JSON-lines file, which may be empty.

    Args:
      path: of the file.
      fields: required fields and their types; `STEP_FIELDS` for DPO, `PATH_FIELDS` for the PRM.

    Raises:
      UserError: a field is missing or has another type; names the line.
    """
    return check_pairs(read_jsonl(path), fields, path)


def check_pairs(rows: list[dict[str, Any]], fields: Fields, path: Any) -> list[dict[str, Any]]:
    """Checks pairs as `read_pairs` does, and returns them; `path` is for messages.

    Raises:
      UserError: as `read_pairs`.
    """
    for number, row in enumerate(rows, start=1):
        for name, kind in fields.items():
            if not isinstance(row.get(name), kind):
                form = "text" if kind is str else "a list of texts"
                raise UserError(f"{path}, line {number}: the field {name!r} must be {form}")
    return rows


def encode_pairs(
    rows: Sequence[Row],
    encode: Callable[[Tokenizer, Row], Pair],
    tokenizer: Tokenizer,
    max_length: int,
) -> tuple[list[Row], list[Pair]]:
    """The pairs whose sides both have at most `max_length` tokens: (rows, token sequences).

    Collective: each process of the run tokenises its share of the rows (see `Encoded`).

    Args:
      rows: the pairs.
      encode: `step_examples` or `path_examples`.
      tokenizer: of the model.
      max_length: most tokens per side, prompt included; longer pairs are dropped, not truncated.
    """
    encoded = Encoded(rows, partial(encode, tokenizer), 2)
    kept = np.flatnonzero((encoded.lengths <= max_length).all(1)).tolist()
    pairs = [(chosen, rejected) for chosen, rejected in (encoded[index] for index in kept)]
    return [rows[index] for index in kept], pairs


def step_examples(tokenizer: Tokenizer, row: Row) -> Pair:
    """A DPO pair {id, prompt, path, chosen, rejected} as two sequences: prompt, path, step.

    The loss counts the tokens of the two steps. If the row has `path_tokens`, `chosen_tokens` and
    `rejected_tokens` (the sampled ids), these are used instead of tokenising the texts, which could
    give other ids than the model had drawn.
    """
    context = encode_prompt(tokenizer, row["prompt"])
    context += step_ids(tokenizer, row["path"], row.get("path_tokens"))
    chosen, rejected = (
        joined(context, step_ids(tokenizer, [row[side]], row.get(f"{side}_tokens")), row["id"])
        for side in ("chosen", "rejected")
    )
    return chosen, rejected


def path_examples(tokenizer: Tokenizer, row: Row) -> Pair:
    """A PRM pair {id, prompt, chosen_path, rejected_path} as two sequences: prompt, path.

    If the row has `chosen_tokens` and `rejected_tokens` (sampled ids of the whole paths), these are
    used instead of the texts. The mask counts the path, but the PRM reads only the score at the
    last token.
    """
    prompt = encode_prompt(tokenizer, row["prompt"])
    chosen, rejected = (
        joined(
            prompt, step_ids(tokenizer, row[f"{side}_path"], row.get(f"{side}_tokens")), row["id"]
        )
        for side in ("chosen", "rejected")
    )
    return chosen, rejected
