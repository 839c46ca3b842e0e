"""What a client gets of a structured answer: its steps as reasoning, its output block as content.

The text of an answer is read as it is sampled, so that steps and output come in pieces. An answer
that is read at once gives the same as one that is read in pieces.
"""

from typing import Literal, NamedTuple

from stair_jax.text.steps import (
    FINAL_PREFIX,
    OUTPUT_CLOSE,
    OUTPUT_OPEN,
    REASONING_OPEN,
    TAG_PATTERN,
    TAGS,
)

Mode = Literal["separate", "hidden", "raw"]
MODES: tuple[Mode, ...] = ("separate", "hidden", "raw")
_BETWEEN = "\n\n"  # steps of the reasoning
# "start": no tag has come; "step", "output": in such a block; "outside": between or behind blocks.
_Place = Literal["start", "step", "output", "outside"]
_OPENED: dict[str, _Place] = {REASONING_OPEN: "step", OUTPUT_OPEN: "output"}


class Delta(NamedTuple):
    """A piece of what a client gets.

    Attributes:
      reasoning: text of the steps, titles included, without tags; a blank line between two steps.
      content: text of the output block, without tags and "Final Answer:".
    """

    reasoning: str = ""
    content: str = ""


class Reasoning:
    """Reads an answer as it comes.

    White space around the text of a block is left out. What stands before the first tag is content,
    as all of an answer without tags is. What stands between or behind steps is content where no
    output block follows (`steps.final_answer` reads the same), and else reasoning: only the end
    tells. So an answer that is cut off inside of a step has no content.
    """

    def __init__(self, mode: Mode = "separate", is_structured: bool = True):
        """The beginning of an answer.

        Args:
          mode: "separate": steps and output apart; "hidden": the output alone; "raw": all of the
            text is content, tags included.
          is_structured: whether the model has tags; else all is content.
        """
        self._is_raw = mode == "raw" or not is_structured
        self._is_hidden = mode == "hidden"
        self._place: _Place = "start"
        self._pending = ""  # the beginning of a tag, perhaps
        self._held = ""  # text of which is not known yet whether or where it is shown
        self._has_output = False
        self._is_begun = False  # whether text of the block has been shown
        self._is_head = False  # whether "Final Answer:" may come
        self._has_steps = False  # whether any reasoning has been shown
        self._new = Delta()

    def add(self, text: str) -> Delta:
        """What became known by further text."""
        if self._is_raw:
            return Delta(content=text)
        self._pending += text
        place = 0
        for tag in TAG_PATTERN.finditer(self._pending):
            self._take(self._pending[place : tag.start()])
            self._turn(tag.group())
            place = tag.end()
        rest = self._pending[place:]
        known = len(rest) - _possible_tag(rest)
        self._take(rest[:known])
        self._pending = rest[known:]
        return self._taken()

    def end(self) -> Delta:
        """What is left at the end of the answer."""
        self._take(self._pending)
        self._pending = ""
        if self._place == "outside" or self._is_prefix:
            self._release(is_reasoning=self._has_output and self._place == "outside")
        return self._taken()

    @property
    def _is_prefix(self) -> bool:
        """Whether what is held may be a part of "Final Answer:"."""
        return self._is_head and self._held != FINAL_PREFIX

    def _taken(self) -> Delta:
        new, self._new = self._new, Delta()
        return new._replace(reasoning="") if self._is_hidden else new

    def _turn(self, tag: str) -> None:
        """Leaves a block at a tag, and comes to what follows."""
        if self._place == "outside":
            # Also what a closing tag without an opening one ends: that is a step.
            self._release(is_reasoning=True)
        elif self._is_prefix:
            self._release(is_reasoning=False)
        self._place = _OPENED.get(tag, "outside")
        self._has_output |= tag in (OUTPUT_OPEN, OUTPUT_CLOSE)
        self._held, self._is_begun = "", False
        self._is_head = self._place == "output"

    def _take(self, text: str) -> None:
        """Shows text of the place, as far as it is known to belong there."""
        text = self._held + text
        if not self._is_begun:
            text = text.lstrip()
        if self._is_head:
            if FINAL_PREFIX.startswith(text):
                self._held = text
                return
            text, self._is_head = text.removeprefix(FINAL_PREFIX).lstrip(), False
        shown = "" if self._place == "outside" else text.rstrip()
        self._held = text[len(shown) :]
        if shown:
            self._show(shown, is_reasoning=self._place == "step")

    def _release(self, is_reasoning: bool) -> None:
        """Shows what is held, and is no white space."""
        if held := self._held.strip():
            self._show(held, is_reasoning)
        self._held = ""

    def _show(self, text: str, is_reasoning: bool) -> None:
        if not is_reasoning:
            self._new = self._new._replace(content=self._new.content + text)
        else:
            between = _BETWEEN if self._has_steps and not self._is_begun else ""
            self._new = self._new._replace(reasoning=self._new.reasoning + between + text)
            self._has_steps = True
        self._is_begun = True


def split(text: str, mode: Mode = "separate", is_structured: bool = True) -> Delta:
    """Reasoning and content of a whole answer; the arguments are those of `Reasoning`."""
    reader = Reasoning(mode, is_structured)
    first, last = reader.add(text), reader.end()
    return Delta(first.reasoning + last.reasoning, first.content + last.content)


def _possible_tag(text: str) -> int:
    """Length of the end of a text that may be the beginning of a tag."""
    start = text.rfind("<")
    end = text[start:] if start >= 0 else ""
    return len(end) if end and any(tag.startswith(end) for tag in TAGS) else 0
