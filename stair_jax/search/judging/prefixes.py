"""Prefix caching for judge prompts: their common prefixes, kept in the engine's KV cache.

A judge prompt is template, user prompt, answer, in this order. So all judge prompts of one question
share the template, and those of one tree also the user's prompt: only the answer is prefilled.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from stair_jax.data.records import Prompt
from stair_jax.decoding.requests import Handle
from stair_jax.search.judging.judges import Judge
from stair_jax.search.judging.replies import Question
from stair_jax.search.judging.sources.language_model import LanguageModelSource

Prefix = tuple[str, Question]  # name of a source, what it is asked


class Keeper(Protocol):
    """The part of an engine that keeps sequences in its cache (see `decoding.engine.Engine`)."""

    def keep(
        self, tokens: Iterable[int], parent: Handle | None = None, adapter: int | None = None
    ) -> Handle: ...

    def shorten(self, handle: Handle, num_tokens: int) -> Handle: ...

    def release(self, handle: Handle) -> None: ...


class JudgePrefixes:
    """Kept prefixes of judge prompts: per question one for the run, and below it one per tree.

    If a tokenizer merges text across the boundary, a prompt may not begin with the tokens of its
    handle; `LanguageModelSource.request` then does without.
    """

    def __init__(self, engine: Keeper, judge: Judge, services: Mapping[str, Any] | None = None):
        """Handles are made when they are first needed.

        Args:
          engine: of the policy.
          judge: whose prompts these are.
          services: by name; a frozen judge is one that keeps sequences as the engine does.
        """
        self._engines: dict[str, Keeper] = {**(services or {}), "": engine}
        self._judge = judge
        self._shared: dict[Prefix, Handle | None] = {}

    def open(self, prompt: Prompt) -> dict[Prefix, Handle]:
        """Handles for the judgements of one tree, by source and question; `close` releases them."""
        handles = {}
        for name, question, source in self._judge.language_models(prompt.kind):
            engine = self._engine_of(name)
            shared = self._of_run((name, question), source)
            tokens = source.shared(question, prompt.conversation)
            if shared is not None and tokens[: len(shared.tokens)] == shared.tokens:
                handles[name, question] = engine.keep(tokens[len(shared.tokens) :], shared)
            elif tokens:
                handles[name, question] = engine.keep(tokens, adapter=source.adapter)
        return handles

    def close(self, handles: Mapping[Prefix, Handle]) -> None:
        """Releases the handles of a tree."""
        for (name, _), handle in handles.items():
            self._engine_of(name).release(handle)

    def close_all(self) -> None:
        """Releases the handles of the run; call it after those of all trees are released."""
        self.close({prefix: handle for prefix, handle in self._shared.items() if handle})
        self._shared.clear()

    def _engine_of(self, name: str) -> Keeper:
        source = self._judge.sources[name]
        assert isinstance(source, LanguageModelSource)
        return self._engines[source.service]

    def _of_run(self, prefix: Prefix, source: LanguageModelSource) -> Handle | None:
        if prefix not in self._shared:
            tokens = source.shared(prefix[1])
            keep = self._engine_of(prefix[0]).keep
            self._shared[prefix] = keep(tokens, adapter=source.adapter) if tokens else None
        return self._shared[prefix]
