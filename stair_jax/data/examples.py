"""Encoding of rows as token sequences with a loss mask.

Prompt and answer are tokenised separately and their ids concatenated, so that the mask follows from
the lengths and no token spans the boundary.
"""

from collections.abc import Sequence

from stair_jax.data.packing import Example
from stair_jax.data.records import SftRow
from stair_jax.text.chat import encode_answer, encode_prompt
from stair_jax.text.steps import REASONING_CLOSE
from stair_jax.text.tokenizer import Tokenizer


def answer_example(tokenizer: Tokenizer, row: SftRow) -> Example:
    """An example as a sequence; the answer counts, with its end-of-sequence token."""
    prompt = encode_prompt(tokenizer, row.prompt)
    return join_example(prompt, encode_answer(tokenizer, row.answer), row.id)


def join_example(context: Sequence[int], counted: Sequence[int], name: str) -> Example:
    """An example of `context` (loss mask 0) followed by `counted` (loss mask 1)."""
    return Example([*context, *counted], [0] * len(context) + [1] * len(counted), name)


def describe(tokenizer: Tokenizer, example: Example) -> str:
    """An example as text for inspection, with the tokens that the loss counts in ⟦brackets⟧."""
    pieces: list[tuple[int, list[int]]] = []
    for token, counts in zip(example.tokens, example.loss_mask, strict=True):
        if not pieces or pieces[-1][0] != counts:
            pieces.append((counts, []))
        pieces[-1][1].append(token)
    texts = [str(tokenizer.hf.decode(ids)) for _, ids in pieces]
    return "".join(
        f"⟦{text}⟧" if counts else text for (counts, _), text in zip(pieces, texts, strict=True)
    )


def step_ids(
    tokenizer: Tokenizer, texts: Sequence[str], sampled: Sequence[int] | None
) -> list[int]:
    """Token ids of steps: the sampled ids if they are known, else those of the texts.

    A text that does not end with the closing tag of a reasoning block is the end of its answer, so
    the end-of-sequence token is added.
    """
    if sampled is not None:
        return list(sampled)
    ids: list[int] = []
    for text in texts:
        ends = not text.rstrip().endswith(REASONING_CLOSE)
        ids += encode_answer(tokenizer, text) if ends else tokenizer.encode_answer(text)
    return ids
