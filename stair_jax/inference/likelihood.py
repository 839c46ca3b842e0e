"""Log-likelihoods of texts as a service of the driver: exact, token by token, in batches."""

import functools
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from stair_jax.decoding.task import GatherTask, OuterTask, Service, Task
from stair_jax.inference.batch_service import BatchService
from stair_jax.inference.scored_sequence import ScoredSequence, ScoringTask, bucket_length
from stair_jax.models import transformer
from stair_jax.models.config import ModelConfig
from stair_jax.parallel.placement import Placement
from stair_jax.training.logps import greedy_logps

LIKELIHOOD_SERVICE = "likelihood"

# Tokens of a batch, padding included, on CPUs and elsewhere.
_BATCH_TOKENS = {"cpu": 2048, "accelerator": 16384}
# Most bytes of the logits of one chunk of positions; fewer chunks would gain nothing.
_LOGITS_BYTES = 2**28


@dataclass(frozen=True)
class LikelihoodRequest(ScoredSequence):
    """A sequence whose end is to be scored.

    Attributes:
      service: name of the service.
    """

    service: str = LIKELIHOOD_SERVICE


@dataclass(frozen=True)
class LikelihoodCompletion:
    """The log-probabilities of a sequence's tokens from the start on.

    Attributes:
      id: of the request.
      logps: in nats, one a token.
      is_greedy: whether greedy decoding would give exactly these tokens.
    """

    id: Hashable
    logps: tuple[float, ...]
    is_greedy: bool

    @property
    def total(self) -> float:
        """Log-likelihood of all scored tokens."""
        return math.fsum(self.logps)


