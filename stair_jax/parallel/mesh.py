"""The mesh of devices that a training step runs on."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import flax.linen as nn
import jax
from jax.sharding import AxisType, Mesh

from stair_jax.errors import UserError
from stair_jax.parallel.rules import RULES

AXES = ("data", "fsdp", "tensor")


def make_mesh(
    data: int = 1, fsdp: int = 1, tensor: int = 1, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """A mesh of data x fsdp x tensor devices: the first ones of `devices` (default: all there are).

    Raises:
      UserError: there are too few devices.
    """
    devices = jax.devices() if devices is None else devices
    count = data * fsdp * tensor
    if count < 1 or count > len(devices):
        raise UserError(
            f"a mesh of {data} x {fsdp} x {tensor} needs {count} devices, there are {len(devices)}"
        )
    # Linen's logical constraints fail on the Explicit axes that are the default.
    return jax.make_mesh(
        (data, fsdp, tensor), AXES, (AxisType.Auto,) * len(AXES), devices=devices[:count]
    )


@contextmanager
def use_mesh(mesh: Mesh) -> Iterator[None]:
    """Within, the logical axes of a traced model stand for axes of `mesh`."""
    with jax.set_mesh(mesh), nn.logical_axis_rules(RULES):
        yield
