"""AdamW with a clipped gradient, and a cosine schedule with warm-up."""

import functools
import math
from dataclasses import dataclass
from typing import Protocol

import jax.numpy as jnp
import optax

from stair_jax.errors import UserError


class OptimizerSettings(Protocol):
    """What `make_optimizer` reads from the settings of a stage."""

    @property
    def learning_rate(self) -> float: ...
    @property
    def warmup_ratio(self) -> float: ...
    @property
    def final_lr_ratio(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def clip_norm(self) -> float: ...
    @property
    def b1(self) -> float: ...
    @property
    def b2(self) -> float: ...
    @property
    def eps(self) -> float: ...
    @property
    def mu_dtype(self) -> str: ...


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

    Raises:
      UserError: names the setting that cannot be.
    """
    _check(settings)
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


def _check(settings: OptimizerSettings) -> None:
    checks = {
        "learning_rate": (settings.learning_rate > 0, "above 0"),
        "warmup_ratio": (0 <= settings.warmup_ratio <= 1, "between 0 and 1"),
        "final_lr_ratio": (0 <= settings.final_lr_ratio <= 1, "between 0 and 1"),
        "weight_decay": (settings.weight_decay >= 0, "0 or more"),
        "clip_norm": (settings.clip_norm >= 0, "0 (no clipping) or more"),
        "b1": (0 <= settings.b1 < 1, "at least 0 and below 1"),
        "b2": (0 <= settings.b2 < 1, "at least 0 and below 1"),
        "eps": (settings.eps > 0, "above 0"),
    }
    for name, (holds, rule) in checks.items():
        if not holds:
            raise UserError(f"{name} is {getattr(settings, name)}: it must be {rule}")
