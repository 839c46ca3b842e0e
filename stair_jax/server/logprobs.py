"""Log-probabilities of sampled tokens, as chat completions have them."""

import re
from collections.abc import Sequence
from typing import Any

from stair_jax.text.plain import byte_names
from stair_jax.text.tokenizer import Tokenizer

# The most negative that JSON readers of all clients take: OpenAI's own for "never".
LEAST = -9999.0
_BYTE_PIECE = re.compile("<0x([0-9A-F]{2})>")  # of vocabularies that fall back on bytes
_BYTES = {name: byte for byte, name in byte_names().items()}  # of byte-level ones


def chat_logprobs(
    tokenizer: Tokenizer,
    ids: Sequence[int],
    logps: Sequence[float],
    top: Sequence[Sequence[tuple[int, float]]] = (),
) -> dict[str, Any]:
    """The field `logprobs` of a choice.

    Args:
      tokenizer: of the model.
      ids: sampled tokens.
      logps: of each, in nats.
      top: in the place of each, ids of the likeliest tokens with theirs; (): not asked for.
    """
    content = []
    for id, logp, likeliest in zip(ids, logps, top or [()] * len(ids), strict=True):
        others = [token_entry(tokenizer, *pair) for pair in likeliest]
        content.append({**token_entry(tokenizer, id, logp), "top_logprobs": others})
    return {"content": content, "refusal": None}


def token_entry(tokenizer: Tokenizer, id: int, logp: float) -> dict[str, Any]:
    """A token with its log-probability."""
    text = token_text(tokenizer, id)
    return {"token": text, "logprob": max(logp, LEAST), "bytes": token_bytes(tokenizer, id)}


def token_bytes(tokenizer: Tokenizer, id: int) -> list[int]:
    """The bytes of one token, which may be a part of a character: its text cannot be told then."""
    text, piece = token_text(tokenizer, id), tokenizer.hf.backend_tokenizer.id_to_token(id) or ""
    if "\ufffd" in text:
        if found := _BYTE_PIECE.fullmatch(piece):
            return [int(found[1], 16)]
        if set(piece) <= _BYTES.keys():
            return [_BYTES[character] for character in piece]
    return list(text.encode())


def token_text(tokenizer: Tokenizer, id: int) -> str:
    """The text of one token; special ones show their names."""
    return tokenizer.hf.backend_tokenizer.decode([id], skip_special_tokens=False)
