"""Placement of the arguments of inference programs, on one device or on a mesh."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
from jax.sharding import Mesh

from stair_jax.parallel import rules
from stair_jax.parallel.mesh import batch_devices, use_mesh


class Placement:
    """Puts arguments of jitted programs on a mesh.

    Without a mesh they are left where they are (host or default device), and jit transfers them.
    """

    def __init__(self, mesh: Mesh | None):
        """Use None for a single device: a mesh of one device gives the same results, but slower."""
        self._mesh = mesh

    @contextmanager
    def use(self) -> Iterator[None]:
        """Context in which programs are traced and called, see `mesh.use_mesh`."""
        if self._mesh is None:
            yield
        else:
            with use_mesh(self._mesh):
                yield

    def rows(self, arrays: Any) -> Any:
        """Shards a pytree of arrays by their first axis over data x fsdp, which must divide it."""
        return (
            arrays
            if self._mesh is None
            else jax.device_put(arrays, rules.rows_sharding(self._mesh))
        )

    def whole(self, arrays: Any) -> Any:
        """Replicates a pytree of arrays over the mesh."""
        return (
            arrays if self._mesh is None else jax.device_put(arrays, rules.replicated(self._mesh))
        )

    def round_up(self, rows: int) -> int:
        """`rows` rounded up to a multiple of data x fsdp."""
        parts = 1 if self._mesh is None else batch_devices(self._mesh)
        return -(-rows // parts) * parts
