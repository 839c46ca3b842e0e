"""How candidates are scored: by a process reward model, or by the model's own judgement."""

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
from stair_jax.search.judge import Judge, Judging
from stair_jax.search.openings import Openings
from stair_jax.search.room import Reward
from stair_jax.search.runner import Engine
from stair_jax.search.verdict import Question
from stair_jax.text import steps

_NONE = float("-inf")


class PrmScorer:
    """Scores by a process reward model: its scalar at the last token."""

    def __init__(
        self,
        config: ModelConfig,
        params: Any,
        rows: int = 16,
        buckets: Sequence[int] = (256,),
        mesh: Mesh | None = None,
    ):
        """A scorer of fixed shapes, each compiled once.

        Args:
          config: of the model.
          params: `{"model": params, "score": head}`.
          rows: sequences scored side by side; on a mesh, at least one for each of its parts.
          buckets: lengths that sequences are padded to; longer ones, by doubling the last.
          mesh: where `params` are; None: on one device.
        """
        self._config, self._params, self._placement = config, params, Placement(mesh)
        self.rows = self._placement.round_up(rows)
        self._buckets = sorted(buckets)

    def __call__(self, candidates: Sequence[Candidate]) -> list[Scored]:
        """One score a candidate; an empty candidate is scored at the end of its prompt."""
        return [
            Scored(value) for value in self.score([c.prompt_tokens + c.tokens for c in candidates])
        ]

    def score(self, sequences: Sequence[Sequence[int]]) -> list[float]:
        """Scores of token sequences, in their order."""
        by_bucket: dict[int, list[int]] = {}
        for index, sequence in enumerate(sequences):
            by_bucket.setdefault(self.bucket(len(sequence)), []).append(index)
        scores = np.zeros(len(sequences), np.float32)
        for bucket, indices in sorted(by_bucket.items()):
            for start in range(0, len(indices), self.rows):
                batch = indices[start : start + self.rows]
                scores[batch] = self._score_batch([sequences[i] for i in batch], bucket)
        return scores.tolist()

    def bucket(self, length: int) -> int:
        """What a sequence of `length` tokens is padded to."""
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
    """Scores [B] at the positions last [B] of tokens [B, T]; what comes later is never seen."""
    positions = jax.lax.broadcasted_iota(np.int32, tokens.shape, 1)
    hidden = apply(config, params["model"], tokens, positions)
    return heads.score(hidden, params["score"], last)


class SelfReward:
    """Scores by the model's own judgement of the final answer.

    The first steps of an answer are scored by the answer that one rollout makes of them; its
    tokens are counted. What the judge's prompts have in common is kept while they are judged.
    """

    def __init__(
        self,
        engine: Engine,
        judge: Judge,
        reward: Reward,
        settings: TestTimeSettings,
        seed: int,
    ):
        """A scorer over an engine with no request pending.

        Args:
          engine: samples rollouts and judgements.
          judge: of the same model.
          reward: R of helpfulness and safety.
          settings: sampling of the rollouts.
          seed: of the run.
        """
        self._engine, self._judge, self._reward = engine, judge, reward
        self._settings, self._seed = settings, seed
        self._ends = end_ids(judge.tokenizer)

    def __call__(self, candidates: Sequence[Candidate]) -> list[Scored]:
        """One score a candidate; a missing one is -inf."""
        answers, generated = self._complete(candidates)
        openings = Openings(self._engine, self._judge)
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
                    parents = opened[prompt.id] = openings.open(prompt)
                judgings[index] = self._open(candidate, index, steps.final_answer(text), parents)
        for index, count in run_judgings(self._engine, list(judgings.values())).items():
            generated[index] += count
        for handles in opened.values():
            openings.close(handles)
        openings.close_all()
        for index, judging in judgings.items():
            result = judging.result
            if result.helpfulness is not None and result.safety is not None:
                values[index] = float(self._reward(result.helpfulness, result.safety))
        return [Scored(value, cost) for value, cost in zip(values, generated, strict=True)]

    def _complete(
        self, candidates: Sequence[Candidate]
    ) -> tuple[list[tuple[tuple[int, ...], bool]], list[int]]:
        """The whole answer of each candidate and whether it has its end; tokens sampled for it."""
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
        self, candidate: Candidate, index: int, answer: str, parents: Mapping[Question, Handle]
    ) -> Judging:
        prompt, path, seed = candidate.prompt, candidate.path, self._seed
        return self._judge.requests(
            prompt.prompt,
            prompt.kind,
            answer,
            lambda question, attempt: request_key(
                seed, prompt.id, *path, "judge", question, attempt
            ),
            id=(index,),
            parents=parents,
        )


def run_judgings(engine: Engine, judgings: Sequence[Judging]) -> dict[int, int]:
    """Runs judgings with ids `(index,)` to their ends; tokens sampled for each index."""
    by_index: dict[int, Judging] = {judging.id[0]: judging for judging in judgings}  # type: ignore[misc]
    generated = dict.fromkeys(by_index, 0)
    engine.submit([request for judging in judgings for request in judging.start()])
    while engine.pending:
        for completion in engine.step():
            index = completion.id[0]  # type: ignore[index]
            generated[index] += len(completion.tokens)
            engine.submit(by_index[index].receive(completion))
    return generated
