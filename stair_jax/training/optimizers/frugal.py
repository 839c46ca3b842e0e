"""AdamW in less memory, parameter by parameter and layer by layer.

Optax updates whole trees, and hands back all updates at once. Here each layer of each parameter is
read, updated and written before the next: gradients are widened, moments decoded and sums rounded
for one layer at a time, in place.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from stair_jax.training.optimizers import eight_bit, factored, host_memory
from stair_jax.training.optimizers.eight_bit import EightBit
from stair_jax.training.optimizers.factored import Factored
from stair_jax.training.optimizers.layers import is_stacked, update_each
from stair_jax.training.optimizers.moments import Axis, Kept, Plain, Shape, Store
from stair_jax.training.optimizers.random_bits import Rows, key_of, random_bits
from stair_jax.training.optimizers.rounding import split_sum, stochastically_rounded

Params = Any


class FrugalState(NamedTuple):
    """State of `FrugalAdam`.

    Attributes:
      steps: int32, how many were done.
      kept: a tree like the parameters with a dict for each: "first" and "second", the moments as
        their stores keep them; "lost", with Kahan's sum, what rounding took from the parameter.
    """

    steps: jax.Array
    kept: Any


class Step(NamedTuple):
    """Scalars of one step: its number from 1, the rate, and the factor of the gradients."""

    number: jax.Array
    learning_rate: jax.Array
    factor: jax.Array


@dataclass(frozen=True)
class FrugalAdam:
    """Adam with decoupled weight decay; see `OptimizerSettings` for the fields."""

    b1: float
    b2: float
    eps: float
    weight_decay: float
    clip_norm: float
    mu_dtype: str
    second_moment: str
    rounding: str
    accumulate_dtype: str
    offload: bool

    def stores(self, shape: Shape) -> dict[str, Store]:
        """How the moments of a parameter of one layer are kept.

        Vectors (norms, biases) have float32 moments where others have codes or factors: they are
        few.
        """
        plain = Plain("float32")
        first: Store = plain if self.mu_dtype == "int8" else Plain(self.mu_dtype)
        second: Store = plain
        if self.mu_dtype == "int8" and eight_bit.fits(shape):
            first = EightBit(signed=True)
        if self.second_moment == "int8" and eight_bit.fits(shape):
            second = EightBit(signed=False)
        if self.second_moment == "factored" and factored.fits(shape):
            second = Factored()
        return {"first": first, "second": second}

    def abstract(self, params: Params, shardings: Params, mesh: Mesh) -> FrugalState:
        """The state as `ShapeDtypeStruct`s with shardings.

        Args:
          params: arrays or shapes.
          shardings: of them.
          mesh: the devices.
        """
        kept = jax.tree_util.tree_map_with_path(self._abstract_kept, params, shardings)
        whole = NamedSharding(mesh, PartitionSpec())
        steps: Any = jax.ShapeDtypeStruct((), jnp.int32, sharding=whole)
        return FrugalState(steps, kept)

    @property
    def by_layer(self) -> bool:
        """Whether layers are updated one after the other, as more than the update is in memory."""
        return self.offload or "int8" in (self.mu_dtype, self.second_moment)

    def init(self, params: Params, shardings: Params, mesh: Mesh) -> FrugalState:
        """The state before the first step, zeros, where it belongs."""
        return host_memory.zeros(self.abstract(params, shardings, mesh))

    def apply(
        self,
        gradients: Params,
        weight: jax.Array,
        params: Params,
        state: FrugalState,
        learning_rate: jax.Array,
    ) -> tuple[Params, FrugalState, jax.Array]:
        """(new parameters, new state, norm of the gradient before clipping).

        Args:
          gradients: sums over the examples, of any floating dtype.
          weight: that they are divided by.
          params: of the same structure.
          state: of the step before.
          learning_rate: of this step.
        """
        norm = _norm(gradients) / weight
        clipped = jnp.minimum(1.0, self.clip_norm / norm) if self.clip_norm else 1.0
        step = Step(state.steps + 1, learning_rate, clipped / weight)
        new, kept = update_each(
            partial(self._updated, step), params, gradients, state.kept, self.by_layer
        )
        return new, FrugalState(step.number, kept), norm

    def _abstract_kept(self, path: Any, param: Any, sharding: NamedSharding) -> dict[str, Kept]:
        spec = (*sharding.spec, *(None,) * (len(param.shape) - len(sharding.spec)))
        axes = tuple(
            Axis(size, names, _parts(sharding, names))
            for size, names in zip(param.shape, spec, strict=True)
        )
        layers = axes[:1] if is_stacked(path) else ()
        own = axes[len(layers) :]
        stores: dict[str, Store] = self.stores(tuple(axis.size for axis in own))
        if self.rounding == "kahan" and param.dtype == jnp.bfloat16:
            stores["lost"] = Plain("bfloat16")
        memory = host_memory.PINNED if self.offload and is_kernel(path, param) else None

        def placed(shape: Any, spec: PartitionSpec) -> Any:
            whole = (*(axis.size for axis in layers), *shape.shape)
            at = PartitionSpec(*(axis.mesh_axes for axis in layers), *spec)
            there = NamedSharding(sharding.mesh, at, memory_kind=memory)
            return jax.ShapeDtypeStruct(whole, shape.dtype, sharding=there)

        return {
            name: jax.tree.map(
                placed, store.shapes(tuple(axis.size for axis in own)), store.specs(own)
            )
            for name, store in stores.items()
        }

    def _updated(
        self,
        step: Step,
        key: jax.Array,
        param: jax.Array,
        gradient: jax.Array,
        kept: dict[str, Kept],
        rows: Rows,
    ) -> tuple[jax.Array, dict[str, Kept]]:
        """A parameter of one layer, or some of its rows, and what is kept of it."""
        is_away = host_memory.came_from_host(kept)
        kept = host_memory.to_device(kept) if is_away else kept
        keys = {use: key_of(key, step.number, use) for use in range(3)}
        first, second, update = self._direction(step, gradient, kept, keys, rows)
        wide = param.astype(jnp.float32)
        if "lost" in kept:
            wide += kept["lost"].astype(jnp.float32)
        if self.weight_decay:
            update += self.weight_decay * wide
        wide -= step.learning_rate * update
        new = {"first": first, "second": second}
        if "lost" in kept:
            param, new["lost"] = split_sum(wide)
        elif self.rounding == "stochastic" and param.dtype == jnp.bfloat16:
            param = stochastically_rounded(wide, random_bits(keys[2], wide.shape, rows))
        else:
            param = wide.astype(param.dtype)
        return param, host_memory.to_host(new) if is_away else new

    def _direction(
        self,
        step: Step,
        gradient: jax.Array,
        kept: dict[str, Kept],
        keys: Mapping[int, jax.Array],
        rows: Rows,
    ) -> tuple[Kept, Kept, jax.Array]:
        """(first moment, second moment, Adam's update for a rate of 1), with bias correction."""
        stores = self.stores(gradient.shape)
        gradient = step.factor * gradient.astype(jnp.float32)
        first, mean = stores["first"].average(kept["first"], gradient, self.b1, keys[0], rows)
        second, square = stores["second"].average(
            kept["second"], jnp.square(gradient), self.b2, keys[1], rows
        )
        steps = step.number.astype(jnp.float32)
        mean /= 1 - self.b1**steps
        square /= 1 - self.b2**steps
        return first, second, mean / (jnp.sqrt(square) + self.eps)


def is_kernel(path: Any, param: Any) -> bool:
    """Whether a parameter of one layer has two axes or more.

    What is kept of vectors (norms, biases) is little, and stays on the device: the compiler for
    TPUs takes no single row of bfloat16 out of host memory.
    """
    return len(param.shape) - is_stacked(path) > 1


def _parts(sharding: NamedSharding, names: Any) -> int:
    """Into how many parts mesh axes split an axis."""
    each = (names,) if isinstance(names, str) else names or ()
    return math.prod(sharding.mesh.shape[name] for name in each)


def _norm(gradients: Params) -> jax.Array:
    """Global norm in float32."""
    squares = [jnp.sum(jnp.square(leaf.astype(jnp.float32))) for leaf in jax.tree.leaves(gradients)]
    return jnp.sqrt(sum(squares))
