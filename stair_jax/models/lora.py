"""Low-rank adapters (LoRA, arXiv 2106.09685) beside the kernels of the layers.

A kernel W[in, out] with an adapter multiplies inputs x as

    x W + scale * (x A) B,    A [in, rank],  B [rank, out]

where `in` and `out` are the axes of the kernel, one or two each. Adapters stand in `layers` beside
their kernels, stacked alike (L layers, r = rank):

    NAME_lora_a [L, *in, r]    NAME_lora_b [L, r, *out]

for each NAME of `Lora.targets`. Training splits a tree of parameters into what is frozen and the
adapters (`split`), and the model sees both again (`join`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from stair_jax.errors import UserError

Params = dict[str, Any]

# Kernels that may have an adapter, and how many of their axes (behind that of the layers) are read.
KERNELS: Mapping[str, int] = {
    "query": 1,
    "key": 1,
    "value": 1,
    "out": 2,
    "gate": 1,
    "up": 1,
    "down": 1,
}
A, B = "_lora_a", "_lora_b"


@dataclass(frozen=True)
class Lora:
    """The adapters of a model.

    Attributes:
        rank: r.
        scale: of the product of A and B: alpha / rank, or with rsLoRA alpha / sqrt(rank)
            (arXiv 2312.03732).
        targets: the kernels that have one, in the order of `KERNELS`.
        dtype: in which adapters are kept.
    """

    rank: int
    scale: float
    targets: tuple[str, ...] = tuple(KERNELS)
    dtype: str = "float32"

    def __post_init__(self) -> None:
        """Raises a UserError for a target that is no kernel."""
        for name in self.targets:
            if name not in KERNELS:
                raise UserError(f"no adapter for {name!r}: choose of {', '.join(KERNELS)}")


def is_adapter(name: str) -> bool:
    """Whether a parameter of this name is (half of) an adapter."""
    return name.endswith((A, B))


def split(params: Params) -> tuple[Params, Params]:
    """(what is frozen, what is trained) of a model with adapters.

    Args:
        params: as of `init_params`, or {"model": those, "score": the scalar head}; or a tree like
            these. Adapters are trained, and a scalar head.
    """
    if "model" in params:
        frozen, trained = split(params["model"])
        rest = {name: value for name, value in params.items() if name != "model"}
        return {"model": frozen}, {"model": trained, **rest}
    layers = params["layers"]
    adapters = {name: value for name, value in layers.items() if is_adapter(name)}
    others = {name: value for name, value in layers.items() if not is_adapter(name)}
    return {**params, "layers": others}, {"layers": adapters}


def join(frozen: Params, trained: Params) -> Params:
    """The whole of what `split` took apart; where there is nothing frozen, `trained` itself.

    An adapter that is in both is one of two parts: frozen ones of an earlier stage, and those in
    training, whose ranks add up.
    """
    if not frozen:
        return trained
    both = dict(frozen)
    for name, value in trained.items():
        if name not in both:
            both[name] = value
        elif isinstance(value, dict):
            both[name] = join(both[name], value)
        else:
            axis = value.ndim - 1 if name.endswith(A) else 1  # that of the rank
            both[name] = jnp.concatenate([both[name].astype(value.dtype), value], axis)
    return both


def product(inputs: jax.Array, a: jax.Array, b: jax.Array, scale: float) -> jax.Array:
    """What an adapter adds to a product: scale * (inputs A) B, in the dtype of the inputs.

    Args:
        inputs: [..., *in].
        a: [*in, r].
        b: [r, *out].
        scale: see `Lora`.

    Returns:
        [..., *out].
    """
    low = jnp.tensordot(inputs, a.astype(inputs.dtype), a.ndim - 1)
    return jnp.tensordot(low, b.astype(inputs.dtype), 1) * jnp.asarray(scale, inputs.dtype)


def merge(lora: Lora, params: Params) -> Params:
    """The parameters of a language model with each adapter added to its kernel.

    One kernel at a time; its old array is deleted.

    Args:
        lora: the adapters.
        params: as of `init_params`, with adapters; kernels that are plain arrays.

    Returns:
        the same without adapters.
    """
    frozen, trained = split(params)
    layers = dict(frozen["layers"])
    for name in lora.targets:
        kernel = layers[name]
        a, b = (trained["layers"][name + half] for half in (A, B))
        layers[name] = jax.block_until_ready(_merged(lora.scale, kernel, a, b))
    return {**frozen, "layers": layers}


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def _merged(scale: float, kernel: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    """The kernel [L, *in, *out] with its adapter, summed in float32 and rounded once."""

    def of_layer(kernel: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
        wide = jnp.tensordot(
            a.astype(jnp.float32), b.astype(jnp.float32), 1, precision=jax.lax.Precision.HIGHEST
        )
        return (kernel.astype(jnp.float32) + scale * wide).astype(kernel.dtype)

    # Layer by layer, so that the float32 sums of all are never there at once.
    return jax.lax.map(lambda each: of_layer(*each), (kernel, a, b))
