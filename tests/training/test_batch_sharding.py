"""Transfer of batches to the mesh, in one process and in two with half of the rows each."""

import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from stair_jax.data.packing import Example
from stair_jax.parallel.mesh import MeshShape, make_mesh
from stair_jax.parallel.rules import replicated, rows_sharding
from stair_jax.training.batch_sharding import put_batch
from stair_jax.training.batches import Batches, Group

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
from types import SimpleNamespace
import jax
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_cpu_collectives_implementation", "gloo")
address, process = sys.argv[1:]
jax.distributed.initialize(address, num_processes=2, process_id=int(process))
import numpy as np
from stair_jax.data.tokenized import TokenizedRows
from stair_jax.data.packing import Example
from stair_jax.parallel.mesh import MeshShape, local_rows, make_mesh
from stair_jax.training.batches import Batches, Group
from stair_jax.training.batch_sharding import put_batch

seen = []
def encode(row):
    seen.append(row.id)
    return [Example([7] * (row.id % 9 + 1), [0] + [1] * (row.id % 9), row.id)]

mesh = make_mesh(MeshShape(fsdp=4))
rows = [SimpleNamespace(id=number) for number in range(13)]
encoded = TokenizedRows(rows, encode, 1)
assert seen == list(range(int(process), 13, 2)), seen
groups = [Group(str(i), examples, {"value": float(i)}) for i, examples in enumerate(encoded)]
batches = Batches(groups, 13, 9, 4, local_rows(mesh, 4))
(batch,) = batches
assert batch.arrays["micro"]["tokens"].shape[1] == 2
arrays = put_batch(batch.arrays, mesh, batch.num_rows)
whole = put_batch(Batches(groups, 13, 9, 4)[0].arrays, mesh)  # all rows may be given as well
for name, array in arrays["micro"].items():
    same = whole["micro"][name]
    assert array.shape == same.shape and array.sharding == same.sharding
    for shard, other in zip(array.addressable_shards, same.addressable_shards):
        np.testing.assert_array_equal(shard.data, other.data)
total = jax.jit(lambda micro: (micro["tokens"].sum(), micro["weights"].sum()))(arrays["micro"])
print(*(float(value) for value in total))
"""


def test_rows_are_split_and_all_else_is_whole_on_each_device():
    mesh = make_mesh(MeshShape(data=2, fsdp=2))
    groups = [Group(str(i), (Example([i + 1] * 5, [1] * 5),)) for i in range(6)]
    batch = Batches(groups, 6, 8, 4)[0]
    arrays = put_batch(batch.arrays, mesh, batch.num_rows)
    for name, array in arrays["micro"].items():
        np.testing.assert_array_equal(array, batch.arrays["micro"][name])
        expected = rows_sharding(mesh, axis=1) if array.ndim == 3 else replicated(mesh)
        assert array.sharding.is_equivalent_to(expected, array.ndim), name
    assert arrays["count"].sharding.is_fully_replicated
    shards = arrays["micro"]["tokens"].addressable_shards
    assert sorted(shard.index[1].start for shard in shards) == [0, 1, 2, 3]


@pytest.mark.distributed
@pytest.mark.slow
def test_two_processes_put_their_rows_into_one_array():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, address, str(index)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    results = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], results
    lengths = [number % 9 + 1 for number in range(13)]
    expected = f"{7.0 * sum(lengths)} {float(sum(lengths) - len(lengths))}"
    assert [stdout.splitlines()[-1] for stdout, _ in results] == [expected] * 2
