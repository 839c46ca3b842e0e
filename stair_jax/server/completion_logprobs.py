"""Log-probabilities of tokens, as text completions have them."""

import itertools
from collections.abc import Sequence
from typing import Any

from stair_jax.inference.prompt_logps import LogpsCompletion
from stair_jax.server.logprobs import LEAST, token_text
from stair_jax.text.tokenizer import Tokenizer


def completion_logprobs(
    tokenizer: Tokenizer,
    ids: Sequence[int],
    scored: LogpsCompletion | None,
    length: int | None = None,
) -> dict[str, Any]:
    """The field `logprobs` of a choice.

    Args:
      tokenizer: of the model.
      ids: of the text, with those of the prompt where it is echoed.
      scored: of the last of them; None: none is scored. What nothing stands before has none.
      length: characters of the text, where it was cut before a stop text; None: all count.
    """
    tokens = [token_text(tokenizer, id) for id in ids]
    offsets = list(itertools.accumulate(map(len, tokens), initial=0))[:-1]
    unscored = len(ids) - (len(scored.logps) if scored else 0)
    logps: list[float | None] = [None] * unscored
    top: list[dict[str, float] | None] = [None] * unscored
    if scored is not None:
        logps += [max(logp, LEAST) for logp in scored.logps]
        for token, logp, likeliest in zip(tokens[unscored:], scored.logps, scored.top, strict=True):
            top.append(_top(tokenizer, token, logp, likeliest))
    kept = len(ids)
    if length is not None:
        kept = sum(offset < length for offset in offsets)
    return {
        "tokens": tokens[:kept],
        "token_logprobs": logps[:kept],
        "top_logprobs": top[:kept],
        "text_offset": offsets[:kept],
    }


def _top(
    tokenizer: Tokenizer, token: str, logp: float, likeliest: Sequence[tuple[int, float]]
) -> dict[str, float]:
    """By text; of tokens with the same text (parts of a character) the likeliest counts."""
    found: dict[str, float] = {}
    for id, value in likeliest:
        found.setdefault(token_text(tokenizer, id), max(value, LEAST))
    found[token] = max(logp, LEAST, found.get(token, LEAST))
    return found
