"""Answers by any method: greedy, sampled, or found by test-time search; one task per prompt."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from stair_jax.data.records import Prompt
from stair_jax.decoding.requests import Completion, Handle, Sampling, request_key
from stair_jax.decoding.task import OuterTask, Task
from stair_jax.inference.beam_search import BeamSearch
from stair_jax.inference.best_of_n import BestOfN
from stair_jax.inference.candidates import (
    Rated,
    Result,
    SamplingEngine,
    TestTimeSettings,
    end_ids,
)
from stair_jax.inference.dvts import Dvts
from stair_jax.inference.greedy import SampleAnswer, greedy_sampling
from stair_jax.inference.methods import parse_method
from stair_jax.inference.scoring import Scorer
from stair_jax.text.tokenizer import Tokenizer

_SEARCHES = {"best_of_n": BestOfN, "beam_search": BeamSearch, "dvts": Dvts}


@dataclass(frozen=True)
class Answered:
    """An answer and its cost.

    Attributes:
      text: the whole answer, tags visible.
      tokens: of the answer.
      prompt_tokens: number of tokens of the rendered prompt.
      generated_tokens: number of tokens sampled for it, by a search also those of the other
        candidates and of scoring.
      finish: "stop"; "length": cut off by `max_answer_tokens` or the end of the context;
        "too_long": the prompt leaves no room in the context.
      score: of the answer chosen by a search; None: there was none.
      unscored: candidates of a search whose score was missing.
      candidates: answers from which a search has chosen, with their scores.
      handle: of prompt and answer in the engine's cache, if it was to be kept.
    """

    text: str
    tokens: tuple[int, ...]
    prompt_tokens: int
    generated_tokens: int
    finish: str
    score: float | None = None
    unscored: int = 0
    candidates: tuple[Rated, ...] = ()
    handle: Handle | None = None


class Answering:
    """An engine, and how its model is asked."""

    def __init__(
        self,
        engine: SamplingEngine,
        tokenizer: Tokenizer,
        settings: TestTimeSettings,
        seed: int,
        max_length: int,
    ):
        """Answers to be asked for.

        Args:
          engine: that samples.
          tokenizer: of its model.
          settings: of sampling and search.
          seed: of the run.
          max_length: most tokens of a sequence, prompt and answer.
        """
        self.engine, self.tokenizer, self.max_length = engine, tokenizer, max_length
        self._settings, self._seed = settings, seed

    def task(
        self,
        method: str,
        prompt: Prompt,
        tokens: Sequence[int],
        scorer: Scorer | None = None,
        parent: Handle | None = None,
        keep: bool = False,
        sampling: Mapping[str, Any] | None = None,
    ) -> "AnswerTask":
        """A task whose result is the answer to a prompt.

        Args:
          method: as `methods.parse_method` reads it; its size goes before that of the settings.
          prompt: its id is a part of the random keys, and its text is what scorers judge.
          tokens: of the prompt, rendered by the chat template.
          scorer: of a search.
          parent: the first of `tokens`, kept in the engine's cache; not for a search.
          keep: whether the answer has a handle; not for a search.
          sampling: fields of `Sampling` that this answer has instead of the method's, among them
            `max_tokens` where it is lower; not for a search.
        """
        inner: Task[Any]
        parsed = parse_method(method)
        if parsed.is_search:
            assert scorer is not None
            settings, search = parsed.settings(self._settings), _SEARCHES[parsed.search]
            inner = search(
                self.engine, self.tokenizer, prompt, scorer, settings, self._seed, tokens
            )
        else:
            key = request_key(self._seed, prompt.id, "sample")
            rest = tokens[len(parent.tokens) if parent else 0 :]
            chosen = self._sampling(method)
            if sampling:
                chosen = _changed(chosen, sampling)
            inner = SampleAnswer(rest, chosen, key, parent, keep)
        return AnswerTask(self, inner, len(tokens))

    def _sampling(self, method: str) -> Sampling:
        most = self._settings.max_answer_tokens
        if method == "greedy":
            return greedy_sampling(self.tokenizer, most)
        return self._settings.sampling(most, end_ids(self.tokenizer))


def _changed(sampling: Sampling, values: Mapping[str, Any]) -> Sampling:
    """A greedy answer that gets a temperature is no longer one of a single token to choose from."""
    most = min(sampling.max_tokens, values.get("max_tokens", sampling.max_tokens))
    values = {**values, "max_tokens": most}
    if values.get("temperature") and not sampling.temperature:
        values["top_k"] = 0
    return replace(sampling, **values)


class AnswerTask(OuterTask[Answered]):
    """The task of a method, with one kind of result for all of them."""

    def __init__(self, answering: Answering, inner: Task[Any], prompt_tokens: int):
        """Made by `Answering.task`."""
        super().__init__(inner)
        self._answering, self._prompt_tokens = answering, prompt_tokens

    def make_result(self, found: Result | Completion) -> Answered:
        """The answer and its cost."""
        tokenizer, tokens = self._answering.tokenizer, tuple(found.tokens)
        finish = "length"
        if self._prompt_tokens >= self._answering.max_length:
            finish = "too_long"
        elif tokens and tokens[-1] in end_ids(tokenizer):
            finish = "stop"
        if isinstance(found, Completion):
            return Answered(
                tokenizer.decode(tokens),
                tokens,
                self._prompt_tokens,
                len(tokens),
                finish,
                handle=found.handle,
            )
        score = found.score if found.score > float("-inf") else None
        return Answered(
            found.text,
            tokens,
            self._prompt_tokens,
            found.generated_tokens,
            finish,
            score,
            found.unscored,
            found.candidates,
        )
