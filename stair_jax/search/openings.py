"""What the prompts of a judge have in common, kept in the engine's cache.

Template, question and answer follow one another, so all prompts of one question to the judge share
the template, and those of one tree the user's prompt as well.
"""

from collections.abc import Iterable, Mapping
from typing import Protocol

from stair_jax.data.records import Prompt
from stair_jax.decoding.requests import Handle
from stair_jax.search.judge import Judge
from stair_jax.search.verdict import Question


class Keeper(Protocol):
    """The part of an engine that keeps sequences."""

    def keep(self, tokens: Iterable[int], parent: Handle | None = None) -> Handle: ...

    def shorten(self, handle: Handle, num_tokens: int) -> Handle: ...

    def release(self, handle: Handle) -> None: ...


class Openings:
    """Handles of the beginnings of judge prompts: one a question for the run, below it one a tree.

    Where a tokenizer joins text across the seam a prompt does not begin with its handle's tokens;
    `Judge.request` then goes without it.
    """

    def __init__(self, engine: Keeper, judge: Judge):
        """Keeps nothing before the first tree."""
        self._engine, self._judge = engine, judge
        self._shared: dict[Question, Handle | None] = {}

    def open(self, prompt: Prompt) -> dict[Question, Handle]:
        """Handles for the judgements of one tree, by question; `close` gives them back."""
        handles = {}
        for question in self._judge.settings.questions(prompt.kind):
            shared = self._of_run(question)
            tokens = self._judge.shared(question, prompt.prompt)
            if shared is not None and tokens[: len(shared.tokens)] == shared.tokens:
                handles[question] = self._engine.keep(tokens[len(shared.tokens) :], shared)
            elif tokens:
                handles[question] = self._engine.keep(tokens)
        return handles

    def close(self, handles: Mapping[Question, Handle]) -> None:
        """Gives the handles of a tree back."""
        for handle in handles.values():
            self._engine.release(handle)

    def close_all(self) -> None:
        """Gives the handles of the run back; those of the trees are gone by then."""
        self.close({question: handle for question, handle in self._shared.items() if handle})
        self._shared.clear()

    def _of_run(self, question: Question) -> Handle | None:
        if question not in self._shared:
            tokens = self._judge.shared(question)
            self._shared[question] = self._engine.keep(tokens) if tokens else None
        return self._shared[question]
