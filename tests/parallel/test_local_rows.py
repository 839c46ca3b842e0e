"""Which rows of a batch a process holds, by the position of its devices in the mesh."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stair_jax.errors import UserError
from stair_jax.parallel.mesh import MeshShape, local_rows, make_mesh


def fake_mesh(data, fsdp, tensor, processes):
    """A fake mesh whose devices, in order, belong to the given processes."""
    devices = np.empty(data * fsdp * tensor, object)
    devices[:] = [SimpleNamespace(process_index=process) for process in processes]
    shape = {"data": data, "fsdp": fsdp, "tensor": tensor}
    return SimpleNamespace(shape=shape, devices=devices.reshape(data, fsdp, tensor))


@given(st.sampled_from([1, 2, 4]), st.sampled_from([1, 2, 4]), st.sampled_from([1, 2, 4]))
def test_the_rows_of_all_processes_are_all_rows_once(data, fsdp, count):
    parts = data * fsdp
    if parts % count:
        return
    mesh = fake_mesh(data, fsdp, 2, np.repeat(np.arange(count), parts * 2 // count))
    rows = [
        row
        for process in range(count)
        for row in range(3 * parts)[local_rows(mesh, 3 * parts, process)]
    ]
    assert rows == list(range(3 * parts))


def test_processes_that_share_a_row_have_the_same_ones():
    mesh = fake_mesh(1, 2, 4, [0, 0, 1, 1, 2, 2, 3, 3])
    parts = [local_rows(mesh, 6, process) for process in range(4)]
    assert parts == [slice(0, 3), slice(0, 3), slice(3, 6), slice(3, 6)]


def test_one_process_has_all_rows():
    assert local_rows(make_mesh(MeshShape(data=2, fsdp=2, tensor=2)), 8) == slice(0, 8)


@pytest.mark.parametrize(
    ("processes", "rows", "message"),
    [
        ([0, 1, 0, 1], 4, "do not lie side by side in a mesh of data 2 x fsdp 2 x tensor 1"),
        ([1, 1, 2, 2], 4, "no device of process 0 is in the mesh"),
        ([0, 0, 1, 1], 6, "6 rows cannot be split .* a multiple of 4, data x fsdp"),
    ],
)
def test_rows_that_a_process_cannot_hold_are_an_error(processes, rows, message):
    with pytest.raises(UserError, match=message):
        local_rows(fake_mesh(2, 2, 1, processes), rows, 0)
