"""The device mesh, with the axes data, fsdp and tensor (data, sharded-data and tensor parallel)."""

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import flax.linen as nn
import jax
from jax.sharding import AxisType, Mesh

from stair_jax.errors import UserError
from stair_jax.parallel.rules import BATCH_AXES, RULES
from stair_jax.settings import Settings, setting

AXES = ("data", "fsdp", "tensor")


@dataclass(frozen=True)
class MeshShape(Settings):
    """Number of devices along each axis of a mesh; one of them may be -1 (all that remain).

    Attributes:
      data: data parallel: replicas of the model, each with its own rows of the batch.
      fsdp: fully sharded data parallel: devices that split parameters and optimizer state of a
        replica, each with its own rows; weights are all-gathered layer by layer for the compute.
      tensor: tensor parallel: devices that split attention heads, MLP and vocabulary, on the same
        rows.
    """

    data: int = setting(1, least=-1, most=2**20)
    fsdp: int = setting(1, least=-1, most=2**20)
    tensor: int = setting(1, least=-1, most=2**20)

    def __post_init__(self) -> None:
        """Raises a UserError that names an invalid axis."""
        super().__post_init__()
        for axis in AXES:
            size = getattr(self, axis)
            if size < 1 and size != -1:
                raise UserError(
                    f"{axis} of a mesh must be a number of devices or -1 (all that are left), "
                    f"not {size!r}"
                )
        if sum(getattr(self, axis) == -1 for axis in AXES) > 1:
            raise UserError(f"only one axis of a mesh may be -1, not {self}")

    def __str__(self) -> str:
        """For messages: `data 1 x fsdp 4 x tensor 2`."""
        return " x ".join(f"{axis} {getattr(self, axis)}" for axis in AXES)

    def resolve(self, num_devices: int) -> "MeshShape":
        """The shape with -1 replaced by a number, for `num_devices` devices.

        Raises:
          UserError: there are too few devices, or their number is not divisible by the other axes.
        """
        sizes = dataclasses.asdict(self)
        given = 1
        for size in sizes.values():
            given *= max(size, 1)
        if given > num_devices:
            raise UserError(f"a mesh of {self} needs {given} devices, there are {num_devices}")
        for axis, size in sizes.items():
            if size == -1:
                if num_devices % given:
                    raise UserError(
                        f"a mesh of {self} cannot use all of {num_devices} devices: their number "
                        f"must be a multiple of {given}"
                    )
                sizes[axis] = num_devices // given
        return MeshShape(**sizes)


def make_mesh(
    shape: MeshShape = MeshShape(),
    devices: Sequence[jax.Device] | None = None,
) -> Mesh:
    """A mesh over the first of `devices` (default: `jax.devices()`), with Auto axes.

    Raises:
      UserError: there are too few devices.
    """
    devices = jax.devices() if devices is None else devices
    shape = shape.resolve(len(devices))
    sizes = (shape.data, shape.fsdp, shape.tensor)
    count = shape.data * shape.fsdp * shape.tensor
    # `jax.make_mesh` makes Explicit axes by default, on which Linen's logical constraints fail.
    return jax.make_mesh(sizes, AXES, (AxisType.Auto,) * len(AXES), devices=devices[:count])


def batch_devices(mesh: Mesh) -> int:
    """Number of parts that the rows of a batch are split into: data x fsdp."""
    count = 1
    for axis in BATCH_AXES:
        count *= mesh.shape[axis]
    return count


def local_rows(mesh: Mesh, rows: int, process_index: int | None = None) -> slice:
    """The contiguous slice of a batch's rows that lies on the devices of a process.

    Processes among which `tensor` is split share their rows and get the same slice.

    Args:
      mesh: the devices of all processes.
      rows: rows of the batch over all processes.
      process_index: of the process; None: this one.

    Raises:
      UserError: data x fsdp does not divide the rows, the mesh has no device of the process, or the
        rows of the process are not contiguous.
    """
    parts, shape = batch_devices(mesh), MeshShape(**mesh.shape)
    if rows % parts:
        raise UserError(
            f"{rows} rows cannot be split over a mesh of {shape}: their number must be a multiple "
            f"of {parts}, data x fsdp"
        )
    process_index = jax.process_index() if process_index is None else process_index
    by_part = mesh.devices.reshape(parts, -1)  # [data * fsdp, tensor]
    mine = [
        part
        for part, devices in enumerate(by_part)
        if any(device.process_index == process_index for device in devices)
    ]
    if not mine:
        raise UserError(
            f"no device of process {process_index} is in the mesh of {shape}: "
            "set one of its axes to -1, so that it has the devices of all processes"
        )
    if mine != list(range(mine[0], mine[-1] + 1)):
        raise UserError(
            f"process {process_index} would hold rows that do not lie side by side in a mesh of "
            f"{shape}: let data x fsdp be a multiple of the number of processes"
        )
    each = rows // parts
    return slice(mine[0] * each, (mine[-1] + 1) * each)


@contextmanager
def use_mesh(mesh: Mesh) -> Iterator[None]:
    """Context in which models are traced for `mesh`: sets the mesh and the logical axis rules.

    By `jax.set_mesh`: under the legacy `with mesh:`, `nn.with_logical_constraint` has no effect.
    """
    with jax.set_mesh(mesh), nn.logical_axis_rules(RULES):
        yield
