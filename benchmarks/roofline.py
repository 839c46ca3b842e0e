"""What a device can do at most, measured, and how long decoding takes at least by that."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from stair_jax.models.config import ModelConfig
from stair_jax.models.flops import layer_params

_CALLS = 10  # between two looks at the clock


class Ceilings(NamedTuple):
    """Rates of one device.

    Attributes:
        bytes_per_s: of a copy, what is read and what is written, or of a sum, whichever is more.
        flops_per_s: of a large matrix product in bfloat16.
    """

    bytes_per_s: float
    flops_per_s: float


def measure_ceilings(small: bool = False) -> Ceilings:
    """Measures both; takes about 13 GB of the device's memory unless `small`."""
    count, size = (2**20, 256) if small else (2**31, 8192)
    values = jnp.zeros(count, jnp.bfloat16)
    copied = 2 * values.nbytes / _seconds(jax.jit(jnp.copy), values)
    read = values.nbytes / _seconds(jax.jit(lambda x: jnp.sum(x, dtype=jnp.float32)), values)
    del values
    # Of zeros, a product would draw less power, and be faster than any real one.
    left, right = jax.random.normal(jax.random.key(0), (2, size, size), jnp.bfloat16)
    product = 2 * size**3 / _seconds(jax.jit(jnp.matmul), left, right)
    return Ceilings(max(copied, read), product)


def _seconds(run: Callable[..., Any], *arguments: Any) -> float:
    jax.block_until_ready(run(*arguments))
    rounds = []
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(_CALLS):
            result = run(*arguments)
        jax.block_until_ready(result)
        rounds.append((time.perf_counter() - start) / _CALLS)
    return statistics.median(rounds)


@dataclass(frozen=True)
class Floor:
    """The least time of work, were each device at its ceilings all the time.

    A decode step reads the weights or, with many slots, multiplies by them (the longer of the
    two), reads the keys and values of all slots, and writes and reads the logits in float32, one
    after the other. It is that of weights and cache in `config.dtype`, also where they are smaller.

    Attributes:
        config: of the model.
        ceilings: of one device.
        devices: which share the slots; each has a copy of the weights.
    """

    config: ModelConfig
    ceilings: Ceilings
    devices: int = 1

    def decode_step(self, slots: int, context: float) -> float:
        """Seconds for one token in each of the slots, each of which sees `context` tokens."""
        return self.workload(slots, slots, 0, slots * context)

    def prefill(self, tokens: float) -> float:
        """Seconds of the matrix products of a prefill; attention is not counted."""
        flops = 2 * layer_params(self.config) * tokens
        return flops / self.ceilings.flops_per_s / self.devices

    def workload(self, slots: int, decoded: float, prefilled: float, seen: float) -> float:
        """Seconds of a mixed workload.

        Args:
            slots: that decode side by side.
            decoded: sampled tokens.
            prefilled: tokens of prompts.
            seen: the sum, over the sampled tokens, of the tokens that each sees.
        """
        steps = decoded / slots
        multiply = self._multiplied * 2 * slots / self.devices / self.ceilings.flops_per_s
        read = self._multiplied * self._itemsize / self.ceilings.bytes_per_s
        streamed = seen * self._token_bytes + decoded * self._logits_bytes
        streamed /= self.ceilings.bytes_per_s * self.devices
        return steps * max(multiply, read) + streamed + self.prefill(prefilled)

    @property
    def _multiplied(self) -> int:
        """Weights that a token is multiplied by, those of the head among them."""
        return layer_params(self.config) + self.config.vocab_size * self.config.hidden_size

    @property
    def _itemsize(self) -> int:
        return jnp.dtype(self.config.dtype).itemsize

    @property
    def _token_bytes(self) -> int:
        """Of the keys and values of one token."""
        heads = self.config.num_key_value_heads * self.config.head_dim
        return 2 * self.config.num_hidden_layers * heads * self._itemsize

    @property
    def _logits_bytes(self) -> int:
        """Of the logits of one token, written and read."""
        return 2 * 4 * self.config.vocab_size
