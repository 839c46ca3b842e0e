"""AdamW with a clipped gradient, and a cosine schedule with warm-up."""

import functools
import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import jax.numpy as jnp
import optax

from stair_jax.settings import Settings, setting
from stair_jax.training.optimizers.frugal import FrugalAdam

# The fields of `FrugalAdam` beside those of all Adams, where they save nothing.
_NEUTRAL = {
    "mu_dtype": "float32",
    "second_moment": "float32",
    "rounding": "nearest",
    "accumulate_dtype": "float32",
    "offload": False,
}


@dataclass(frozen=True)
class OptimizerSettings(Settings):
    """AdamW and its schedule.

    Attributes:
      learning_rate: the highest of the schedule.
      warmup_ratio: share of the steps with a rising rate.
      final_lr_ratio: the last rate, as a share of the highest.
      weight_decay: decoupled, times the rate; of all parameters, norms and biases too.
      clip_norm: of the gradient; 0: none.
      b1: decay of Adam's first moment.
      b2: of the second.
      eps: of Adam.
      mu_dtype: of Adam's first moment: "float32", "bfloat16", or "int8", in blocks with a scale
        each.
      second_moment: how Adam's second moment is kept: "float32", "int8", in blocks likewise, or
        "factored", as means of the rows and columns of each kernel (Adafactor, arXiv 1804.04235).
      rounding: of parameters of `param_dtype` "bfloat16" after an update: to the "nearest",
        "stochastic", up or down so that the mean is right, or "kahan", with a second bfloat16 for
        each that keeps what rounding takes away (arXiv 2010.06192).
      accumulate_dtype: of the gradient's sum over micro-batches, "float32" or "bfloat16".
      offload: keep the moments of kernels in the host's memory, and copy them to the device layer
        by layer.
    """

    learning_rate: float = setting(1e-6, above=0)
    warmup_ratio: float = setting(0.1, least=0, most=1)
    final_lr_ratio: float = setting(0.0, least=0, most=1)
    weight_decay: float = setting(0.0, least=0)
    clip_norm: float = setting(1.0, least=0)
    b1: float = setting(0.9, least=0, below=1)
    b2: float = setting(0.999, least=0, below=1)
    eps: float = setting(1e-8, above=0, most=1)
    mu_dtype: str = setting("float32", choices=("float32", "bfloat16", "int8"))
    second_moment: Literal["float32", "int8", "factored"] = setting("float32", absent="float32")
    rounding: Literal["nearest", "stochastic", "kahan"] = setting("nearest", absent="nearest")
    accumulate_dtype: Literal["float32", "bfloat16"] = setting("float32", absent="float32")
    offload: bool = setting(False, absent=False)

    @property
    def is_in_eight_bits(self) -> bool:
        """Whether one of the moments is kept in 8 bits."""
        return "int8" in (self.mu_dtype, self.second_moment)

    @property
    def is_frugal(self) -> bool:
        """Whether any of these saves memory that optax's Adam would take."""
        others = (name for name in _NEUTRAL if name != "mu_dtype")
        chosen = any(getattr(self, name) != _NEUTRAL[name] for name in others)
        return chosen or self.mu_dtype == "int8"


@dataclass(frozen=True)
class Schedule:
    """Learning rate of each step: linear warm-up, then half a cosine.

    The rate is worked out on the host and given to the step as an argument, so that stages with
    other rates and lengths share one compiled step.
    """

    peak: float
    warmup_steps: int
    num_steps: int
    final: float

    def __call__(self, step: int) -> float:
        """Rate of step 0, 1, ..., num_steps - 1; `peak` first at step `warmup_steps`."""
        if step < self.warmup_steps:
            return self.peak * (step + 1) / (self.warmup_steps + 1)
        progress = (step - self.warmup_steps) / max(1, self.num_steps - self.warmup_steps)
        return self.final + (self.peak - self.final) * 0.5 * (1 + math.cos(math.pi * progress))


# Optax's for whole trees, or ours for one parameter after the other.
Transformation: TypeAlias = optax.GradientTransformation | FrugalAdam


@dataclass(frozen=True)
class Optimizer:
    """`tx` gives the updates of a learning rate of 1, `schedule` the rate to multiply them with."""

    tx: Transformation
    schedule: Schedule


def make_optimizer(settings: OptimizerSettings, num_steps: int) -> Optimizer:
    """AdamW for a run of `num_steps` steps.

    Settings of the same values give the same `tx` object, and so the same compiled step.
    """
    warmup_steps = math.ceil(settings.warmup_ratio * num_steps)
    schedule = Schedule(
        settings.learning_rate,
        warmup_steps,
        num_steps,
        settings.final_lr_ratio * settings.learning_rate,
    )
    adam = (settings.b1, settings.b2, settings.eps, settings.weight_decay, settings.clip_norm)
    if not settings.is_frugal:
        return Optimizer(_adamw(*adam, settings.mu_dtype), schedule)
    frugal = {name: getattr(settings, name) for name in _NEUTRAL}
    return Optimizer(FrugalAdam(*adam, **frugal), schedule)


def described(tx: Transformation) -> dict[str, str | bool]:
    """What a checkpoint says of how parameters and moments are kept; nothing of optax's Adam."""
    if not isinstance(tx, FrugalAdam):
        return {}
    values = {name: getattr(tx, name) for name in _NEUTRAL}
    return {name: value for name, value in values.items() if value != _NEUTRAL[name]}


@functools.lru_cache(maxsize=16)
def _adamw(
    b1: float, b2: float, eps: float, weight_decay: float, clip_norm: float, mu_dtype: str
) -> optax.GradientTransformation:
    """Clip by the global norm (0: no clipping), Adam, decoupled weight decay on all parameters."""
    return optax.chain(
        optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity(),
        optax.scale_by_adam(b1, b2, eps, mu_dtype=jnp.dtype(mu_dtype)),
        optax.add_decayed_weights(weight_decay) if weight_decay else optax.identity(),
        optax.scale(-1.0),
    )
