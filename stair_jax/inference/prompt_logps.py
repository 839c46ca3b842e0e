"""Log-probabilities of given tokens, and of the likeliest in their places, by an engine's weights.

A service of the driver beside the engine, which needs no memory for weights of its own: the serving
forward pass runs over whole sequences, without the cache.
"""

import functools
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stair_jax.decoding.device_calls import DeviceCalls
from stair_jax.errors import UserError
from stair_jax.inference.batch_service import BatchService
from stair_jax.inference.scored_sequence import ScoredSequence, ScoringTask, bucket_length
from stair_jax.models.attention.backends import get_backend
from stair_jax.models.config import ModelConfig
from stair_jax.models.paged.backends import get_paged_backend
from stair_jax.models.paged.view import PagedBackend, View
from stair_jax.models.serving.fused_params import FusedParams
from stair_jax.models.serving.paged_forward import forward, logits

PROMPT_LOGPS_SERVICE = "prompt_logps"
MOST_TOP = 20  # of the likeliest tokens, as many as clients may ask for

# Tokens of a batch, padding included, on CPUs and elsewhere.
_BATCH_TOKENS = {"cpu": 2048, "accelerator": 4096}
# Most bytes of the logits of one chunk of positions.
_LOGITS_BYTES = 2**28


@dataclass(frozen=True)
class LogpsRequest(ScoredSequence):
    """A sequence whose end is to be scored.

    Attributes:
      top: how many of the likeliest tokens are told in each place, up to `MOST_TOP`.
      service: name of the service.
    """

    top: int = MOST_TOP
    service: str = PROMPT_LOGPS_SERVICE


@dataclass(frozen=True)
class LogpsCompletion:
    """What was scored of a sequence.

    Attributes:
      id: of the request.
      logps: in nats, one a token from the start on, before temperature and filters.
      top: in the place of each, (token id, log-probability) of the likeliest tokens, best first.
    """

    id: Hashable
    logps: tuple[float, ...]
    top: tuple[tuple[tuple[int, float], ...], ...]


