"""The text of one answer as it comes: up to a stop text, as reasoning and content."""

from collections.abc import Sequence

from stair_jax.server.reasoning import Delta, Reasoning
from stair_jax.text.answer_stream import TokenText
from stair_jax.text.steps import OUTPUT_OPEN, REASONING_OPEN
from stair_jax.text.tokenizer import Tokenizer


class UntilStop:
    """Text up to the first of some stop texts."""

    def __init__(self, stops: Sequence[str]):
        """Nothing has come."""
        self._stops = stops
        self._pending = ""
        self.was_met = False

    def add(self, text: str, is_last: bool = False) -> str:
        """What is known not to belong to a stop text."""
        if self.was_met or not self._stops:
            return "" if self.was_met else text
        self._pending += text
        places = [place for stop in self._stops if (place := self._pending.find(stop)) >= 0]
        if places:
            self.was_met = True
            return self._pending[: min(places)]
        held = 0 if is_last else max(_overlap(self._pending, stop) for stop in self._stops)
        known = self._pending[: len(self._pending) - held]
        self._pending = self._pending[len(known) :]
        return known


class ChoiceText:
    """Token ids of an answer as pieces of reasoning and content.

    Stop texts end the content; in the steps before it they end nothing.

    Attributes:
      num_tokens: that have come; what comes behind a stop text is not counted.
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str], reasoning: Reasoning):
        """The beginning of an answer; `reasoning` may have read one that it goes on with."""
        self._text, self._until = TokenText(tokenizer), UntilStop(stops)
        self._has_stops = bool(stops)
        self._reasoning = reasoning
        self.num_tokens = 0

    @property
    def is_stopped(self) -> bool:
        """Whether a stop text has come."""
        return self._until.was_met

    def add(self, ids: Sequence[int]) -> Delta:
        """What became known by further ids; with stop texts, one by one up to the first of them."""
        if not self._has_stops:
            return self._add(ids)
        found = Delta()
        for id in ids:
            if self.is_stopped:
                break
            found = joined(found, self._add([id]))
        return found

    def _add(self, ids: Sequence[int]) -> Delta:
        self.num_tokens += len(ids)
        delta = self._reasoning.add(self._text.add(ids))
        return delta._replace(content=self._until.add(delta.content))

    def end(self) -> Delta:
        """The rest."""
        first, last = self._reasoning.add(self._text.end()), self._reasoning.end()
        content = self._until.add(first.content + last.content, is_last=True)
        return Delta(first.reasoning + last.reasoning, content)


def joined(first: Delta, second: Delta) -> Delta:
    """Two pieces as one."""
    return Delta(first.reasoning + second.reasoning, first.content + second.content)


def num_reasoning_tokens(tokenizer: Tokenizer, ids: Sequence[int], begun: str = "") -> int:
    """Tokens of an answer up to its output block, or all where a step is open.

    Args:
      tokenizer: of the model.
      ids: of the answer.
      begun: text that it goes on with.
    """
    tags = tokenizer.tags
    if OUTPUT_OPEN in begun:
        return 0
    if tags.output_open in ids:
        return ids.index(tags.output_open)
    return len(ids) if REASONING_OPEN in begun or tags.reasoning_open in ids else 0


def _overlap(text: str, stop: str) -> int:
    """Length of the end of a text with which a stop text may begin."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
