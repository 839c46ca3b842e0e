"""How long stages take, from measured rates; all results are in seconds."""

import dataclasses
import functools
from dataclasses import dataclass

import numpy as np

from stair_jax.models import flops
from stair_jax.models.config import ModelConfig
from stair_jax.models.huggingface.known_configs import KNOWN
from stair_jax.parallel.chips import Chip
from stair_jax.planning import rates
from stair_jax.planning.figures import Basis, Figure
from stair_jax.planning.needs import DataSize


@dataclass(frozen=True)
class Decoder:
    """An engine as far as its speed depends on it.

    Attributes:
      config: of the model.
      slots: sequences that decode side by side on each part of the devices.
      parts: of the devices, each with a copy of the model.
      tensor: devices of a part.
      weights: "none", "fp8" or "int8".
      itemsize: bytes of a key or value in the cache.
    """

    config: ModelConfig
    slots: int
    parts: int = 1
    tensor: int = 1
    weights: str = "none"
    itemsize: float = 2.0


def training(
    config: ModelConfig,
    chip: Chip,
    num_chips: int,
    data: DataSize,
) -> Figure | None:
    """Seconds of a training run without its saves; None where the chip's peak is not known.

    Args:
      config: of the model, with its remat policy.
      chip: of each device.
      num_chips: that train.
      data: that is trained on.
    """
    if chip.flops is None:
        return None
    row = flops.RowShape(1, round(data.length), round(data.scored))
    mfu = training_rate(config)
    a_flop = Figure(1 / (num_chips * chip.flops * mfu.value), max(mfu.basis, on(chip)))
    forward = data.unique * (data.passes * flops.forward_flops(config, row))
    return (data.count * flops.training_flops(config, row) + forward) * a_flop


def training_rate(config: ModelConfig) -> rates.Rate:
    """Of a training step, by what is trained and what is kept for the backward pass."""
    return (rates.LORA_MFU if config.lora else rates.MFU)[config.remat]


def search(decoder: Decoder, chip: Chip, iterations: Figure, tokens: float) -> Figure | None:
    """Seconds of a search; None where the chip's peaks are not known.

    The least time of an iteration on this chip, at the share of it that was measured.

    Args:
      decoder: the engine.
      chip: of each device.
      iterations: of all trees together.
      tokens: sampled in an iteration.
    """
    if chip.flops is None or chip.bandwidth is None:
        return None
    floor = _iteration_floor(decoder, chip, tokens) / decoder.parts
    together = rates.SEARCH_TOGETHER.value if decoder.parts > 1 else 1.0
    rate = rates.SEARCH[decoder.weights]
    is_same = _is_measured_model(decoder.config)
    basis = max(rate.basis, on(chip), Basis.MEASURED if is_same else Basis.SCALED)
    return iterations * Figure(floor / _efficiency(decoder.weights) / together, basis)


def loading(num_bytes: float, chip: Chip) -> Figure:
    """Seconds to read a folder of weights."""
    return Figure(num_bytes / rates.IMPORT.value, on(chip))


def exporting(num_bytes: float, chip: Chip) -> Figure:
    """Seconds to write a folder of weights."""
    return Figure(num_bytes / rates.EXPORT.value, on(chip))


def on(chip: Chip) -> Basis:
    """What a measured rate is worth on a chip."""
    return Basis.MEASURED if chip.name == rates.MEASURED_ON.name else Basis.SCALED


def _iteration_floor(decoder: Decoder, chip: Chip, tokens: float) -> float:
    """Least seconds of an iteration on one part: decode steps, contexts, and what is prefilled."""
    assert chip.flops is not None and chip.bandwidth is not None
    config, slots = decoder.config, decoder.slots
    kernels = flops.layer_params(config)
    head = config.vocab_size * config.hidden_size
    wide = np.dtype(config.dtype).itemsize if decoder.weights == "none" else 1.0
    weights = kernels * wide + head * np.dtype(config.dtype).itemsize
    token = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    cache = slots * rates.MEAN_CONTEXT * token * decoder.itemsize
    step = (weights + cache) / decoder.tensor / chip.bandwidth
    products = 2 * kernels * rates.PREFILLED_SHARE * tokens / decoder.tensor / chip.flops
    return tokens / slots * step + products


@functools.cache
def _efficiency(weights: str) -> float:
    """Floor of the measured workload on the measured chip, as a share of its measured time."""
    config = dataclasses.replace(_measured_model(), dtype="bfloat16")
    decoder = Decoder(config, rates.SEARCH_SLOTS, weights=weights)
    floor = _iteration_floor(decoder, rates.MEASURED_ON, rates.Amounts().iteration_tokens)
    return floor * rates.SEARCH[weights].value


def _measured_model() -> ModelConfig:
    return ModelConfig.from_huggingface(KNOWN[rates.SEARCH_MODEL].config)


def _is_measured_model(config: ModelConfig) -> bool:
    ratio = flops.layer_params(config) / flops.layer_params(_measured_model())
    return abs(ratio - 1) < 0.1
