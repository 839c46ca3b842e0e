"""What a chat shows of an answer while it is sampled: steps, or a line for each, and the answer.

All text of the model is printed by `printable`: it cannot control the terminal.
"""

from collections.abc import Callable

from stair_jax.text.answer_stream import AnswerParts, Part, TokenText
from stair_jax.text.terminal import printable
from stair_jax.text.tokenizer import Tokenizer

STEPS = ("shown", "folded", "hidden")
_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"


class AnswerView:
    """Prints one answer, as its tokens come."""

    def __init__(
        self, tokenizer: Tokenizer, write: Callable[[str], None], steps: str, has_colors: bool
    ):
        """An answer that begins.

        Args:
          tokenizer: of the model.
          write: prints a text.
          steps: "shown": the steps are printed, dim; "folded": the title of each; "hidden": none.
          has_colors: whether the terminal knows escape sequences.
        """
        self._text, self._parts = TokenText(tokenizer), AnswerParts()
        self._write, self._steps, self._has_colors = write, steps, has_colors
        self._is_line_begun = self._has_steps = False

    def add(self, ids: tuple[int, ...]) -> None:
        """Prints what became known by further tokens."""
        self._show(self._parts.add(self._text.add(ids)))

    def end(self) -> None:
        """Prints the rest, and ends the line."""
        self._show([*self._parts.add(self._text.end()), *self._parts.end()])
        self.end_line()

    def end_line(self) -> None:
        """Ends a line that is begun."""
        if self._is_line_begun:
            self._write("\n")
        self._is_line_begun = False

    def _show(self, parts: list[Part]) -> None:
        for kind, text in parts:
            if kind == "end":
                self.end_line()
            elif kind == "title":
                self._title(text)
            elif kind == "step":
                if self._steps == "shown":
                    self._print(text, is_dim=True)
            else:
                self._begin_answer()
                self._print(text)

    def _title(self, title: str) -> None:
        if self._steps == "hidden":
            return
        self._has_steps = True
        self.end_line()
        if title or self._steps == "folded":
            self._print(f"- {title or '(a step without a title)'}", is_dim=True)
            self.end_line()

    def _begin_answer(self) -> None:
        """A blank line between the steps and what follows them."""
        if self._has_steps:
            self.end_line()
            self._write("\n")
        self._has_steps = False

    def _print(self, text: str, is_dim: bool = False) -> None:
        safe = printable(text)
        self._write(f"{_DIM}{safe}{_PLAIN}" if is_dim and self._has_colors else safe)
        self._is_line_begun = True
