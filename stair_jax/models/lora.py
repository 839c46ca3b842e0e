"""Low-rank adapters (LoRA, arXiv 2106.09685) beside the kernels of the layers.

A kernel W[in, out] with an adapter multiplies inputs x as

    x W + scale * (x A) B,    A [in, rank],  B [rank, out]

where `in` and `out` are the axes of the kernel, one or two each. Adapters stand in `layers` beside
their kernels, stacked alike (L layers, r = rank):

    NAME_lora_a [L, *in, r]    NAME_lora_b [L, r, *out]

for each NAME of `Lora.targets`. Beside embedding and (untied) head, K tokens may have rows of their
own, in place of those of the table (K = `len(Lora.token_ids)`):

    embedding_rows [K, D]    head_rows [K, D]

Training splits a tree of parameters into what is frozen and the adapters (`split`), and the model
sees both again (`join`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec

from stair_jax.errors import UserError
from stair_jax.models import remat

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
TABLES = ("embedding", "head")
ROWS = "_rows"


@dataclass(frozen=True)
class Lora:
    """The adapters of a model.

    Attributes:
        rank: r.
        scale: of the product of A and B: alpha / rank, or with rsLoRA alpha / sqrt(rank)
            (arXiv 2312.03732).
        targets: the kernels that have one, in the order of `KERNELS`.
        dtype: in which adapters are kept.
        token_ids: the tokens whose rows of embedding and head are trained too.
    """

    rank: int
    scale: float
    targets: tuple[str, ...] = tuple(KERNELS)
    dtype: str = "float32"
    token_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Raises a UserError for a target that is no kernel."""
        for name in self.targets:
            if name not in KERNELS:
                raise UserError(f"no adapter for {name!r}: choose of {', '.join(KERNELS)}")


def is_adapter(name: str) -> bool:
    """Whether a parameter of this name is (half of) an adapter, or rows of tokens."""
    return name.endswith((A, B, ROWS))


def split(params: Params, kept: int = 0) -> tuple[Params, Params]:
    """(what is frozen, what is trained) of a model with adapters.

    Args:
        params: as of `init_params`, or {"model": those, "score": the scalar head}; or a tree like
            these, of shapes or PartitionSpecs. Adapters and rows of tokens are trained, and a
            scalar head.
        kept: so many of the ranks of each adapter, the first ones, are frozen.
    """
    if "model" in params:
        frozen, trained = split(params["model"], kept)
        rest = {name: value for name, value in params.items() if name != "model"}
        return {"model": frozen}, {"model": trained, **rest}
    frozen, trained = _parted(params)
    still, moving = _parted(params["layers"])
    if kept:
        still |= {name: _ranks(name, value, slice(kept)) for name, value in moving.items()}
        moving = {name: _ranks(name, value, slice(kept, None)) for name, value in moving.items()}
    return {**frozen, "layers": still}, {**trained, "layers": moving}


def _parted(params: Params) -> tuple[Params, Params]:
    """The parameters that are no adapters, and those that are; none of `layers`."""
    names = [name for name in params if name != "layers"]
    adapters = {name: params[name] for name in names if is_adapter(name)}
    return {name: params[name] for name in names if not is_adapter(name)}, adapters


def _ranks(name: str, value: Any, part: slice) -> Any:
    """Some ranks of an adapter's half [L, *in, r] or [L, r, *out]; no axis of it is split there."""
    if isinstance(value, PartitionSpec):
        return value
    axis = _rank_axis(name, value)
    if isinstance(value, jax.ShapeDtypeStruct):
        shape = list(value.shape)
        shape[axis] = len(range(*part.indices(shape[axis])))
        return jax.ShapeDtypeStruct(tuple(shape), value.dtype, sharding=value.sharding)
    return value[(slice(None),) * axis + (part,)]


def _rank_axis(name: str, value: Any) -> int:
    return value.ndim - 1 if name.endswith(A) else 1


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
            parts = [both[name].astype(value.dtype), value]
            both[name] = jnp.concatenate(parts, _rank_axis(name, value))
    return both


def rescaled(params: Params, ratio: float) -> Params:
    """The parameters with all B times a ratio: the same model where the scale is divided by it."""
    layers = {
        name: value * ratio if name.endswith(B) else value
        for name, value in params["layers"].items()
    }
    return {**params, "layers": layers}


def own_rows(params: Params, ids: Sequence[int], dtype: str = "float32") -> Params:
    """Rows of these tokens as they are in the tables: {"embedding_rows": [K, D], ...}."""

    def copied(table: jax.Array) -> jax.Array:
        return table[jnp.asarray(ids)].astype(dtype)

    return {name + ROWS: jax.jit(copied)(params[name]) for name in TABLES if name in params}


def with_rows(
    embedded: jax.Array, tokens: jax.Array, ids: Sequence[int], rows: jax.Array
) -> jax.Array:
    """Puts the rows of tokens that have their own in the place of those of the table.

    Args:
        embedded: [B, T, D], rows of the table.
        tokens: [B, T] token ids.
        ids: K token ids.
        rows: [K, D].
    """
    is_own = tokens[..., None] == jnp.asarray(ids, tokens.dtype)
    # Products, not a gather: the gradient of the few rows is then no scatter.
    own = jnp.einsum("btk,kd->btd", is_own.astype(embedded.dtype), rows.astype(embedded.dtype))
    return jnp.where(jnp.any(is_own, -1, keepdims=True), own, embedded)


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
    # The scale goes to the smallest of the arrays.
    low = checkpoint_name(low * jnp.asarray(scale, inputs.dtype), remat.LOW)
    return jnp.tensordot(low, b.astype(inputs.dtype), 1)
