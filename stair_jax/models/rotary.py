"""Rotary position embedding (RoPE), and its scalings for longer contexts: Llama 3 and YaRN."""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stair_jax.errors import UserError

# Cosines and sines, each [B, T, 1, head_dim / 2] float32.
Rotation = tuple[jax.Array, jax.Array]

SCALINGS = ("llama3", "yarn")
_POSITIVE = (
    "original_max_position_embeddings",
    "low_freq_factor",
    "high_freq_factor",
    "beta_fast",
    "beta_slow",
    "attention_factor",
)


@dataclass(frozen=True)
class RopeScaling:
    """How rotary frequencies are lowered for contexts longer than those of pretraining.

    A component that rotates often within the original context keeps its frequency, one that rotates
    rarely has it divided by `factor`, and those in between are interpolated. With n rotations
    within the original context, the share that keeps its frequency is

        "llama3" (Llama 3.1): linear in n, from 0 at `low_freq_factor` to 1 at `high_freq_factor`;
        "yarn" (arXiv 2309.00071): linear in the component's index, from 1 at the component with
            `beta_fast` rotations (rounded down) to 0 at that with `beta_slow` (rounded up).

    YaRN also multiplies rotated queries and keys by `attention_factor`.
    """

    kind: str
    factor: float
    original_max_position_embeddings: int
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float = 1.0

    def __post_init__(self) -> None:
        """Checks the fields.

        Raises:
            UserError: names the first field that is not valid.
        """
        if self.kind not in SCALINGS:
            raise UserError(
                f"rope scaling {self.kind!r} is unknown: choose {' or '.join(SCALINGS)}"
            )
        if not 1 <= self.factor < math.inf:
            raise UserError(
                f"factor {self.factor} of the rope scaling must be finite and at least 1"
            )
        for name in _POSITIVE:
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(
                    f"{name} {getattr(self, name)} of the rope scaling must be finite and positive"
                )
        for low, high in (("low_freq_factor", "high_freq_factor"), ("beta_slow", "beta_fast")):
            if getattr(self, low) >= getattr(self, high):
                raise UserError(f"{low} of the rope scaling must be less than its {high}")

    def to_huggingface(self) -> dict[str, Any]:
        """The `rope_scaling` of a `config.json`, as read by transformers and vLLM."""
        values = {
            "rope_type": self.kind,
            "factor": self.factor,
            "original_max_position_embeddings": self.original_max_position_embeddings,
        }
        if self.kind == "llama3":
            return values | {
                "low_freq_factor": self.low_freq_factor,
                "high_freq_factor": self.high_freq_factor,
            }
        own = yarn_attention_factor(self.factor)
        if not math.isclose(self.attention_factor, own):
            # Transformers reads `attention_factor`, vLLM `attn_factor`.
            values["attention_factor"] = self.attention_factor
            values["attn_factor"] = self.attention_factor / own
        return values | {"beta_fast": self.beta_fast, "beta_slow": self.beta_slow}


def yarn_attention_factor(factor: float) -> float:
    """The attention factor that the authors of YaRN recommend (arXiv 2309.00071, equation 22)."""
    return 0.1 * math.log(factor) + 1.0


def rotary_embedding(
    positions: jax.Array, head_dim: int, theta: float, scaling: RopeScaling | None = None
) -> Rotation:
    """Cosines and sines of the rotation angles.

    Args:
        positions: [B, T] int32.
        head_dim: size of a head.
        theta: base of the frequencies.
        scaling: for longer contexts, or None.

    Returns:
        Two arrays [B, T, 1, head_dim / 2] float32; the axis of size 1 broadcasts over heads.
    """
    exponents = jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim
    positions_per_radian = theta**exponents
    if scaling is not None:
        positions_per_radian *= stretch(head_dim, theta, scaling)
    angles = positions[..., None, None].astype(jnp.float32) / positions_per_radian
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    if scaling is not None and scaling.attention_factor != 1:
        cos, sin = cos * scaling.attention_factor, sin * scaling.attention_factor
    return cos, sin


def stretch(head_dim: int, theta: float, scaling: RopeScaling) -> np.ndarray:
    """The divisors >= 1 of the frequencies: [head_dim / 2] float32."""
    index = np.arange(head_dim // 2)
    length = scaling.original_max_position_embeddings / (2 * math.pi)
    if scaling.kind == "llama3":
        turns = length / theta ** (2 * index / head_dim)
        low, high = scaling.low_freq_factor, scaling.high_freq_factor
        kept = np.clip((turns - low) / (high - low), 0, 1)
    else:
        first, last = (
            head_dim * math.log(length / turns) / (2 * math.log(theta))
            for turns in (scaling.beta_fast, scaling.beta_slow)
        )
        first, last = max(math.floor(first), 0), min(math.ceil(last), head_dim - 1)
        # At least 0.001 wide, as in transformers: both bounds may be the same component.
        kept = 1 - np.clip((index - first) / max(last - first, 0.001), 0, 1)
    return (1 / (kept + (1 - kept) / scaling.factor)).astype(np.float32)


def rotate(heads: jax.Array, rotation: Rotation) -> jax.Array:
    """Rotates heads[B, T, N, H] in float32; component i pairs with i + H / 2 (Hugging Face)."""
    cos, sin = rotation
    first, second = jnp.split(heads.astype(jnp.float32), 2, axis=-1)
    rotated = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return rotated.astype(heads.dtype)
