"""A chat of several turns with a model: what was said, and how the next turn is asked."""

import sys
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Literal

from stair_jax.commands.chat_view import AnswerView
from stair_jax.data.questions import Message, Question, with_system
from stair_jax.errors import UserError
from stair_jax.inference.answers import Answered
from stair_jax.inference.kept_prefix import KeptPrefix
from stair_jax.inference.methods import is_search
from stair_jax.run.answering import Answerer
from stair_jax.stopping import StopSignals
from stair_jax.text import steps

_SECONDS = 0.2  # between two progress lines of a search


@dataclass
class ChatOptions:
    """What a chat can be told while it goes on.

    Attributes:
      method: how it is answered.
      steps: how reasoning steps are shown, see `AnswerView`.
      system: text of the system turn; None: that of the model's folder.
      history: what later turns have of an earlier answer: "final": the final answer alone, which is
        what the user read; "whole": its steps too.
    """

    method: str
    steps: str = "shown"
    system: str | None = None
    history: Literal["final", "whole"] = "final"


@dataclass
class Chat:
    """Turns so far, and the model that answers the next one.

    Attributes:
      answerer: the model.
      options: see `ChatOptions`.
      signals: of the command; the first Ctrl-C stops an answer.
      write: prints text of the answer.
      has_colors: whether the terminal knows escape sequences.
      shows_progress: whether a line on stderr may be written again and again.
      messages: of the turns so far, without a system turn.
      was_stopped: whether the last answer was stopped.
    """

    answerer: Answerer
    options: ChatOptions
    signals: StopSignals
    write: Callable[[str], None]
    has_colors: bool = False
    shows_progress: bool = False
    messages: list[Message] = field(default_factory=list)
    was_stopped: bool = False

    def __post_init__(self) -> None:
        self._prefix = KeptPrefix(self.answerer.engine)
        self._num_turns = 0

    def reset(self) -> None:
        """Forgets the turns so far."""
        self.messages.clear()
        self._prefix.drop()

    def ask(self, text: str) -> Answered | None:
        """Answers the next turn, and prints the answer while it comes.

        Returns:
          the answer; None if it was stopped: then the turn is forgotten.

        Raises:
          UserError: the chat is too long for the context; says by how much.
        """
        messages: list[Message] = [*self.messages, {"role": "user", "content": text.strip()}]
        self._num_turns += 1
        question = Question(f"turn {self._num_turns}", with_system(messages, self.options.system))
        tokens = self.answerer.encode(question)
        most = self.answerer.max_length
        if len(tokens) >= most:
            raise UserError(
                f"the chat has {len(tokens)} tokens with this turn, and the context holds {most}: "
                "/reset begins anew, and --context-tokens allows more"
            )
        answered = self._answer(question, tokens)
        if answered is not None:
            self._prefix.put(answered.handle)
            said = steps.final_answer(answered.text)
            is_plain = not self.answerer.files.is_structured
            is_whole = self.options.history == "whole" or is_plain or not said
            content = answered.text if is_whole else said
            self.messages = [*messages, {"role": "assistant", "content": content}]
        return answered

    def _answer(self, question: Question, tokens: tuple[int, ...]) -> Answered | None:
        options, answerer = self.options, self.answerer
        searches = is_search(options.method)
        view = AnswerView(answerer.files.tokenizer, self.write, options.steps, self.has_colors)
        progress = _SearchProgress(options.method, self.shows_progress)

        def on_tokens(
            id: tuple[Hashable, ...], ids: tuple[int, ...], logps: tuple[float, ...]
        ) -> None:
            if searches:
                progress.add(len(ids))
            else:
                view.add(ids)

        answered: Answered | None = None
        with self.signals.asking_first() as is_stopped:
            parent = None if searches else self._prefix.take(tokens)
            ticket = answerer.add(options.method, question, tokens, on_tokens, parent)
            try:
                while answered is None and not is_stopped():
                    answered = next((done.result for done in answerer.driver.step()), None)
            finally:
                answerer.driver.cancel(ticket)
        progress.end()
        self.was_stopped = answered is None
        if answered is None:
            view.end_line()
            return None
        if searches:
            view.add(answered.tokens)
        view.end()
        return answered


class _SearchProgress:
    """A line on stderr with the tokens that a search has sampled, written over itself."""

    def __init__(self, method: str, is_shown: bool):
        self._method, self._is_shown = method, is_shown
        self._tokens, self._last = 0, 0.0

    def add(self, count: int) -> None:
        self._tokens += count
        now = time.monotonic()
        if self._is_shown and now - self._last >= _SECONDS:
            self._last = now
            print(f"\r{self._method}: {self._tokens} tokens", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        if self._last:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
