"""Structured answers in vLLM: a plugin that gives their steps out as reasoning.

    vllm serve runs/NAME/policy/hf --reasoning-parser stair_jax \
        --reasoning-parser-plugin launch/vllm_reasoning.py

A client gets what `stair-jax serve` gives it: the text of the steps, titles included, in
`reasoning`, and that of the output block in `content`, both without tags. The file stands alone:
vLLM is run from a Python of its own, where stair_jax need not be. For vLLM 0.26.
"""

import re
from collections.abc import Sequence
from typing import Any

from vllm.entrypoints.openai.engine.protocol import DeltaMessage
from vllm.reasoning.abs_reasoning_parsers import ReasoningParser, ReasoningParserManager

REASONING_OPEN, REASONING_CLOSE = "<|Reasoning_step|>", "<|/Reasoning_step|>"
OUTPUT_OPEN, OUTPUT_CLOSE = "<|Output|>", "<|/Output|>"
TAGS = (REASONING_OPEN, REASONING_CLOSE, OUTPUT_OPEN, OUTPUT_CLOSE)
FINAL_PREFIX = "Final Answer:"
_TAG = re.compile("|".join(map(re.escape, TAGS)))
_PLACES = {REASONING_OPEN: "step", OUTPUT_OPEN: "output"}


def split(text: str, is_whole: bool = True) -> tuple[str, str]:
    """Reasoning and content of an answer, or what is known of them while it is sampled.

    What stands between or behind steps is content where no output block follows, and else
    reasoning. What further text adds stands behind what is known.

    Args:
      text: of the answer, tags included.
      is_whole: whether nothing follows.
    """
    if not is_whole:
        text = text[: len(text) - _possible_tag(text)]
    reasoning, content = [], []
    place, has_output, position = "start", False, 0
    for tag in (*_TAG.finditer(text), None):
        is_open = tag is None and not is_whole
        piece = text[position : tag.start() if tag else len(text)].strip()
        if place == "output":
            is_held = is_open and FINAL_PREFIX.startswith(piece)
            piece = "" if is_held else piece.removeprefix(FINAL_PREFIX).lstrip()
        elif place == "outside" and is_open:
            piece = ""
        is_step = place == "step" or (place == "outside" and (tag is not None or has_output))
        if piece:
            (reasoning if is_step else content).append(piece)
        if tag:
            place, position = _PLACES.get(tag.group(), "outside"), tag.end()
            has_output |= tag.group() in (OUTPUT_OPEN, OUTPUT_CLOSE)
    return "\n\n".join(reasoning), "".join(content)


def _possible_tag(text: str) -> int:
    """Length of the end of a text that may be the beginning of a tag."""
    start = text.rfind("<")
    end = text[start:] if start >= 0 else ""
    return len(end) if any(tag.startswith(end) for tag in TAGS) else 0


@ReasoningParserManager.register_module("stair_jax")
class StairReasoningParser(ReasoningParser):
    """Reads the answers of a model that `stair_jax` has trained; made anew for each request."""

    def __init__(self, tokenizer: Any, *args: Any, **kwargs: Any):
        """Raises a ValueError where the tokenizer has not got the tags."""
        super().__init__(tokenizer, *args, **kwargs)
        missing = [tag for tag in TAGS if tag not in self.vocab]
        if missing:
            raise ValueError(f"the tokenizer has no {missing[0]}: this is no export of stair_jax")
        self._ids = {self.vocab[tag]: tag for tag in TAGS}
        self._before = ""  # the tag of a step that the prompt has begun
        self._text = ""
        self._given = ("", "")

    def is_reasoning_end(self, input_ids: Sequence[int]) -> bool:
        """Whether the ids end inside of an output block: from there on, a grammar may apply."""
        return self._last_tag(input_ids) == OUTPUT_OPEN

    def is_reasoning_end_streaming(
        self, input_ids: Sequence[int], delta_ids: Sequence[int]
    ) -> bool:
        """Never: vLLM would give out the rest of the text as it is, with its closing tag."""
        return False

    def adjust_initial_state_from_prompt(self, prompt_token_ids: Sequence[int]) -> None:
        """Knows of a step that a last message of the assistant has begun."""
        if self._last_tag(prompt_token_ids) == REASONING_OPEN:
            self._before = REASONING_OPEN

    def extract_content_ids(self, input_ids: list[int]) -> list[int]:
        """The ids behind the last tag that opens the output block, up to a tag that closes it."""
        tags = [(place, self._ids[id]) for place, id in enumerate(input_ids) if id in self._ids]
        opening = next((place for place, tag in reversed(tags) if tag == OUTPUT_OPEN), None)
        if opening is None:
            return []
        closing = next((place for place, _ in tags if place > opening), len(input_ids))
        return input_ids[opening + 1 : closing]

    def extract_reasoning(self, model_output: str, request: Any) -> tuple[str | None, str | None]:
        """Reasoning and content of a whole answer."""
        reasoning, content = split(model_output)
        return reasoning or None, content or None

    def extract_reasoning_streaming(
        self,
        previous_text: str,
        current_text: str,
        delta_text: str,
        previous_token_ids: Sequence[int],
        current_token_ids: Sequence[int],
        delta_token_ids: Sequence[int],
    ) -> DeltaMessage | None:
        """What became known by further text."""
        self._text = self._before + current_text
        reasoning, content = self._new(is_whole=False)
        if not reasoning and not content:
            return None
        return DeltaMessage(reasoning=reasoning or None, content=content or None)

    def get_streaming_fallback_content(self, text: str, request: Any) -> str | None:
        """The content that is left at the end of an answer; called by vLLM when it is finished."""
        return self._new(is_whole=True)[1] or None

    def _new(self, is_whole: bool) -> tuple[str, str]:
        known, given = split(self._text, is_whole), self._given
        self._given = known
        return known[0][len(given[0]) :], known[1][len(given[1]) :]

    def _last_tag(self, ids: Sequence[int]) -> str | None:
        return next((self._ids[id] for id in reversed(ids) if id in self._ids), None)
