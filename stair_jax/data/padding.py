"""Padded batches with one sequence per row, for custom training loops.

The training stages pack several sequences into a row instead (`training/batches.py`), with less
padding; here row i of a batch is simply example i.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from stair_jax.data.examples import answer_example
from stair_jax.data.packing import COUNTED, Example
from stair_jax.data.pairs import Pair, path_examples, step_examples
from stair_jax.data.records import KINDS, PathPair, PreferencePair, Record, SftRow, StepPair
from stair_jax.errors import UserError
from stair_jax.text.tokenizer import Tokenizer

PaddedBatch = dict[str, np.ndarray]
Row = Mapping[str, Any]
R = TypeVar("R", bound=Record)
P = TypeVar("P", bound=PreferencePair)


def pad(examples: Sequence[Example], length: int | None = None) -> PaddedBatch:
    """Stacks examples as rows, padded with zeros at the end.

    Args:
      examples: N of them.
      length: T; None: the length of the longest example.

    Returns:
      `tokens`, `targets` (the next tokens), `positions`, `segment_ids` (1; 0 for padding):
      `[N, T]` int32; `weights`: `[N, T]` float32, 1 where the target counts; `last`: `[N]` int32,
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
        batch["weights"][row, : end - 1] = np.asarray(example.loss_mask)[1:] == COUNTED
    return batch


def sft_batch(tokenizer: Tokenizer, rows: Sequence[Row], length: int | None = None) -> PaddedBatch:
    """SFT examples `{prompt, answer}` as a batch; the loss counts the tokens of the answers.

    Args:
      tokenizer: of the model.
      rows: N examples; the end-of-sequence token is added to each answer.
      length: see `pad`.

    Returns:
      as `pad`.

    Raises:
      UserError: as `pad`, or an answer is empty, or a field is missing or no text.
    """
    # A batch has no use for the kind, so that rows need none, and may have one of their own.
    records = _records(SftRow, [{**row, "kind": KINDS[0]} for row in rows])
    examples = [answer_example(tokenizer, record) for record in records]
    _check_weight(tokenizer, examples)
    return pad(examples, length)


def dpo_batch(
    tokenizer: Tokenizer, pairs: Sequence[StepPair | Row], length: int | None = None
) -> tuple[PaddedBatch, PaddedBatch]:
    """DPO pairs as two batches, chosen and rejected, of the same length.

    Args:
      tokenizer: of the model.
      pairs: from `sibling_pairs` or `trajectory_pairs`; or `{prompt, path, chosen, rejected}` as
        text, where `path` is the list of the preceding steps (empty if absent).
      length: see `pad`.

    Returns:
      (chosen, rejected), batches as of `pad`; the loss counts the tokens of the two steps.

    Raises:
      UserError: as `pad`, or a step is empty, or both are the same, or a field is missing or of a
        wrong type.
    """
    return _pair_batch(step_examples, tokenizer, _records(StepPair, pairs, path=[]), length)


def prm_batch(
    tokenizer: Tokenizer, pairs: Sequence[PathPair | Row], length: int | None = None
) -> tuple[PaddedBatch, PaddedBatch]:
    """PRM pairs as two batches, chosen and rejected, of the same length.

    Args:
      tokenizer: of the model.
      pairs: from `prm_pairs`; or `{prompt, chosen_path, rejected_path}` as text, where a path is
        the list of its steps.
      length: see `pad`.

    Returns:
      (chosen, rejected), batches as of `pad`.

    Raises:
      UserError: as `pad`, or a path is empty, or both are the same, or a field is missing or of a
        wrong type.
    """
    return _pair_batch(path_examples, tokenizer, _records(PathPair, pairs), length)


def _pair_batch(
    encode: Callable[[Tokenizer, P], Pair],
    tokenizer: Tokenizer,
    pairs: Sequence[P],
    length: int | None,
) -> tuple[PaddedBatch, PaddedBatch]:
    encoded = [encode(tokenizer, pair) for pair in pairs]
    for first, second in encoded:
        _check_weight(tokenizer, (first, second))
        if list(first.tokens) == list(second.tokens):
            raise UserError(
                f"both sides of pair {first.id!r} are the same: remove it from the data"
            )
    if length is None:
        length = max((len(example) for pair in encoded for example in pair), default=None)
    chosen, rejected = ([pair[side] for pair in encoded] for side in (0, 1))
    return pad(chosen, length), pad(rejected, length)


def _check_weight(tokenizer: Tokenizer, examples: Iterable[Example]) -> None:
    """Raises a UserError for an example of which the loss counts end tokens alone."""
    for example in examples:
        mask = example.loss_mask
        counted = (id for id, m in zip(example.tokens, mask, strict=True) if m == COUNTED)
        if set(counted) <= set(tokenizer.stop_ids):
            raise UserError(f"example {example.id!r} has an empty answer: remove it from the data")


def _records(record: type[R], rows: Sequence[R | Row], **absent: Any) -> list[R]:
    """Rows as records; those that are none yet get what they lack: `absent`, a number as id."""
    return [
        record.from_dict({"id": str(index), **absent, **row}, f"row {index}")
        if isinstance(row, Mapping)
        else row
        for index, row in enumerate(rows)
    ]
