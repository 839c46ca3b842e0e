"""The training step on meshes of eight devices: same results as on one, sharded as intended."""

import collections
import dataclasses
import functools
import re
from typing import NamedTuple
from unittest import mock

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from stair_jax.data.packing import Example
from stair_jax.models.config import ModelConfig
from stair_jax.models.heads import init_score_head
from stair_jax.models.layout import fit_to_mesh
from stair_jax.models.transformer import init_params, logical_axes
from stair_jax.parallel.mesh import MeshShape, make_mesh, use_mesh
from stair_jax.parallel.rules import replicated
from stair_jax.stages.prm import prm_axes
from stair_jax.training import objectives
from stair_jax.training.batch_sharding import put_batch
from stair_jax.training.batches import Batches, Group
from stair_jax.training.forward_pass import sequence_logps
from stair_jax.training.optimizer import make_optimizer
from stair_jax.training.settings import TrainingSettings
from stair_jax.training.step import Sums, init_state, make_train_step

EIGHT = [(8, 1, 1), (1, 8, 1), (1, 1, 8), (2, 2, 2)]  # each axis alone, and all of them
OTHERS = [("qwen2", (1, 2, 4)), ("qwen3", (2, 2, 2))]
SETTINGS = TrainingSettings(learning_rate=1e-2, clip_norm=0.0)
ROWS, LENGTH, PAIRS = 16, 20, 30
SPECS = {
    "embedding": P("tensor", "fsdp"),
    "head": P("tensor", "fsdp"),
    "final_norm": P("fsdp"),
    "attention_norm": P(None, "fsdp"),
    "mlp_norm": P(None, "fsdp"),
    "query": P(None, "fsdp", "tensor"),
    "key": P(None, "fsdp", "tensor"),
    "value": P(None, "fsdp", "tensor"),
    "out": P(None, "tensor", None, "fsdp"),
    "gate": P(None, "fsdp", "tensor"),
    "up": P(None, "fsdp", "tensor"),
    "down": P(None, "tensor", "fsdp"),
    "query_bias": P(None, "tensor"),
    "key_bias": P(None, "tensor"),
    "value_bias": P(None, "tensor"),
    "query_norm": P(),
    "key_norm": P(),
    "kernel": P("fsdp"),
}
KV = ("key", "value", "key_bias", "value_bias")
WHOLE_KV = {name: P(None, "fsdp") if name in KV[:2] else P() for name in KV}


@dataclasses.dataclass(frozen=True)
class AllLosses:
    """SFT, DPO and PRM losses from one forward pass, which compiles in a third of the time."""

    config: ModelConfig

    def __call__(self, params, micro):
        """The losses with different weights, so that errors in two of them cannot cancel."""
        hidden = objectives._hidden(self.config, params["model"], micro)
        with mock.patch.object(objectives, "_hidden", lambda *_: hidden):
            logps = objectives.micro_logps(self.config, 1, params["model"], micro)
            prm = objectives.PrmObjective(self.config)(params, micro)
        with mock.patch.object(objectives, "micro_logps", lambda *_: logps):
            sft = objectives.SftObjective(self.config)(params["model"], micro)
            dpo = objectives.DpoObjective(self.config, 0.3, 0.2)(params["model"], micro)
        losses = {"sft": sft.loss, "dpo": dpo.loss, "prm": prm.loss}
        return Sums(sft.loss - 1.3 * dpo.loss + 0.7 * prm.loss, dpo.weight, losses)


class Step(NamedTuple):
    """The result of one step."""

    config: ModelConfig
    mesh: jax.sharding.Mesh
    state: object
    metrics: dict
    program: str


def batch():
    """A batch of pairs in three or four micro-batches."""
    rng = np.random.default_rng(0)

    def example(name):
        length = int(rng.integers(4, 13))
        return Example(rng.integers(0, 40, length).tolist(), [0, 0] + [1] * (length - 2), name)

    groups = [
        Group(f"g{i}", (example("a"), example("b")), {"ref_chosen": -3.0 - i, "ref_rejected": -4.0})
        for i in range(PAIRS)
    ]
    return Batches(groups, PAIRS, LENGTH, ROWS)[0].arrays


def run_step(config, shape):
    """One step of all three losses on a mesh of data x fsdp x tensor."""
    mesh = make_mesh(MeshShape(*shape))
    config = fit_to_mesh(config, mesh, vocab_multiple=16)
    params = {
        "model": init_params(config, jax.random.key(0)),
        "score": init_score_head(config, jax.random.key(1)),
    }
    axes = {"model": logical_axes(config), "score": prm_axes(config)["score"]}
    tx = make_optimizer(SETTINGS, 10).tx
    state = init_state(params, axes, tx, mesh)
    rate = jax.device_put(np.float32(1e-2), replicated(mesh))
    with use_mesh(mesh):
        step = make_train_step(AllLosses(config), tx, state)
        arguments = (state, put_batch(batch(), mesh), rate)
        program = step.lower(*arguments).compile()
        state, metrics = program(*arguments)
    return Step(config, mesh, state, jax.device_get(metrics), program.as_text())


