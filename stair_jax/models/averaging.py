"""Means of models in weight space: of whole parameters, and of adapters of one base.

Models that were trained from the same start keep what they have in common, and lose what each has
by chance (model soups, arXiv 2203.05482; of policies after reinforcement learning, WARP, arXiv
2406.16768).
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp

from stair_jax.errors import UserError
from stair_jax.models.lora import A, B, Lora
from stair_jax.models.transformer import Params


def average(models: Iterable[Params], weights: Sequence[float]) -> Params:
    """The weighted mean of parameters, summed in float32, in the dtypes of the first.

    Args:
      models: trees of one structure and shape, read one after another: one at a time is held beside
        the sum.
      weights: of each; their sum is 1.
    """
    remaining = iter(models)
    own = next(remaining)
    dtypes = jax.tree.map(lambda leaf: leaf.dtype, own)
    total = jax.tree.map(lambda leaf: jnp.zeros_like(leaf, jnp.float32), own)
    for number, weight in enumerate(weights):
        if number:
            own = next(remaining)
        total = _add(total, own, jnp.float32(weight))
        del own
    return jax.tree.map(lambda leaf, dtype: leaf.astype(dtype), total, dtypes)


@partial(jax.jit, donate_argnums=0)
def _add(total: Params, own: Params, weight: jax.Array) -> Params:
    return jax.tree.map(lambda sum_, leaf: sum_ + weight * leaf, total, own)


def average_adapters(
    adapters: Sequence[tuple[Params, Lora]], weights: Sequence[float]
) -> tuple[Params, Lora]:
    """Adapters whose product is the weighted mean of those that are given, but for rounding.

    The halves stand side by side, so that ranks add up:

        sum_i w_i s_i A_i B_i = s [A_1 ... A_n] [w_1 s_1/s B_1; ...; w_n s_n/s B_n]

    Rows of tokens are averaged.

    Args:
      adapters: of models of one base, as `load_adapters` gives them, and their sizes.
      weights: of each; their sum is 1.

    Raises:
      UserError: they are beside other kernels, or have rows of other tokens.
    """
    loras = [lora for _, lora in adapters]
    first = loras[0]
    for lora in loras[1:]:
        if (lora.targets, lora.token_ids) != (first.targets, first.token_ids):
            raise UserError(
                "the models have adapters of other kernels, or rows of other tokens: set form to "
                "merged"
            )
    layers = {}
    for name in adapters[0][0]["layers"]:
        parts = [params["layers"][name] for params, _ in adapters]
        if name.endswith(A):
            layers[name] = jnp.concatenate(parts, axis=-1)
        else:
            assert name.endswith(B), name
            shares = [w * lora.scale / first.scale for w, lora in zip(weights, loras, strict=True)]
            scaled = [share * part for share, part in zip(shares, parts, strict=True)]
            layers[name] = jnp.concatenate(scaled, axis=1).astype(parts[0].dtype)
    rows = [{n: v for n, v in params.items() if n != "layers"} for params, _ in adapters]
    rank = sum(lora.rank for lora in loras)
    return {"layers": layers, **average(rows, weights)}, replace(first, rank=rank)
