"""Prefix caching for judge prompts: their common prefixes, kept in the engine's KV cache.

A judge prompt is template, user prompt, answer, in this order. So all judge prompts of one question
share the template, and those of one tree also the user's prompt: only the answer is prefilled.
"""

from collections.abc import Iterable, Mapping
from typing import Protocol

from stair_jax.data.records import Prompt
from stair_jax.decoding.requests import Handle
from stair_jax.search.judging.judges import Judge
from stair_jax.search.judging.replies import Question


class Keeper(Protocol):
    """The part of an engine that keeps sequences in its cache (see `decoding.engine.Engine`)."""

    def keep(self, tokens: Iterable[int], parent: Handle | None = None) -> Handle: ...

    def shorten(self, handle: Handle, num_tokens: int) -> Handle: ...

    def release(self, handle: Handle) -> None: ...


class JudgePrefixes:
    """Kept prefixes of judge prompts: per question one for the run, and below it one per tree.

    If a tokenizer merges text across the boundary, a prompt may not begin with the tokens of its
    handle; `Judge.request` then does without.
    """

    def __init__(self, engine: Keeper, judge: Judge):
        """Handles are made when they are first needed."""
        self._engine, self._judge = engine, judge
        self._shared: dict[Question, Handle | None] = {}

    def open(self, prompt: Prompt) -> dict[Question, Handle]:
        """Handles for the judgements of one tree, by question; to be released by `close`."""
        handles = {}
        for question in self._judge.settings.questions(prompt.kind):
            shared = self._of_run(question)
            tokens = self._judge.shared(question, prompt.conversation)
            if shared is not None and tokens[: len(shared.tokens)] == shared.tokens:
                handles[question] = self._engine.keep(tokens[len(shared.tokens) :], shared)
            elif tokens:
                handles[question] = self._engine.keep(tokens)
        return handles

    def close(self, handles: Mapping[Question, Handle]) -> None:
        """Releases the handles of a tree."""
        for handle in handles.values():
            self._engine.release(handle)

    def close_all(self) -> None:
        """Releases the handles of the run; call it after those of all trees are released."""
        self.close({question: handle for question, handle in self._shared.items() if handle})
        self._shared.clear()

    def _of_run(self, question: Question) -> Handle | None:
        if question not in self._shared:
            tokens = self._judge.shared(question)
            self._shared[question] = self._engine.keep(tokens) if tokens else None
        return self._shared[question]
