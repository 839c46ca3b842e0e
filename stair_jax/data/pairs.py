"""Preference pairs for DPO and the PRM: reading JSON lines, and encoding as token sequences."""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from stair_jax.data.examples import encode_row, join_example, start_ids, step_ids
from stair_jax.data.packing import Example
from stair_jax.data.records import PathPair, PreferencePair, StepPair, read_dicts
from stair_jax.data.tokenized import TokenizedRows
from stair_jax.errors import UserError
from stair_jax.storage import read_jsonl
from stair_jax.text.steps import OUTPUT_CLOSE, breaks_output
from stair_jax.text.tokenizer import Tokenizer

Pair = tuple[Example, Example]  # chosen, rejected
SftOn = Literal["step", "answer"]
P = TypeVar("P", bound=StepPair | PathPair)


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
    counts: Counter[str] | None = None,
) -> tuple[list[P], list[Pair]]:
    """The pairs that training can use, as records and as sequences.

    Both sides have at most `max_length` tokens, each has a token that counts beside end tokens, and
    they differ. The better one does not go on behind its output block.

    Collective: each process of the run tokenises its share of the rows (see `TokenizedRows`).

    Args:
      rows: the pairs.
      encode: `step_examples` or `path_examples`.
      tokenizer: of the model.
      max_length: most tokens per side, prompt included; longer pairs are dropped, not truncated.
      counts: incremented by one reason for each pair that is dropped.
    """
    encoded = TokenizedRows(rows, partial(encode, tokenizer), 2, ends=tokenizer.stop_ids)
    left_out = {
        "above max_length": (encoded.lengths > max_length).any(1),
        "with a malformed better side": np.array(
            [breaks_output("".join(row.better_texts)) for row in rows], dtype=np.bool_
        ),
        "with an empty side": (encoded.weighted < 1).any(1),
        "with both sides alike": (encoded.lengths[:, 0] == encoded.lengths[:, 1])
        & (encoded.checksums[:, 0] == encoded.checksums[:, 1]),
    }
    passed = np.ones(len(rows), bool)
    for reason, hit in left_out.items():  # each pair is counted once
        if counts is not None and (passed & hit).any():
            counts[reason] += int(np.sum(passed & hit))
        passed &= ~hit
    kept = np.flatnonzero(passed).tolist()
    pairs = [(chosen, rejected) for chosen, rejected in (encoded[index] for index in kept)]
    return [rows[index] for index in kept], pairs


def check_token_ids(rows: Sequence[PreferencePair], vocab_size: int, where: object) -> None:
    """Checks that token ids which pairs give are those of a vocabulary.

    Raises:
      UserError: names the line of `where`, the field and the id.
    """
    for number, row in enumerate(rows, start=1):
        for field in ("path_tokens", "chosen_tokens", "rejected_tokens"):
            largest = max(getattr(row, field, None) or (0,))
            if largest >= vocab_size:
                raise UserError(
                    f"{where}, line {number}: {field} has the token id {largest}, and the model "
                    f"has 0 to {vocab_size - 1}: leave the token ids away, or use those of its own "
                    "tokenizer"
                )


def describe_left_out(counts: Counter[str]) -> str:
    """Why pairs were dropped and how often, as text for the log."""
    reasons = ", ".join(f"{count} {reason}" for reason, count in counts.items())
    return f"{reasons or 'none'} left out"


def step_examples(tokenizer: Tokenizer, pair: StepPair, sft_on: SftOn = "step") -> Pair:
    """A DPO pair as two sequences; the loss counts the two steps.

    With `sft_on` "answer" the SFT term counts the path before the chosen step as well, but for the
    start of the answer, which nothing counts.

    Raises:
      UserError: as `encode_row`; or the token ids of the path do not begin with those of the start.
    """
    start = start_ids(tokenizer, pair)
    prompt = [*encode_row(tokenizer, pair), *start]
    path = _behind(start, step_ids(tokenizer, pair.path, pair.path_tokens, ends=False), pair.id)
    chosen = step_ids(tokenizer, [pair.chosen], pair.chosen_tokens, pair.chosen_terminal)
    rejected = step_ids(tokenizer, [pair.rejected], pair.rejected_tokens, pair.rejected_terminal)
    other = join_example([*prompt, *path], rejected, pair.id)
    if sft_on == "answer":
        return join_example(prompt, chosen, pair.id, sft_alone=path), other
    return join_example([*prompt, *path], chosen, pair.id), other


def _behind(start: list[int], path: list[int], name: str) -> list[int]:
    """What of a path follows its start."""
    if path[: len(start)] != start:
        raise UserError(
            f"the pair {name!r}: its path_tokens do not begin with the tokens of its start: leave "
            "the token ids away, or use those of the model's own tokenizer"
        )
    return path[len(start) :]


def path_examples(tokenizer: Tokenizer, pair: PathPair) -> Pair:
    """A PRM pair as two sequences, prompt and path.

    Nothing is masked but the prompt; the score is read at the last token. A path given as text ends
    where a sampled one does: behind the closing tag of an output block there is no end token.
    """
    prompt = encode_row(tokenizer, pair)
    chosen, rejected = (
        step_ids(tokenizer, texts, sampled, False if _ends_output(texts) else is_terminal)
        for texts, sampled, is_terminal in (
            (pair.chosen_path, pair.chosen_tokens, pair.chosen_terminal),
            (pair.rejected_path, pair.rejected_tokens, pair.rejected_terminal),
        )
    )
    return join_example(prompt, chosen, pair.id), join_example(prompt, rejected, pair.id)


def _ends_output(texts: Sequence[str]) -> bool:
    return bool(texts) and texts[-1].rstrip().endswith(OUTPUT_CLOSE)
