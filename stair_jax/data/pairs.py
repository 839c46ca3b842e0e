"""Preference pairs for DPO and the PRM: reading JSON lines, and encoding as token sequences."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from stair_jax.data.examples import join_example, step_ids
from stair_jax.data.packing import Example
from stair_jax.data.records import PathPair, PreferencePair, StepPair, read_dicts
from stair_jax.data.tokenized import TokenizedRows
from stair_jax.storage import read_jsonl
from stair_jax.text.chat import encode_prompt
from stair_jax.text.tokenizer import Tokenizer

Pair = tuple[Example, Example]  # chosen, rejected
SftOn = Literal["step", "answer"]
P = TypeVar("P", bound=PreferencePair)


def read_pairs(path: str | Path, record: type[P]) -> list[P]:
    """Reads the pairs of a file, of which there may be none.

    Args:
      path: JSON lines.
      record: `StepPair` or `PathPair`.

    Raises:
      UserError: a field is missing or has another type; names the line.
    """
    return read_dicts(read_jsonl(path), record, path)


def encode_pairs(
    rows: Sequence[P],
    encode: Callable[[Tokenizer, P], Pair],
    tokenizer: Tokenizer,
    max_length: int,
) -> tuple[list[P], list[Pair]]:
    """The pairs of which both sides have at most `max_length` tokens, as records and as sequences.

    Collective: each process of the run tokenises its share of the rows (see `TokenizedRows`).

    Args:
      rows: the pairs.
      encode: `step_examples` or `path_examples`.
      tokenizer: of the model.
      max_length: most tokens per side, prompt included; longer pairs are dropped, not truncated.
    """
    encoded = TokenizedRows(rows, partial(encode, tokenizer), 2)
    kept = np.flatnonzero((encoded.lengths <= max_length).all(1)).tolist()
    pairs = [(chosen, rejected) for chosen, rejected in (encoded[index] for index in kept)]
    return [rows[index] for index in kept], pairs


def step_examples(tokenizer: Tokenizer, pair: StepPair, sft_on: SftOn = "step") -> Pair:
    """A DPO pair as two sequences; the loss counts the two steps.

    With `sft_on` "answer" the SFT term counts the path before the chosen step as well.
    """
    prompt = encode_prompt(tokenizer, pair.prompt)
    path = step_ids(tokenizer, pair.path, pair.path_tokens, ends=False)
    chosen = step_ids(tokenizer, [pair.chosen], pair.chosen_tokens, pair.chosen_terminal)
    rejected = step_ids(tokenizer, [pair.rejected], pair.rejected_tokens, pair.rejected_terminal)
    other = join_example([*prompt, *path], rejected, pair.id)
    if sft_on == "answer":
        return join_example(prompt, chosen, pair.id, sft_alone=path), other
    return join_example([*prompt, *path], chosen, pair.id), other


def path_examples(tokenizer: Tokenizer, pair: PathPair) -> Pair:
    """A PRM pair as two sequences, prompt and path.

    Nothing is masked but the prompt; the score is read at the last token.
    """
    prompt = encode_prompt(tokenizer, pair.prompt)
    chosen = step_ids(tokenizer, pair.chosen_path, pair.chosen_tokens, pair.chosen_terminal)
    rejected = step_ids(tokenizer, pair.rejected_path, pair.rejected_tokens, pair.rejected_terminal)
    return join_example(prompt, chosen, pair.id), join_example(prompt, rejected, pair.id)
