"""Host-side driver of the batched tree search (`kernel.py`): results in, requests out."""

import math
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from stair_jax.errors import UserError
from stair_jax.search import kernel
from stair_jax.search.actor import Children, Evaluated
from stair_jax.search.tree import Delivery, Need, SearchConfig


def tree_bytes(config: SearchConfig) -> int:
    """Bytes of the statistics of one tree (B = 1), without allocating any."""
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1))
    shapes = jax.tree.leaves(jax.eval_shape(partial(kernel.init, config), keys))
    return sum(math.prod(leaf.shape) * _itemsize(leaf.dtype) for leaf in shapes)


def _itemsize(dtype: Any) -> int:
    """Bytes per element; a typed threefry key is two 32-bit words."""
    return 8 if jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key) else np.dtype(dtype).itemsize


class LaneTask(NamedTuple):
    """What one lane of one tree asks for, and how many iterations the tree has done."""

    slot: int
    lane: int
    node: int
    need: Need
    iterations: int


class BatchedTrees:
    """The B = `batch` trees of a search, on one device.

    The number of slots is fixed, so that the round is compiled once. A slot without a prompt holds
    a tree whose requests the caller ignores.
    """

    def __init__(self, config: SearchConfig, batch: int, device: jax.Device):
        """New trees in all slots.

        Args:
          config: static settings of the search.
          batch: number of slots, B.
          device: where the statistics are kept and the rounds run.
        """
        self._config, self._batch, self._device = config, batch, device
        self._delivery = Delivery.empty(config, batch)
        self._trees = kernel.init(config, self._keys({}))

    def reset(self, keys: Mapping[int, tuple[int, int]]) -> None:
        """Starts new trees; `keys` maps a slot to the two u32 words of its key for ties."""
        mask = np.zeros(self._batch, bool)
        mask[list(keys)] = True
        self._trees = kernel.restart(self._config, self._trees, self._keys(keys), mask)

    def deliver(self, slot: int, outcome: Children | Evaluated) -> None:
        """Stages a result for one lane of a tree; at most once per tree and round."""
        delivery = self._delivery
        delivery.lane[slot] = outcome.lane
        if isinstance(outcome, Evaluated):
            delivery.rewarded[slot] = True
            delivery.reward[slot] = outcome.reward
            return
        count = len(outcome.steps)
        delivery.expanded[slot] = True
        delivery.expansion.num_children[slot] = count
        delivery.expansion.prior[slot, :count] = [step.prior for step in outcome.steps]
        delivery.expansion.is_terminal[slot, :count] = [step.terminal for step in outcome.steps]

    def advance(self) -> tuple[list[LaneTask], list[int]]:
        """Runs one round with the staged results.

        Returns:
          (new requests, slots whose trees have used up their budget). A finished tree is in the
          second list in every round until its slot is restarted.
        """
        self._trees, selection = kernel.advance(self._config, self._trees, self._delivery)
        self._delivery = Delivery.empty(self._config, self._batch)
        nodes, needs = np.asarray(selection.node), np.asarray(selection.need)
        iterations = np.asarray(self._trees.iterations)
        slots, lanes = np.nonzero((needs != Need.WAIT) & (needs != Need.DONE))
        columns = (slots, lanes, nodes[slots, lanes], needs[slots, lanes], iterations[slots])
        tasks = [
            LaneTask(slot, lane, node, Need(need), count)
            for slot, lane, node, need, count in zip(
                *(column.tolist() for column in columns), strict=True
            )
        ]
        return tasks, np.flatnonzero(needs[:, 0] == Need.DONE).tolist()

    def iterations(self, slots: Iterable[int]) -> int:
        """Iterations that the trees in `slots` have done together."""
        return int(np.asarray(self._trees.iterations)[list(slots)].sum())

    def visits(self, slots: list[int]) -> list[list[int]]:
        """Visits of every node slot [N] of each of the trees in `slots`."""
        return np.asarray(self._trees.visits)[slots].tolist()

    def _keys(self, words: Mapping[int, tuple[int, int]]) -> jax.Array:
        """Typed threefry keys [B] on the device; zero for slots that are not named."""
        rows = np.zeros((self._batch, 2), np.uint32)
        for slot, pair in words.items():
            rows[slot] = pair
        return jax.random.wrap_key_data(jax.device_put(rows, self._device), impl="threefry2x32")


def find_device(name: str) -> jax.Device:
    """Where the tree statistics live: "host" (the first CPU device) or "device" (the default one).

    A round takes about a millisecond on a CPU. On an accelerator it would queue behind the decode
    calls that are already dispatched, which take much longer.

    Raises:
      UserError: an unknown name, or JAX_PLATFORMS excludes the CPU.
    """
    if name == "device":
        return jax.local_devices()[0]
    if name != "host":
        raise UserError(f"runtime.tree_device is {name!r}: choose 'host' or 'device'")
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError as error:
        raise UserError(
            "runtime.tree_device is 'host', but JAX has no CPU device here: add cpu to "
            "JAX_PLATFORMS, or set runtime.tree_device to 'device'"
        ) from error