class PromptLogps(BatchService[LogpsRequest, LogpsCompletion]):
    """Scores sequences of like length in batches; each shape is compiled on first use."""

    MOST_RUNNING = 2  # results are large: a megabyte or more each

    def __init__(self, device: DeviceCalls):
        """A service without requests.

        Args:
          device: of an engine without adapters.
        """
        super().__init__()
        self._device = device
        self._programs: dict[int, Any] = {}  # by bucket, compiled
        self._fitting: set[int] = set()  # buckets for which there was memory
        kind = "cpu" if jax.default_backend() == "cpu" else "accelerator"
        self._batch_tokens = _BATCH_TOKENS[kind]

    def check(self, length: int) -> None:
        """Compiles what scores sequences of a length, unless it has been, and looks for memory.

        Raises:
          UserError: the sequences are longer than a sliding window of the model, or it would take
            more memory than the engine has left.
        """
        bucket = self._bucket(length)
        if bucket not in self._programs:
            self._programs[bucket] = self._compile(bucket)
        if bucket not in self._fitting:
            self._check_memory(self._programs[bucket], bucket)
            self._fitting.add(bucket)

    def bucket(self, request: LogpsRequest) -> int:
        """Length to which the sequence is padded: a power of two, or the window."""
        return self._bucket(len(request.tokens))

    def rows(self, bucket: int) -> int:
        """Fewer where sequences are longer."""
        return self._device.placement.round_up(max(1, self._batch_tokens // bucket))

    def dispatch(self, requests: Sequence[LogpsRequest], bucket: int) -> jax.Array:
        """Starts to score: `[rows, bucket, 1 + 2 * MOST_TOP]` int32, see `prompt_logps`."""
        self.check(bucket)
        arrays = self._arrays([request.tokens for request in requests], bucket)
        with self._device.placement.use():
            found: jax.Array = self._programs[bucket](self._device.params, *arrays)
            return found

    def completion(self, request: LogpsRequest, row: int, results: np.ndarray) -> LogpsCompletion:
        """What was scored of a row."""
        own = results[row, request.start - 1 : len(request.tokens) - 1]
        count = (own.shape[1] - 1) // 2
        told = min(count, request.top)
        values = np.ascontiguousarray(own[:, : told + 1]).view(np.float32)
        ids = own[:, count + 1 : count + 1 + told]
        pairs = zip(ids.tolist(), values[:, 1:].tolist(), strict=True)
        top = tuple(tuple(zip(*each, strict=True)) for each in pairs)
        return LogpsCompletion(request.id, tuple(values[:, 0].tolist()), top)

    def _bucket(self, length: int) -> int:
        return bucket_length(self._device.config, length)

    def _arrays(self, sequences: Sequence[tuple[int, ...]], bucket: int) -> Any:
        """Tokens and the ones that follow them, `[rows, bucket]` each, on the devices."""
        tokens = np.zeros((self.rows(bucket), bucket), np.int32)
        for row, sequence in enumerate(sequences):
            tokens[row, : len(sequence)] = sequence
        return self._device.placement.rows((tokens, np.roll(tokens, -1, axis=1)))

    def _compile(self, bucket: int) -> Any:
        device = self._device
        stacked = get_paged_backend(device.engine_config.attention).stacked
        static = (device.config, stacked, self._num_chunks(bucket))
        with device.placement.use():
            arrays = self._arrays((), bucket)
            return prompt_logps.lower(*static, device.params, *arrays).compile()

    def _check_memory(self, compiled: Any, bucket: int) -> None:
        free, stats = self._device.free_bytes, compiled.memory_analysis()
        if free is None or stats is None:
            return
        needed = stats.temp_size_in_bytes + self.MOST_RUNNING * stats.output_size_in_bytes
        if needed > free:
            raise UserError(
                f"log-probabilities of {bucket} tokens need {needed / 2**30:.1f} GiB, and "
                f"{free / 2**30:.1f} GiB are free beside the cache: send less text, or lower "
                "runtime.cache_tokens"
            )

    def _num_chunks(self, bucket: int) -> int:
        """Chunks of positions, few enough that the logits of one fit into `_LOGITS_BYTES`."""
        wanted = self.rows(bucket) * bucket * self._device.config.padded_vocab_size * 4
        chunks = 1
        # Powers of two, as buckets are, so that all chunks are of one size.
        while chunks < bucket and wanted > chunks * _LOGITS_BYTES:
            chunks *= 2
        return chunks if bucket % chunks == 0 else bucket


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def prompt_logps(
    config: ModelConfig,
    stacked: bool,
    num_chunks: int,
    params: FusedParams,
    tokens: jax.Array,
    targets: jax.Array,
) -> jax.Array:
    """Log-probabilities of targets and of the likeliest tokens, as bits.

    Padding at the end needs no mask: attention is causal.

    Args:
      config: of the model.
      stacked: whether the layers in `params` are.
      num_chunks: of positions, whose logits are in memory one after another; divides T.
      params: of an engine.
      tokens: `[B, T]` int32.
      targets: `[B, T]` int32, the token behind each.

    Returns:
      `[B, T, 1 + 2 K]` int32: the bits of the target's log-probability in float32, of those of the
      K likeliest tokens, best first, and their ids. K is `MOST_TOP`, or the size of the vocabulary.
    """
    batch, length = tokens.shape
    zeros = jnp.zeros((batch,), jnp.int32)
    layers = config.num_hidden_layers
    pages: Any = jnp.zeros((layers * batch,), jnp.int8) if stacked else (None,) * layers
    view = View(jnp.zeros((batch, 1), jnp.int32), zeros, zeros + length)
    hidden, _ = forward(config, params, _whole_sequences(config, stacked), tokens, pages, view)

    def read(piece: tuple[jax.Array, jax.Array]) -> jax.Array:
        states, wanted = piece
        found = logits(config, params, states.reshape(-1, states.shape[-1]))
        found = jax.nn.log_softmax(found, axis=-1)
        own = jnp.take_along_axis(found, wanted.reshape(-1, 1), axis=-1)
        top, ids = jax.lax.top_k(found, min(MOST_TOP, config.vocab_size))
        bits = jax.lax.bitcast_convert_type(jnp.concatenate([own, top], axis=-1), jnp.int32)
        return jnp.concatenate([bits, ids.astype(jnp.int32)], axis=-1).reshape(*wanted.shape, -1)

    def chunks(array: jax.Array) -> jax.Array:
        return jnp.moveaxis(array.reshape(batch, num_chunks, -1, *array.shape[2:]), 1, 0)

    found = jax.lax.map(read, (chunks(hidden), chunks(targets)))
    return jnp.moveaxis(found, 0, 1).reshape(batch, length, -1)


def _whole_sequences(config: ModelConfig, stacked: bool) -> PagedBackend:
    """Attention over the sequences of the call alone: nothing is written, and no page is read."""
    whole = get_backend(config.attention)

    def attend(
        query: jax.Array, key: jax.Array, value: jax.Array, pages: Any, view: View
    ) -> tuple[jax.Array, Any]:
        return whole(query, key, value), pages

    def empty(*sizes: Any) -> Any:
        raise NotImplementedError("nothing is cached")

    return PagedBackend(stacked, empty, attend)


class LogpsTask(ScoringTask[LogpsCompletion]):
    """The completion of one request."""

    def __init__(self, tokens: Sequence[int], start: int = 1, top: int = MOST_TOP):
        """A task that has asked nothing yet; see `LogpsRequest`."""
        super().__init__(LogpsRequest((), tuple(tokens), start, top))
