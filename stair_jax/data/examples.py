"""Encoding of rows as token sequences with a loss mask.

Prompt and answer are tokenised separately and their ids concatenated, so that the mask follows from
the lengths and no token spans the boundary.
"""

from collections.abc import Sequence

from stair_jax.data.packing import COUNTED, SFT_ALONE, Example
from stair_jax.data.records import Record, SftRow
from stair_jax.errors import UserError
from stair_jax.text.chat import encode_answer, encode_prompt
from stair_jax.text.conversations import encode_chat
from stair_jax.text.steps import REASONING_CLOSE
from stair_jax.text.tokenizer import Tokenizer


def encode_row(tokenizer: Tokenizer, row: Record, tags_are_text: bool = False) -> list[int]:
    """Token ids of a row's prompt, with its system turn and earlier turns if it has any.

    White space around what people wrote is stripped, as `encode_prompt` does.

    Args:
      tokenizer: with a chat template.
      row: any record with a prompt.
      tags_are_text: as of `encode_chat`.

    Raises:
      UserError: as `encode_prompt` and `encode_chat`; of the latter with the row's id.
    """
    if not row.is_chat:
        return encode_prompt(tokenizer, row.prompt)
    messages = [
        turn if turn["role"] == "assistant" else {**turn, "content": turn["content"].strip()}
        for turn in row.messages
    ]
    try:
        return encode_chat(tokenizer, messages, tags_are_text=tags_are_text)
    except UserError as error:
        raise UserError(f"the chat of the row {row.id!r}: {error}") from error


def answer_example(tokenizer: Tokenizer, row: SftRow) -> Example:
    """An example as a sequence; the answer counts, with its end token, and no start does."""
    prompt = [*encode_row(tokenizer, row), *start_ids(tokenizer, row)]
    return join_example(prompt, encode_answer(tokenizer, row.answer), row.id)


def start_ids(tokenizer: Tokenizer, row: Record) -> list[int]:
    """Token ids of what the answer to a row is made to begin with; none where there is no start."""
    return step_ids(tokenizer, row.start or (), None, ends=False)


def join_example(
    context: Sequence[int], counted: Sequence[int], name: str, sft_alone: Sequence[int] = ()
) -> Example:
    """An example of `context` (loss mask 0), `sft_alone` (SFT_ALONE) and `counted` (COUNTED)."""
    mask = [0] * len(context) + [SFT_ALONE] * len(sft_alone) + [COUNTED] * len(counted)
    return Example([*context, *sft_alone, *counted], mask, name)


def describe(tokenizer: Tokenizer, example: Example) -> str:
    """An example as text for inspection, with the tokens that the loss counts in ⟦brackets⟧."""
    pieces: list[tuple[bool, list[int]]] = []
    counted = (mask == COUNTED for mask in example.loss_mask)
    for token, counts in zip(example.tokens, counted, strict=True):
        if not pieces or pieces[-1][0] != counts:
            pieces.append((counts, []))
        pieces[-1][1].append(token)
    texts = [str(tokenizer.hf.decode(ids)) for _, ids in pieces]
    return "".join(
        f"⟦{text}⟧" if counts else text for (counts, _), text in zip(pieces, texts, strict=True)
    )


def step_ids(
    tokenizer: Tokenizer,
    texts: Sequence[str],
    sampled: Sequence[int] | None,
    ends: bool | None = None,
) -> list[int]:
    """Token ids of steps: the sampled ids if they are known, else those of the texts.

    Args:
      tokenizer: of the model.
      texts: of the steps, in order.
      sampled: ids of all of them.
      ends: whether the last step ends its answer, so that `Tokenizer.end_id` is added; None: it
        does, unless it ends with the closing tag of a reasoning block.
    """
    if sampled is not None:
        return list(sampled)
    ids = [token for text in texts for token in tokenizer.encode_answer(text)]
    if ends is None:
        ends = bool(texts) and not texts[-1].rstrip().endswith(REASONING_CLOSE)
    return [*ids, tokenizer.end_id] if ends else ids
