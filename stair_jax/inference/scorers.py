"""Scorers of test-time search: a process reward model (PRM), or the model's self-reward."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from stair_jax.decoding.requests import Handle, Request, request_key, run_all
from stair_jax.inference.candidates import Candidate, Scored, TestTimeSettings, end_ids
from stair_jax.models import heads
from stair_jax.models.config import ModelConfig
from stair_jax.models.transformer import apply
from stair_jax.parallel.placement import Placement
from stair_jax.search.judging.judges import Judge, Judging
from stair_jax.search.judging.prefixes import JudgePrefixes
from stair_jax.search.judging.replies import Question
from stair_jax.search.runner import EngineProtocol
from stair_jax.search.search_context import Reward
from stair_jax.stopping import heed
from stair_jax.text import steps

_NONE = float("-inf")


class PrmScorer:
    """Scores by a process reward model: the value of its scalar head at the last token."""

    def __init__(
        self,
        config: ModelConfig,
        params: Any,
        rows: int = 16,
        buckets: Sequence[int] = (256,),
        mesh: Mesh | None = None,
    ):
        """A scorer with a few fixed shapes, each compiled on first use.

        Args:
          config: of the model.
          params: {"model": parameters, "score": score head}.
          rows: sequences per batch; rounded up to a multiple of data x fsdp of the mesh.
          buckets: lengths that sequences are padded to. Longer sequences are padded to the last one
            doubled as often as needed.
          mesh: on which `params` are; None: one device.
        """
        self._config, self._params, self._placement = config, params, Placement(mesh)
        self.rows = self._placement.round_up(rows)
        self._buckets = sorted(buckets)

    def __call__(self, candidates: Sequence[Candidate]) -> list[Scored]:
        """One score per candidate; an empty candidate is scored at the last token of its prompt."""
        return [
            Scored(value) for value in self.score([c.prompt_tokens + c.tokens for c in candidates])
        ]

    def score(self, sequences: Sequence[Sequence[int]]) -> list[float]:
        """Scores of token sequences, in their order; batched by length bucket."""
        by_bucket: dict[int, list[int]] = {}
        for index, sequence in enumerate(sequences):
            by_bucket.setdefault(self.bucket(len(sequence)), []).append(index)
        scores = np.zeros(len(sequences), np.float32)
        # Short and long sequences are never padded to one length.
        for bucket, indices in sorted(by_bucket.items()):
            for start in range(0, len(indices), self.rows):
                batch = indices[start : start + self.rows]
                scores[batch] = self._score_batch([sequences[i] for i in batch], bucket)
        return scores.tolist()

    def bucket(self, length: int) -> int:
        """Length to which a sequence of `length` tokens is padded."""
        bucket = next((size for size in self._buckets if size >= length), self._buckets[-1])
        while bucket < length:
            bucket *= 2
        return bucket

    def _score_batch(self, sequences: Sequence[Sequence[int]], bucket: int) -> np.ndarray:
        tokens = np.zeros((self.rows, bucket), np.int32)
        last = np.zeros(self.rows, np.int32)
        for row, sequence in enumerate(sequences):
            tokens[row, : len(sequence)] = sequence
            last[row] = len(sequence) - 1
        tokens, last = self._placement.rows((tokens, last))
        with self._placement.use():
            scores = prm_scores(self._config, self._params, tokens, last)
        return np.asarray(scores)[: len(sequences)]


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
    prefixes of the judge prompts are kept in the engine's cache during a call.
    """

    def __init__(
        self,
        engine: EngineProtocol,
        judge: Judge,
        reward: Reward,
        settings: TestTimeSettings,
        seed: int,
    ):
        """A scorer that uses an engine without pending requests.

        Args:
          engine: samples rollouts and judgements.
          judge: for the engine's model.
          reward: (helpfulness, safety) -> R.
          settings: sampling settings of the rollouts.
          seed: of the run.
        """
        self._engine, self._judge, self._reward = engine, judge, reward
        self._settings, self._seed = settings, seed
        self._ends = end_ids(judge.tokenizer)

    def __call__(self, candidates: Sequence[Candidate]) -> list[Scored]:
        """One score per candidate; -inf if it is missing."""
        answers, generated = self._complete(candidates)
        judge_prefixes = JudgePrefixes(self._engine, self._judge)
        opened: dict[str, dict[Question, Handle]] = {}
        judgings: dict[int, Judging] = {}
        values = [_NONE] * len(candidates)
        for index, (candidate, (tokens, finished)) in enumerate(
            zip(candidates, answers, strict=True)
        ):
            text = self._judge.tokenizer.decode(tokens)
            if self._judge.malformed(text, finished):
                malformed = self._judge.malformed_reward
                values[index] = _NONE if malformed is None else malformed
            else:
                prompt = candidate.prompt
                parents = opened.get(prompt.id)
                if parents is None:
                    parents = opened[prompt.id] = judge_prefixes.open(prompt)
                judgings[index] = self._open(candidate, index, text, parents)
        for index, count in run_judgings(self._engine, list(judgings.values())).items():
            generated[index] += count
        for handles in opened.values():
            judge_prefixes.close(handles)
        judge_prefixes.close_all()
        for index, judging in judgings.items():
            result = judging.result
            if result.helpfulness is not None and result.safety is not None:
                values[index] = float(self._reward(result.helpfulness, result.safety))
        return [Scored(value, cost) for value, cost in zip(values, generated, strict=True)]

    def _complete(
        self, candidates: Sequence[Candidate]
    ) -> tuple[list[tuple[tuple[int, ...], bool]], list[int]]:
        """Completes the candidates by rollouts.

        Returns:
          (for each candidate its whole answer and whether that is finished, for each candidate the
          number of tokens sampled for it).
        """
        requests = []
        for index, candidate in enumerate(candidates):
            room = self._settings.max_answer_tokens - len(candidate.tokens)
            if candidate.state == "open" and room > 0:
                key = request_key(self._seed, candidate.prompt.id, *candidate.path, "rollout")
                handle = candidate.handle
                requests.append(
                    Request(
                        id=index,
                        tokens=() if handle else candidate.prompt_tokens + candidate.tokens,
                        parent=handle,
                        sampling=self._settings.sampling(room, self._ends),
                        key=key,
                    )
                )
        completions = run_all(self._engine, requests)
        answers, generated = [], []
        for index, candidate in enumerate(candidates):
            completion = completions.get(index)
            sampled = () if completion is None else tuple(completion.tokens)
            finished = candidate.state == "done" or (
                completion is not None and completion.finish == "stop"
            )
            answers.append((candidate.tokens + sampled, finished))
            generated.append(len(sampled))
        return answers, generated

    def _open(
        self, candidate: Candidate, index: int, text: str, parents: Mapping[Question, Handle]
    ) -> Judging:
        prompt, path, seed = candidate.prompt, candidate.path, self._seed
        return self._judge.requests(
            prompt.prompt,
            prompt.kind,
            steps.final_answer(text),
            lambda question, attempt: request_key(
                seed, prompt.id, *path, "judge", question, attempt
            ),
            id=(index,),
            parents=parents,
            output=steps.output_text(text),
        )


def run_judgings(engine: EngineProtocol, judgings: Sequence[Judging]) -> dict[int, int]:
    """Runs judgings with ids `(index,)` to completion; returns index -> tokens sampled."""
    by_index: dict[int, Judging] = {judging.id[0]: judging for judging in judgings}  # type: ignore[misc]
    generated = dict.fromkeys(by_index, 0)
    engine.submit([request for judging in judgings for request in judging.start()])
    while engine.pending:
        heed()
        for completion in engine.step():
            index = completion.id[0]  # type: ignore[index]
            generated[index] += len(completion.tokens)
            engine.submit(by_index[index].receive(completion))
    return generated