class LikelihoodScorer:
    """Scores sequences by a language model in whole precision of its `config.dtype`.

    It holds the parameters as for training, beside the ones that an engine has laid out anew.
    """

    def __init__(
        self,
        config: ModelConfig,
        params: Any,
        mesh: Mesh | None = None,
        batch_tokens: int = 0,
    ):
        """A scorer with one shape for each power of two, compiled on first use.

        Args:
          config: of the model.
          params: of the model.
          mesh: on which `params` are; None: one device.
          batch_tokens: tokens of a batch with padding; 0: 2048 on CPUs, 16384 elsewhere. A batch
            has at least one row for each part that the mesh splits rows into.
        """
        self._config, self._params, self._placement = config, params, Placement(mesh)
        kind = "cpu" if jax.default_backend() == "cpu" else "accelerator"
        self._batch_tokens = batch_tokens or _BATCH_TOKENS[kind]

    @property
    def services(self) -> Mapping[str, Service]:
        """A new service that scores in batches."""
        return {LIKELIHOOD_SERVICE: LikelihoodService(self)}

    def bucket(self, length: int) -> int:
        """Length to which a sequence of `length` tokens is padded: a power of two, or the window.

        Raises:
          UserError: the sequence is longer than a sliding window of the model.
        """
        return bucket_length(self._config, length)

    def rows(self, bucket: int) -> int:
        """Sequences in a batch of this length."""
        return self._placement.round_up(max(1, self._batch_tokens // bucket))

    def dispatch(
        self, sequences: Sequence[Sequence[int]], starts: Sequence[int], bucket: int
    ) -> jax.Array:
        """Starts to score a batch.

        Args:
          sequences: at most `rows(bucket)` sequences, none longer than `bucket`.
          starts: of each, position of the first token that is scored.
          bucket: length that they are padded to.

        Returns:
          `[rows, bucket, 2]` float32: at position t, the log-probability of token t + 1, and 1
          where greedy decoding would take it; 0 where nothing is scored.
        """
        shape = (self.rows(bucket), bucket)
        tokens, targets = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        weights = np.zeros(shape, np.float32)
        for row, (sequence, start) in enumerate(zip(sequences, starts, strict=True)):
            end = len(sequence)
            tokens[row, :end] = sequence
            targets[row, : end - 1] = sequence[1:]
            weights[row, start - 1 : end - 1] = 1
        arrays = self._placement.rows((tokens, targets, weights))
        with self._placement.use():
            return likelihoods(self._config, self._num_chunks(bucket), self._params, *arrays)

    def _num_chunks(self, bucket: int) -> int:
        """Chunks of positions, few enough that the logits of one fit into `_LOGITS_BYTES`."""
        positions = self.rows(bucket) // self._placement.round_up(1) * bucket  # of a device
        return -(-positions * self._config.padded_vocab_size * 4 // _LOGITS_BYTES)


@functools.partial(jax.jit, static_argnums=(0, 1))
def likelihoods(
    config: ModelConfig,
    num_chunks: int,
    params: Any,
    tokens: jax.Array,
    targets: jax.Array,
    weights: jax.Array,
) -> jax.Array:
    """What `LikelihoodScorer.dispatch` returns, of arrays `[B, T]`.

    Padding at the end needs no mask: attention is causal.
    """
    positions = jax.lax.broadcasted_iota(np.int32, tokens.shape, 1)
    hidden = transformer.apply(config, params, tokens, positions)
    head = transformer.output_embedding(params, config)
    logps, greedy = greedy_logps(hidden, head, targets, num_chunks, config.vocab_size, weights)
    found = jnp.stack([logps, greedy.astype(jnp.float32)], axis=-1)
    return jnp.where(weights[..., None] > 0, found, 0)


class LikelihoodService(BatchService[LikelihoodRequest, LikelihoodCompletion]):
    """Scores sequences of like length in batches."""

    def __init__(self, scorer: LikelihoodScorer):
        """A service without requests."""
        super().__init__()
        self._scorer = scorer

    def bucket(self, request: LikelihoodRequest) -> int:
        """Length to which the sequence is padded."""
        return self._scorer.bucket(len(request.tokens))

    def rows(self, bucket: int) -> int:
        """Fewer where sequences are longer."""
        return self._scorer.rows(bucket)

    def dispatch(self, requests: Sequence[LikelihoodRequest], bucket: int) -> jax.Array:
        """See `LikelihoodScorer.dispatch`."""
        sequences = [request.tokens for request in requests]
        return self._scorer.dispatch(sequences, [request.start for request in requests], bucket)

    def completion(
        self, request: LikelihoodRequest, row: int, results: np.ndarray
    ) -> LikelihoodCompletion:
        """What was scored of a row."""
        scored = results[row, request.start - 1 : len(request.tokens) - 1]
        is_greedy = bool(scored[:, 1].all())
        return LikelihoodCompletion(request.id, tuple(scored[:, 0].tolist()), is_greedy)


class LikelihoodTask(ScoringTask[LikelihoodCompletion]):
    """The completion of one request."""

    def __init__(self, tokens: Sequence[int], start: int, service: str = LIKELIHOOD_SERVICE):
        """A task that has asked nothing yet; see `LikelihoodRequest`."""
        super().__init__(LikelihoodRequest((), tuple(tokens), start, service))


class ChoiceLikelihoods(OuterTask[tuple[float, ...]]):
    """Log-likelihoods of several continuations of one prompt."""

    def __init__(
        self,
        prompt: Sequence[int],
        choices: Sequence[Sequence[int]],
        service: str = LIKELIHOOD_SERVICE,
    ):
        """Made by `chat_likelihoods`."""
        super().__init__(
            GatherTask(
                LikelihoodTask((*prompt, *choice), len(prompt), service) for choice in choices
            )
        )

    def make_result(self, found: list[LikelihoodCompletion]) -> tuple[float, ...]:
        """Of each choice the sum over its tokens."""
        return tuple(completion.total for completion in found)


def chat_likelihoods(
    prompt: Sequence[int],
    choices: Sequence[Sequence[int]],
    service: str = LIKELIHOOD_SERVICE,
) -> Task[tuple[float, ...]]:
    """A task whose result has the log-likelihood, in nats, of each choice behind the prompt.

    Args:
      prompt: token ids up to where the answer starts; at least one.
      choices: token ids of each answer; none is empty.
      service: that is asked.

    Raises:
      UserError: the prompt or a choice is empty.
    """
    return ChoiceLikelihoods(prompt, choices, service)
