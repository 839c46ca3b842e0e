"""Where programs that only read a model run: on one device, or on a mesh."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
from jax.sharding import Mesh

from stair_jax.parallel import rules
from stair_jax.parallel.mesh import batch_devices, use_mesh


class Placement:
    """Puts arguments of jitted programs where they belong.

    Without a mesh they are left as they are, on the host or on the default device.
    """

    def __init__(self, mesh: Mesh | None):
        """A mesh of one device costs time and changes nothing: use None."""
        self._mesh = mesh

    @contextmanager
    def use(self) -> Iterator[None]:
        """Within, logical axes of a traced program stand for axes of the mesh."""
        if self._mesh is None:
            yield
        else:
            with use_mesh(self._mesh):
                yield

    def rows(self, arrays: Any) -> Any:
        """A tree of arrays, the first axis of each split over data x fsdp, which divides it."""
        return (
            arrays
            if self._mesh is None
            else jax.device_put(arrays, rules.rows_sharding(self._mesh))
        )

    def whole(self, arrays: Any) -> Any:
        """A tree of arrays, each whole on every device."""
        return (
            arrays if self._mesh is None else jax.device_put(arrays, rules.replicated(self._mesh))
        )

    def round_up(self, rows: int) -> int:
        """The least number of rows, not below `rows`, that can be split."""
        parts = 1 if self._mesh is None else batch_devices(self._mesh)
        return -(-rows // parts) * parts
