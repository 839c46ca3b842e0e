"""The loss of held-out rows is that of a training step that never updates; it disturbs nothing."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from stair_jax.models.transformer import init_params, logical_axes
from stair_jax.parallel.mesh import MeshShape, make_mesh
from stair_jax.samples import Sample
from stair_jax.training.batch_sharding import put_batch
from stair_jax.training.batches import Batches, Group
from stair_jax.training.checks import Check, Seen
from stair_jax.training.evaluation import evaluate
from stair_jax.training.loop import TrainingRun, train
from stair_jax.training.objectives import DpoObjective, SftObjective
from stair_jax.training.optimizer import make_optimizer
from stair_jax.training.step import init_state, make_train_step
from stair_jax.training.trie_batches import TrieBatches


def pairs_with_reference(groups):
    values = {"ref_chosen": -20.0, "ref_rejected": -22.0}
    return [Group(group.id, group.examples, values) for group in groups]


def layouts(groups):
    yield Batches(groups, batch_size=10, length=16, rows=2)
    yield TrieBatches(groups, [group.id for group in groups], 10, 16, 2)


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_the_evaluation_of_a_batch_has_the_loss_and_metrics_of_its_step(
    config, params, settings, make_groups, kind
):
    """Of one batch of ten groups, and of the same rows in batches of three."""
    if kind == "sft":
        groups, objective = make_groups(10), SftObjective(config, num_chunks=2)
        batches = [Batches(groups, 10, 16, 2)]
    else:
        groups = pairs_with_reference(make_groups(10, width=2))
        objective, batches = DpoObjective(config, 0.5, 0.2), list(layouts(groups))
    mesh = make_mesh()
    tx = make_optimizer(settings, 1).tx
    for whole in batches:
        state = init_state(jax.tree.map(np.asarray, params), logical_axes(config), tx, mesh)
        found = evaluate(objective, state.params, whole, mesh)
        step = make_train_step(objective, tx, state)
        rate = put_batch({"rate": np.float32(0.1)}, mesh)["rate"]
        _, expected = step(state, put_batch(whole[0].arrays, mesh, whole[0].num_rows), rate)
        names = set(expected) - {"grad_norm", "weight"}
        assert set(found) == {f"eval/{name}" for name in names} >= {"eval/loss"}
        for name in names:
            assert found[f"eval/{name}"] == pytest.approx(float(expected[name]), rel=1e-5), name
    smaller = Batches(groups, 3, 16, 2)
    few = evaluate(objective, init_params(config, jax.random.key(0)), smaller, mesh)
    assert few == pytest.approx(found, rel=1e-5)


def test_the_evaluation_is_the_same_on_several_devices(config, params, make_groups):
    objective, groups = SftObjective(config), make_groups(10)
    found = [
        evaluate(objective, jax.device_put(params), Batches(groups, 4, 16, 4), mesh)
        for mesh in (make_mesh(), make_mesh(MeshShape(data=2, fsdp=2), jax.devices()[:4]))
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_rows_of_one_sequence_have_the_loss_of_packed_ones(config, params, make_groups):
    groups, mesh = make_groups(10), make_mesh()
    packed, alone = (Batches(groups, 10, 16, 2, row_sequences=most) for most in (0, 1))
    most = [rows[0].arrays["micro"]["segment_ids"].max() for rows in (packed, alone)]
    assert most[0] > most[1] == 1
    one = dataclasses.replace(config, row_sequences=1)
    expected = evaluate(SftObjective(config), params, packed, mesh)
    assert evaluate(SftObjective(one), params, alone, mesh) == pytest.approx(expected, rel=1e-5)


class Stopped(Exception):
    pass


def make_run(folder, config, settings, groups, checks=(), num_groups=None):
    batches = Batches(groups[:num_groups], 4, 16, 2)
    return TrainingRun(
        name="test",
        folder=folder,
        objective=SftObjective(config),
        optimizer=make_optimizer(settings, len(batches)),
        batches=batches,
        mesh=make_mesh(),
        checkpoint_every=2,
        checks=checks,
    )


def test_checks_come_when_they_are_due_and_leave_the_training_as_it_is(
    tmp_path, config, settings, make_groups
):
    """Six steps: one check every two, one every four and at the end; also of a resumed run."""
    groups, held_out = make_groups(24), Batches(make_groups(5, seed=1), 4, 16, 2)
    mesh = make_mesh()

    def look(step, params):
        return Seen(values=evaluate(SftObjective(config), params, held_out, mesh))

    def show(step, params):
        return Seen(samples=[Sample("answer", {"text": f"after {step}"})])

    checks = [Check("eval", 4, True, look), Check("sample", 2, False, show)]

    def run(name, checks, inspect=None):
        this = make_run(tmp_path / name, config, settings, groups, checks)
        made = train(this, init_params(config, jax.random.key(0)), logical_axes(config), inspect)
        return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(made)]

    def stop_at_4(step, values):
        if step == 4:
            raise Stopped

    plain, checked = run("plain", ()), run("checked", checks)
    with pytest.raises(Stopped):
        run("stopped", checks, stop_at_4)
    resumed = run("stopped", checks)
    assert plain == checked == resumed

    def read(name, file):
        return [json.loads(line) for line in (tmp_path / name / file).read_text().splitlines()]

    lines = read("checked", "metrics.jsonl")
    assert [line["step"] for line in lines] == [0, 1, 2, 3, 3, 4, 5, 5]
    evaluated = [line for line in lines if "eval/loss" in line]
    assert [line["step"] for line in evaluated] == [3, 5]
    assert evaluated[1]["eval/loss"] < evaluated[0]["eval/loss"]
    assert [line for line in lines if line not in evaluated] == read("plain", "metrics.jsonl")
    samples = [(line["step"], line["text"]) for line in read("checked", "samples.jsonl")]
    assert samples == [(1, "after 2"), (3, "after 4"), (5, "after 6")]
    for file in ("metrics.jsonl", "samples.jsonl"):
        assert read("stopped", file) == read("checked", file)
    seconds = [line for line in read("checked", "speed.jsonl") if "eval_seconds" in line]
    assert [line["step"] for line in seconds] == [3, 5]


def test_a_check_is_due_by_steps_and_at_the_end():
    def due(**when):
        check = Check("eval", look=lambda step, params: Seen(), **when)
        return [step for step in range(1, 11) if check.is_due(step, 10)]

    assert due(every=4, at_end=True) == [4, 8, 10]
    assert due(every=5, at_end=True) == [5, 10]
    assert due(every=4, at_end=False) == [4, 8]
    assert due(every=0, at_end=True) == [10]
    assert due(every=0, at_end=False) == []
