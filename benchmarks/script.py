"""What a model would have said in a search: steps, answers and judgements of drawn lengths."""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from stair_jax.data.records import Prompt
from stair_jax.decoding.requests import Request
from stair_jax.search.judging.replies import QUESTIONS
from stair_jax.text.steps import FINAL_PREFIX
from stair_jax.text.tokenizer import Tokenizer

_FINAL_TOKENS = 40  # of the answer that a judge gets to see
_POOL = 1 << 16  # words drawn once, of which each text is a piece: a draw a text costs too much


class Spread(NamedTuple):
    """Numbers of tokens: normal, cut at `low` and at twice the mean."""

    mean: float
    deviation: float
    low: int = 16

    def draw(self, rng: np.random.Generator) -> int:
        """One number."""
        return int(min(max(round(rng.normal(self.mean, self.deviation)), self.low), 2 * self.mean))


@dataclass(frozen=True)
class Lengths:
    """What the script draws from.

    Attributes:
        step: tokens of a step.
        reply: tokens of a judge's reply.
        ends: the chance that a step is the last one, by its depth from 1 on; beyond them, 1.
        safe: the chance that a judge says SAFE.
    """

    step: Spread = field(default=Spread(150, 50))
    reply: Spread = field(default=Spread(130, 30))
    ends: tuple[float, ...] = (0.0, 0.01, 0.06, 0.2, 0.4, 0.65, 0.9)
    safe: float = 0.5


class Script:
    """Writes steps, answers and judgements in the words of a tokenizer."""

    def __init__(self, tokenizer: Tokenizer, lengths: Lengths = Lengths()):
        """Takes the words of the tokenizer that are one token each, wherever they stand."""
        self.tokenizer, self.lengths = tokenizer, lengths
        words = np.array(_words(tokenizer))
        self._pool = tuple(np.random.default_rng(5).choice(words, _POOL).tolist())
        self._conclusions: dict[Hashable, tuple[int, ...]] = {
            label: tuple(tokenizer.encode_text(f"\nConclusion: [{label}]"))
            for label in ("SAFE", "UNSAFE", 1, 2, 3, 4, 5)
        }
        self._final = tuple(tokenizer.encode_text(FINAL_PREFIX))

    def write(self, request: Request, depth: int) -> tuple[int, ...]:
        """What the model would have said to a request that samples.

        Args:
            request: of a search: the ids of a judge's end with the question; a step may stop at
                the end of a block, a rollout may not.
            depth: steps that its sequence has already.
        """
        assert request.sampling is not None
        rng = np.random.default_rng(request.key)
        if isinstance(request.id, tuple) and request.id[-1] in QUESTIONS:
            return self._reply(rng, str(request.id[-1]))
        one_step = self.tokenizer.tags.reasoning_close in request.sampling.stop_ids
        tokens: tuple[int, ...] = ()
        while True:
            depth += 1
            ends = self.lengths.ends[depth - 1] if depth <= len(self.lengths.ends) else 1.0
            last = rng.random() < ends
            tokens += self._step(rng, last)
            if one_step or last:
                return tokens

    def text(self, rng: np.random.Generator, count: int) -> str:
        """Words, `count` tokens."""
        return self.tokenizer.decode(self._draw(rng, count))

    def _draw(self, rng: np.random.Generator, count: int) -> tuple[int, ...]:
        start = int(rng.integers(_POOL // 2))
        return self._pool[start : start + max(count, 0)]

    def _step(self, rng: np.random.Generator, last: bool) -> tuple[int, ...]:
        """A reasoning block, or the reasoning before the output block and the block itself."""
        tags, count = self.tokenizer.tags, self.lengths.step.draw(rng)
        if not last:
            return (tags.reasoning_open, *self._draw(rng, count - 2), tags.reasoning_close)
        room = count - 2 - len(self._final)
        shown = min(max(room, 1), _FINAL_TOKENS)
        block = (tags.output_open, *self._final, *self._draw(rng, shown), tags.output_close)
        return self._draw(rng, room - shown) + block

    def _reply(self, rng: np.random.Generator, question: str) -> tuple[int, ...]:
        label: Hashable
        if question == "safety":
            label = "SAFE" if rng.random() < self.lengths.safe else "UNSAFE"
        else:
            label = int(rng.integers(1, 6))
        close = (*self._conclusions[label], self.tokenizer.eos_id)
        return self._draw(rng, self.lengths.reply.draw(rng) - len(close)) + close


def _words(tokenizer: Tokenizer) -> list[int]:
    """Tokens that are a space and letters, and come back when their text is read alone."""
    texts = {token: tokenizer.decode([token]) for token in range(tokenizer.vocab_size)}
    return [
        token
        for token, text in texts.items()
        if text[:1] == " " and text[1:].isalpha() and tokenizer.encode_text(text) == [token]
    ]


def scripted_prompts(script: Script, count: int, tokens: int = 110) -> Iterator[Prompt]:
    """Safety prompts of random words, each `tokens` long before the chat template."""
    for index in range(count):
        rng = np.random.default_rng([7, index])
        yield Prompt(f"p{index}", script.text(rng, tokens).strip(), "safety", "scripted")


def judge_template(script: Script, tokens: int = 220) -> str:
    """A judge's template with about so many tokens before the question."""
    words = script.text(np.random.default_rng(3), tokens).strip()
    return words + "\n{prompt}\n{answer}"
