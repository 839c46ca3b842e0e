"""Whole stages on meshes, and runs that change the mesh on resuming, against one device."""

import json

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from stair_jax.data.packing import Example
from stair_jax.errors import UserError
from stair_jax.inference.scorers import PrmScorer
from stair_jax.models import huggingface
from stair_jax.models.layout import fit_to_mesh
from stair_jax.parallel.mesh import MeshShape, make_mesh
from stair_jax.stages import Dpo, Prm, Sft
from stair_jax.training.batches import Batches, Group
from stair_jax.training.loop import TrainingRun, train
from stair_jax.training.losses import sft_loss
from stair_jax.training.optimizer import make_optimizer
from stair_jax.training.settings import TrainingSettings
from stair_jax.training.step import Sums

SHARDED = {"training_mesh": {"fsdp": 4, "tensor": -1}, "vocab_multiple": 16}
COMMON = {
    "max_length": 128,
    "microbatch_rows": 4,
    "batch_size": 4,
    "learning_rate": 2e-3,
    "eps": 1e-3,  # a small eps would amplify the rounding of gradients near 0
    "epochs": 1.0,
    "reader": "datasets",
}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, make_stage_inputs):
    """Folders of a model stage and a data stage."""
    return make_stage_inputs(tmp_path_factory.mktemp("run"), rows=9, initializer_range=0.1)


@pytest.fixture
def finish(workdir, run_stage):
    """`finish(kind, name, runtime, **settings)`: the folder of a finished stage."""

    def finish(kind, name, runtime, **settings):
        inputs = {
            "model": workdir / "model",
            "data" if kind is Sft else "preferences": workdir / "data",
        }
        return run_stage(kind, COMMON | settings, workdir / name, inputs, seed=3, **runtime)

    return finish


@pytest.mark.parametrize(
    ("kind", "settings"),
    [(Sft, {"held_out": 2}), (Dpo, {"held_out": 2}), (Prm, {"held_out": 0.3})],
    ids=["sft", "dpo", "prm"],
)
def test_a_stage_on_a_mesh_gives_the_model_of_one_device(workdir, finish, kind, settings):
    folders = [
        finish(kind, f"{kind.__name__} {part}", runtime, **settings, eval_every=1, samples_every=1)
        for part, runtime in (("whole", {}), ("sharded", SHARDED))
    ]
    config = huggingface.load_config(folders[0] / "hf")
    assert config == huggingface.load_config(folders[1] / "hf")
    whole, sharded = (huggingface.load_params(folder / "hf", config) for folder in folders)
    before = huggingface.load_params(workdir / "model" / "hf", config)
    moved = jax.tree.map(lambda a, b: float(abs(a - b).max()), whole, {k: before[k] for k in whole})
    assert max(jax.tree.leaves(moved)) > 1e-3
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=3e-5), whole, sharded)
    lines = [(folder / "metrics.jsonl").read_text().splitlines() for folder in folders]
    assert len(lines[0]) == len(lines[1]) > 3
    for pair in zip(*lines, strict=True):
        first, second = map(json.loads, pair)
        assert first == pytest.approx(second, rel=1e-3, abs=1e-4)
    assert "eval/loss" in json.loads(lines[0][-1])
    assert (folders[0] / "samples.jsonl").is_file() and (folders[1] / "samples.jsonl").is_file()
    if kind is Prm:
        assert_scores_agree(folders[1] / "hf", config)


def assert_scores_agree(hf, config):
    """Scores of the exported model by a scorer on one device and by one on a mesh."""
    mesh = make_mesh(MeshShape(data=2, fsdp=2, tensor=2))
    scorers = []
    for place in (None, mesh):
        laid_out = config if place is None else fit_to_mesh(config, place, 16)
        params = {
            "model": huggingface.load_params(hf, laid_out, place),
            "score": huggingface.load_score_head(hf, place),
        }
        scorers.append(PrmScorer(laid_out, params, rows=3, buckets=(16,), mesh=place))
    sequences = [list(range(5, 5 + length)) for length in range(1, 12)]
    first, second = (scorer.score(sequences) for scorer in scorers)
    np.testing.assert_allclose(first, second, atol=1e-5)
    assert len(set(first)) > 5


def test_rows_that_the_mesh_cannot_split_are_named(finish):
    with pytest.raises(UserError, match="microbatch_rows is 6: it must be a multiple of 4"):
        finish(Dpo, "odd rows", SHARDED, microbatch_rows=6)


class Bigram:
    """A model with one parameter that is sharded over two axes: quick to compile."""

    def __call__(self, params, micro):
        """The loss of SFT."""
        rows = params["embedding"]
        logits = rows[micro["tokens"]] @ rows.T
        logps = jax.nn.log_softmax(logits)
        chosen = jax.numpy.take_along_axis(logps, micro["targets"][..., None], axis=-1)[..., 0]
        return Sums(*sft_loss(chosen, micro["weights"]), metrics={})


def test_a_run_goes_on_on_another_mesh(tmp_path):
    """Two steps each on 2 x 2 x 2, 1 x 8 x 1 and 1 x 1 x 8 equal six steps on one device."""
    rng = np.random.default_rng(0)
    groups = [
        Group(f"g{i}", (Example(rng.integers(0, 40, 9).tolist(), [0] + [1] * 8),))
        for i in range(48)
    ]
    batches = Batches(groups, 8, 16, 8)
    objective, optimizer = Bigram(), make_optimizer(TrainingSettings(learning_rate=1e-2), 6)
    start = np.random.default_rng(1).normal(size=(40, 16)).astype(np.float32)

    def train_on(shape, folder, num_steps):
        mesh = make_mesh(MeshShape(*shape))
        run = TrainingRun(
            "run", tmp_path / folder, objective, optimizer, batches[:num_steps], mesh, 2
        )
        params = {"embedding": jax.numpy.array(start)}
        return train(run, params, {"embedding": PartitionSpec("vocab", "embed")})["embedding"]

    whole = train_on((1, 1, 1), "whole", 6)
    for shape, num_steps in (((2, 2, 2), 2), ((1, 8, 1), 4), ((1, 1, 8), 6)):
        trained = train_on(shape, "moved", num_steps)
        assert trained.addressable_shards[0].data.size == 40 * 16 // (shape[1] * shape[2])
    np.testing.assert_allclose(trained, whole, atol=1e-5)
    assert abs(whole - start).max() > 0.02
    names = [(tmp_path / folder / "metrics.jsonl").read_text() for folder in ("whole", "moved")]
    losses = [[json.loads(line)["loss"] for line in text.splitlines()] for text in names]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5) and len(losses[0]) == 6