@pytest.fixture(scope="module")
def alone(families):
    """The result of the step of each model family on one device."""
    return functools.cache(lambda family: run_step(families[family], (1, 1, 1)))


def moments(state):
    return next(part for part in state.opt_state if hasattr(part, "mu"))


def assert_equal_steps(step, reference):
    """Losses, gradients and new parameters; after one step, `mu` is a tenth of the gradient."""
    for name, value in reference.metrics.items():
        np.testing.assert_allclose(step.metrics[name], value, rtol=2e-5, err_msg=name)
    pairs = (
        (moments(step.state).mu, moments(reference.state).mu),
        (moments(step.state).nu, moments(reference.state).nu),
    )
    for ours, theirs in pairs:
        largest = max(float(abs(leaf).max()) for leaf in jax.tree.leaves(theirs))
        jax.tree.map(
            lambda a, b, atol=1e-5 * largest: np.testing.assert_allclose(
                a, b, rtol=1e-4, atol=atol
            ),
            jax.device_get(ours),
            jax.device_get(theirs),
        )


def assert_split_as_intended(step):
    """Each parameter and its moments are sharded alike, and all donated memory is reused."""
    specs = SPECS if step.config.shard_kv_heads else SPECS | WHOLE_KV
    adam = moments(step.state)
    for tree in (step.state.params, adam.mu, adam.nu):
        for path, leaf in jax.tree.leaves_with_path(tree):
            spec = specs[path[-1].key]
            assert leaf.sharding.is_equivalent_to(NamedSharding(step.mesh, spec), leaf.ndim), path
            parts = [step.mesh.shape[axis] for axis in spec if axis]
            assert leaf.addressable_shards[0].data.size == leaf.size // np.prod(parts or [1]), path


def assert_activations_stay_split(step):
    """No array of the compiled step has the rows, heads, MLP or vocabulary of several devices."""
    config, tensor = step.config, step.mesh.shape["tensor"]
    rows = ROWS // (step.mesh.shape["data"] * step.mesh.shape["fsdp"])
    heads, mlp = config.num_attention_heads // tensor, config.intermediate_size // tensor
    vocab = config.padded_vocab_size // tensor
    found = re.findall(r"f32\[([\d,]+)\]", step.program)
    shapes = {tuple(map(int, sizes.split(","))) for sizes in found}
    assert {(rows, LENGTH, config.hidden_size), (rows, LENGTH, vocab)} <= shapes
    assert {(rows, LENGTH, heads, config.head_dim), (rows * LENGTH, mlp)} <= shapes
    fsdp = step.mesh.shape["fsdp"]
    # Partial rows of the embedding, which are exchanged for whole ones.
    parts = (rows * fsdp, LENGTH, config.hidden_size // fsdp)
    batches = {shape[0] for shape in shapes if shape[1:2] == (LENGTH,) and shape != parts}
    assert parts in shapes and max(batches) == rows, shapes
    widest = {config.intermediate_size: mlp, config.padded_vocab_size: vocab}
    for shape in shapes:
        for whole, part in widest.items():
            assert whole not in shape or part == whole, shape


@pytest.mark.parametrize("shape", EIGHT, ids=lambda shape: "x".join(map(str, shape)))
def test_meshes_of_eight(shape, families, alone):
    step = run_step(families["llama"], shape)
    assert_equal_steps(step, alone("llama"))
    assert_split_as_intended(step)
    assert_activations_stay_split(step)


@pytest.mark.parametrize(("family", "shape"), OTHERS, ids=[family for family, _ in OTHERS])
def test_other_families(family, shape, families, alone):
    step = run_step(families[family], shape)
    assert step.config.shard_kv_heads == (family == "qwen3")
    assert_equal_steps(step, alone(family))
    assert_split_as_intended(step)


def test_constraints_of_a_forward_pass(families):
    """All are in the lowered program, with the axes of the rules; without a mesh there is none."""
    mesh = make_mesh(MeshShape(2, 2, 2))
    config = fit_to_mesh(families["llama"], mesh, vocab_multiple=16)
    params = jax.eval_shape(lambda: init_params(config, jax.random.key(0)))
    arguments = (config, 1, params, batch()["micro"], 0)
    with use_mesh(mesh):
        program = sequence_logps.lower(*arguments).as_text()
    rows = '{"data", "fsdp"}'
    assert collections.Counter(
        re.findall(r"sharding_constraint .* <@mesh, (\[.*\])>", program)
    ) == {
        f"[{rows}, {{}}, {{}}]": 3,  # hidden states: after the embedding, attention and MLP
        f'[{rows}, {{}}, {{"tensor"}}, {{}}]': 4,  # queries, keys, values and the attention output
        f'[{rows}, {{"tensor"}}]': 1,  # MLP
        f'[{rows}, {{}}, {{"tensor"}}]': 1,  # logits
        "[{}, {}]": 1,  # results that the host reads
    }
    assert "sharding_constraint" not in sequence_logps.lower(*arguments).as_text()
