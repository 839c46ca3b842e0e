"""Bytes that devices exchange, read off compiled programs."""

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks.collectives import measure_collectives
from stair_jax.parallel.mesh import MeshShape, make_mesh

TEXT = """
HloModule jit_step

%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%a, %b)
}

%body (state: (s32[], bf16[4,8])) -> (s32[], bf16[4,8]) {
  %gathered = bf16[8,8]{1,0} all-gather(%part), dimensions={0}
  %started = (f32[2,3]{1,0}, f32[4,3]{1,0}) all-gather-start(%other), dimensions={0}
  ROOT %next = (s32[], bf16[4,8]) tuple(%i, %x)
}

%condition (state: (s32[], bf16[4,8])) -> pred[] {
  ROOT %less = pred[] compare(%i, %n)
}

ENTRY %main (x: bf16[4,8]) -> f32[] {
  %loop = (s32[], bf16[]) while(%init), body=%body, x={"known_trip_count":{"n":"5"}}
  %both = (f32[10]{0}, f32[6]{0}) all-reduce(%one, %two), to_apply=%add
  ROOT %scattered = f32[5]{0} reduce-scatter(%grad), to_apply=%add
}
"""


def test_collectives_in_a_loop_count_as_often_as_it_runs():
    found = measure_collectives(TEXT)
    assert found["all-gather"] == (5 * 2, 5 * (8 * 8 * 2 + 4 * 3 * 4))
    assert found["all-reduce"] == (1, 64)
    assert found["reduce-scatter"] == (1, 20)
    assert set(found) == {"all-gather", "all-reduce", "reduce-scatter"}


def test_a_sum_over_devices_is_found_in_a_real_program():
    mesh = make_mesh(MeshShape(data=4))
    split = NamedSharding(mesh, PartitionSpec("data"))
    x = jax.device_put(jnp.ones((8, 16)), split)

    @jax.jit
    def summed(x):
        def body(total, _):
            return total + jnp.sum(jnp.sin(x + total), axis=0), None

        return jax.lax.scan(body, jnp.zeros(16), None, length=3)[0]

    found = measure_collectives(summed.lower(x).compile().as_text())
    assert found == {"all-reduce": (3, 3 * 16 * 4)}
