import numpy as np

from stair_jax.parallel.mesh import make_mesh
from stair_jax.training.batches import Batches
from stair_jax.training.forward_pass import cached, for_each_group


def test_values_come_back_in_the_order_of_the_groups(make_groups):
    groups = make_groups(7, 2)

    def lengths(micros, index):
        ids, count = micros["sequence_ids"][index], micros["last"].shape[1]
        return np.array([(ids == i).sum() for i in range(count)]).reshape(-1, 2)

    values = for_each_group(lengths, Batches(groups, 3, 16, 2), make_mesh())
    assert values.tolist() == [[len(example) for example in g.examples] for g in groups]


def test_the_cache_is_used_for_the_same_fingerprint_only(tmp_path):
    path, calls = tmp_path / "reference.npz", []

    def compute():
        calls.append(1)
        return np.full((2, 2), len(calls), np.float32)

    assert cached(path, "a", compute)[0, 0] == 1
    assert cached(path, "a", compute)[0, 0] == 1
    assert cached(path, "b", compute)[0, 0] == 2
    path.write_bytes(path.read_bytes()[:20])
    assert cached(path, "b", compute)[0, 0] == 3
    assert cached(path, "b", compute)[0, 0] == 3
