"""AdamW with a clipped gradient, and a cosine schedule with warm-up."""

import functools
import math
from dataclasses import dataclass

import jax.numpy as jnp
import optax

from stair_jax.settings import Settings, setting


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
      mu_dtype: of Adam's first moment, "float32" or "bfloat16"; the second is float32.
    """

    learning_rate: float = setting(1e-6, above=0)
    warmup_ratio: float = setting(0.1, least=0, most=1)
    final_lr_ratio: float = setting(0.0, least=0, most=1)
    weight_decay: float = setting(0.0, least=0)
    clip_norm: float = setting(1.0, least=0)
    b1: float = setting(0.9, least=0, below=1)
    b2: float = setting(0.999, least=0, below=1)
    eps: float = setting(1e-8, above=0, most=1)
    mu_dtype: str = setting("float32", choices=("float32", "bfloat16"))


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


@dataclass(frozen=True)
class Optimizer:
    """`tx` gives the updates of a learning rate of 1, `schedule` the rate to multiply them with."""

    tx: optax.GradientTransformation
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
    tx = _adamw(
        settings.b1,
        settings.b2,
        settings.eps,
        settings.weight_decay,
        settings.clip_norm,
        settings.mu_dtype,
    )
    return Optimizer(tx, schedule)


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
