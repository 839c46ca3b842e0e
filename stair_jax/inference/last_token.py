"""Batches of sequences of which a head reads one token, in a few fixed shapes."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from stair_jax.models.config import ModelConfig
from stair_jax.parallel.placement import Placement


class LastTokenScorer(ABC):
    """A model with a head at the last token of each sequence; each shape is compiled once."""

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
          params: {"model": parameters, "score": head}.
          rows: sequences per batch; rounded up to a multiple of data x fsdp of the mesh.
          buckets: lengths that sequences are padded to. Longer sequences are padded to the last one
            doubled as often as needed.
          mesh: on which `params` are; None: one device.
        """
        self._config, self._params, self._placement = config, params, Placement(mesh)
        self.rows = self._placement.round_up(rows)
        self._buckets = sorted(buckets)

    @abstractmethod
    def _compute(self, tokens: jax.Array, last: jax.Array) -> jax.Array:
        """What the head gives for tokens `[rows, T]` at the positions `last [rows]`."""

    def score_all(self, sequences: Sequence[Sequence[int]]) -> np.ndarray:
        """Float32 results of token sequences, in their order; batched by length bucket."""
        by_bucket: dict[int, list[int]] = {}
        for index, sequence in enumerate(sequences):
            by_bucket.setdefault(self.bucket(len(sequence)), []).append(index)
        found: dict[int, np.ndarray] = {}
        # Short and long sequences are never padded to one length.
        for bucket, indices in sorted(by_bucket.items()):
            for start in range(0, len(indices), self.rows):
                batch = indices[start : start + self.rows]
                results = np.asarray(self.dispatch([sequences[i] for i in batch], bucket))
                found.update(zip(batch, results, strict=False))  # the rest is padding
        return np.array([found[index] for index in range(len(sequences))], np.float32)

    def bucket(self, length: int) -> int:
        """Length to which a sequence of `length` tokens is padded.

        Raises:
          UserError: the sequence is longer than a sliding window of the model.
        """
        bucket = next((size for size in self._buckets if size >= length), self._buckets[-1])
        while bucket < length:
            bucket *= 2
        return self._config.padded_length(length, bucket)

    def dispatch(self, sequences: Sequence[Sequence[int]], bucket: int) -> jax.Array:
        """Starts to score a batch.

        Args:
          sequences: at most `rows` sequences, none longer than `bucket`.
          bucket: length that they are padded to, as of `bucket`.

        Returns:
          [rows, ...] float32, those of the sequences first.
        """
        tokens = np.zeros((self.rows, bucket), np.int32)
        last = np.zeros(self.rows, np.int32)
        for row, sequence in enumerate(sequences):
            tokens[row, : len(sequence)] = sequence
            last[row] = self._last(sequence)
        tokens, last = self._placement.rows((tokens, last))
        with self._placement.use():
            return self._compute(tokens, last)

    def _last(self, sequence: Sequence[int]) -> int:
        """Position of the token that is scored."""
        return len(sequence) - 1
