"""Batches of one sequence a row, padded to one length: for training loops of one's own.

The training stages pack several sequences into a row instead (training/batches.py), which wastes
less; here the rows of a batch are the examples themselves, in their order.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from stair_jax.data.packing import Example
from stair_jax.data.pairs import Pair, path_examples, step_examples
from stair_jax.data.sequences import answer_example
from stair_jax.errors import UserError
from stair_jax.text.tokenizer import Tokenizer

PaddedBatch = dict[str, np.ndarray]


def pad(examples: Sequence[Example], length: int | None = None) -> PaddedBatch:
    """One example a row, padded with zeros at the end.

    Args:
      examples: N of them.
      length: T; None: that of the longest.

    Returns:
      `tokens`, `targets` (the next token), `positions`, `segment_ids` (1; 0 is padding): `[N, T]`
      int32; `weights`: `[N, T]` float32, 1 where the target counts; `last`: `[N]` int32, the
      position of the last token.

    Raises:
      UserError: there is no example, or one is longer than T.
    """
    if not examples:
        raise UserError("there is nothing to make a batch of: no example is left")
    lengths = [len(example) for example in examples]
    length = max(lengths) if length is None else length
    for example in examples:
        if len(example) > length:
            raise UserError(
                f"example {example.id!r} has {len(example)} tokens, more than length {length}: "
                "raise length, or leave it out"
            )
    shape = (len(examples), length)
    names = ("tokens", "targets", "positions", "segment_ids")
    batch = {name: np.zeros(shape, np.int32) for name in names}
    batch["weights"] = np.zeros(shape, np.float32)
    batch["last"] = np.array(lengths, np.int32) - 1
    for row, example in enumerate(examples):
        end = len(example)
        batch["tokens"][row, :end] = example.tokens
        batch["targets"][row, : end - 1] = example.tokens[1:]
        batch["positions"][row, :end] = np.arange(end)
        batch["segment_ids"][row, :end] = 1
        batch["weights"][row, : end - 1] = example.loss_mask[1:]
    return batch


def sft_batch(
    tokenizer: Tokenizer, rows: Sequence[Mapping[str, Any]], length: int | None = None
) -> PaddedBatch:
    """Examples `{prompt, answer}` as a batch, in which the tokens of the answers count.

    Args:
      tokenizer: of the model.
      rows: N examples; an answer is closed by the end-of-sequence token.
      length: see `pad`.

    Returns:
      as `pad`.

    Raises:
      UserError: as `pad`, or an answer is empty.
    """
    examples = [answer_example(tokenizer, _named(row, index)) for index, row in enumerate(rows)]
    return pad(examples, length)


def dpo_batch(
    tokenizer: Tokenizer, pairs: Sequence[Mapping[str, Any]], length: int | None = None
) -> tuple[PaddedBatch, PaddedBatch]:
    """Preference pairs of steps as two batches, chosen and rejected, of the same length.

    Args:
      tokenizer: of the model.
      pairs: as `sibling_pairs` and `trajectory_pairs` make them, or `{prompt, path, chosen,
        rejected}` in text, where `path` is the list of the steps before, if there are any.
      length: see `pad`.

    Returns:
      two batches as of `pad`; the tokens of the chosen and of the rejected steps count.

    Raises:
      UserError: as `pad`, or a step is empty.
    """
    return _pair_batch(step_examples, tokenizer, [{"path": [], **pair} for pair in pairs], length)


def prm_batch(
    tokenizer: Tokenizer, pairs: Sequence[Mapping[str, Any]], length: int | None = None
) -> tuple[PaddedBatch, PaddedBatch]:
    """Pairs of paths as two batches, chosen and rejected, of the same length.

    Args:
      tokenizer: of the model.
      pairs: as `prm_pairs` makes them, or `{prompt, chosen_path, rejected_path}` in text, where a
        path is the list of its steps.
      length: see `pad`.

    Returns:
      two batches as of `pad`.

    Raises:
      UserError: as `pad`, or a path is empty.
    """
    return _pair_batch(path_examples, tokenizer, pairs, length)


def _pair_batch(
    encode: Callable[[Tokenizer, Mapping[str, Any]], Pair],
    tokenizer: Tokenizer,
    pairs: Sequence[Mapping[str, Any]],
    length: int | None,
) -> tuple[PaddedBatch, PaddedBatch]:
    encoded = [encode(tokenizer, _named(pair, index)) for index, pair in enumerate(pairs)]
    if length is None:
        length = max((len(example) for pair in encoded for example in pair), default=None)
    chosen, rejected = ([pair[side] for pair in encoded] for side in (0, 1))
    return pad(chosen, length), pad(rejected, length)


def _named(row: Mapping[str, Any], index: int) -> Mapping[str, Any]:
    """A row with an id, for error messages."""
    return {"id": f"{index}", **row}
