"""Scorers of test-time search: a process reward model (PRM), or the model's self-reward."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from stair_jax.data.records import Prompt
from stair_jax.decoding.requests import Completion, Handle, Request, num_tokens, request_key
from stair_jax.decoding.task import GatherTask, Service, Task
from stair_jax.inference.candidates import Candidate, Scored, TestTimeSettings, end_ids
from stair_jax.inference.last_token import LastTokenScorer
from stair_jax.inference.score_service import (
    PRM_SERVICE,
    ScoreCompletion,
    ScoreRequest,
    ScoreService,
)
from stair_jax.models import heads
from stair_jax.models.config import ModelConfig
from stair_jax.models.transformer import apply
from stair_jax.search.judging.judges import Judge, Judging
from stair_jax.search.judging.prefixes import JudgePrefixes, Keeper, Prefix
from stair_jax.search.search_context import Reward
from stair_jax.text import steps

_NONE = float("-inf")


class PrmScorer(LastTokenScorer):
    """Scores by a process reward model: the value of its scalar head at the last token."""

    @property
    def services(self) -> Mapping[str, Service]:
        """A new service that scores in batches; its requests are sequences."""
        return {PRM_SERVICE: ScoreService(self)}

    def open(self, prompt: Prompt) -> "PrmPromptScorer":
        """What scores the candidates of a prompt."""
        return PrmPromptScorer()

    def score(self, sequences: Sequence[Sequence[int]]) -> list[float]:
        """Scores of token sequences, in their order; batched by length bucket."""
        return self.score_all(sequences).tolist()

    def _compute(self, tokens: jax.Array, last: jax.Array) -> jax.Array:
        return prm_scores(self._config, self._params, tokens, last)


class PrmPromptScorer:
    """Scores candidates by asking the service of a PRM."""

    def score(self, candidates: Sequence[Candidate]) -> Task[list[Scored]]:
        """A task; an empty candidate is scored at the last token of its prompt."""
        return GatherTask(map(PrmTask, candidates))

    def close(self) -> None:
        """Does nothing: nothing is kept for a prompt."""


class PrmTask(Task[Scored]):
    """The PRM's score of one candidate."""

    def __init__(self, candidate: Candidate):
        """A task that has asked nothing yet."""
        self._tokens = candidate.prompt_tokens + candidate.tokens

    def start(self) -> list[ScoreRequest]:
        """The only request."""
        return [ScoreRequest((), self._tokens)]

    def receive(self, completion: ScoreCompletion) -> list[ScoreRequest]:
        """Takes the score."""
        self.result = Scored(completion.value)
        return []


@functools.partial(jax.jit, static_argnums=0)
def prm_scores(config: ModelConfig, params: Any, tokens: jax.Array, last: jax.Array) -> jax.Array:
    """Scores `[B]` float32 of tokens `[B, T]` at the positions `last [B]`.

    Padding after `last` needs no mask: attention is causal.
    """
    positions = jax.lax.broadcasted_iota(np.int32, tokens.shape, 1)
    hidden = apply(config, params["model"], tokens, positions)
    return heads.score(hidden, params["score"], last)


class SelfReward:
    """Scores by the model's own judgement of the final answer, combined by the reward.

    An unfinished candidate is first completed by one rollout, whose tokens count as cost. Common
    prefixes of the judge prompts are kept in the engine's cache.
    """

    def __init__(
        self,
        engine: Keeper,
        judge: Judge,
        reward: Reward,
        settings: TestTimeSettings,
        seed: int,
        services: Mapping[str, Service] | None = None,
    ):
        """A scorer.

        Args:
          engine: samples rollouts and judgements.
          judge: for the engine's model.
          reward: (helpfulness, safety) -> R.
          settings: sampling settings of the rollouts.
          seed: of the run.
          services: that the judge asks beside the engine, by name.
        """
        self.services: Mapping[str, Service] = services or {}
        self.judge, self.reward, self.settings, self.seed = judge, reward, settings, seed
        self.ends = end_ids(judge.tokenizer)
        self._prefixes = JudgePrefixes(engine, judge, services)
        self._num_open = 0

    def open(self, prompt: Prompt) -> "PromptSelfReward":
        """What scores the candidates of a prompt."""
        self._num_open += 1
        return PromptSelfReward(self, self._prefixes.open(prompt))

    def close_prompt(self, handles: Mapping[Prefix, Handle]) -> None:
        """Gives back the handles of a prompt, and with the last ones those of all prompts."""
        self._prefixes.close(handles)
        self._num_open -= 1
        if not self._num_open:
            self._prefixes.close_all()


class PromptSelfReward:
    """Self-reward of the candidates of one prompt."""

    def __init__(self, scorer: SelfReward, prefixes: Mapping[Prefix, Handle]):
        """Made by `SelfReward.open`."""
        self._scorer, self._prefixes = scorer, prefixes

    def score(self, candidates: Sequence[Candidate]) -> Task[list[Scored]]:
        """A task that scores the candidates side by side; -inf where a score is missing."""
        return GatherTask(
            SelfRewardTask(self._scorer, candidate, self._prefixes) for candidate in candidates
        )

    def close(self) -> None:
        """Gives the kept prefixes back."""
        self._scorer.close_prompt(self._prefixes)


class SelfRewardTask(Task[Scored]):
    """The self-reward of one candidate: a rollout if it is unfinished, then its judgement."""

    def __init__(self, scorer: SelfReward, candidate: Candidate, prefixes: Mapping[Prefix, Handle]):
        """A task that has asked nothing yet."""
        self._scorer, self._candidate, self._prefixes = scorer, candidate, prefixes
        self._generated = 0
        self._judging: Judging | None = None

    def start(self) -> list[Request]:
        """The request of the rollout, or those of the judgement."""
        scorer, candidate = self._scorer, self._candidate
        room = scorer.settings.max_answer_tokens - len(candidate.tokens)
        if candidate.state != "open" or room < 1:
            return self._judge(candidate.tokens, candidate.state == "done")
        handle = candidate.handle
        return [
            Request(
                id=("rollout",),
                tokens=() if handle else candidate.prompt_tokens + candidate.tokens,
                parent=handle,
                sampling=scorer.settings.sampling(room, scorer.ends),
                key=request_key(scorer.seed, candidate.prompt.id, *candidate.path, "rollout"),
            )
        ]

    def receive(self, completion: Completion) -> list[Request]:
        """Judges a completed rollout, or reads a reply of the judge."""
        self._generated += num_tokens(completion)
        if self._judging is None:
            answer = self._candidate.tokens + completion.tokens
            return self._judge(answer, completion.finish == "stop")
        requests = self._judging.receive(completion)
        self._read()
        return requests

    def _judge(self, tokens: tuple[int, ...], finished: bool) -> list[Request]:
        judge, candidate, seed = self._scorer.judge, self._candidate, self._scorer.seed
        text = judge.tokenizer.decode(tokens)
        if judge.malformed(text, finished):
            malformed = judge.malformed_reward
            self.result = Scored(_NONE if malformed is None else malformed, self._generated)
            return []
        prompt, path = candidate.prompt, candidate.path
        self._judging = judge.requests(
            prompt.conversation,
            prompt.kind,
            steps.final_answer(text),
            lambda question, attempt: request_key(
                seed, prompt.id, *path, "judge", question, attempt
            ),
            id=("judge",),
            parents=self._prefixes,
            output=steps.output_text(text),
            text=text,
            reference=prompt.reference,
            label=prompt.label,
        )
        requests = self._judging.start()
        self._read()
        return requests

    def _read(self) -> None:
        assert self._judging is not None
        if not self._judging.done:
            return
        judged, value = self._judging.result, _NONE
        if judged.helpfulness is not None and judged.safety is not None:
            value = float(self._scorer.reward(judged.helpfulness, judged.safety))
        self.result = Scored(value, self._generated)
