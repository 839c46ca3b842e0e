"""What all stages that train have in common: going on to more epochs, and what devices hold."""

import dataclasses
import re

import jax
import pytest

from stair_jax.errors import UserError
from stair_jax.models.config import ModelConfig
from stair_jax.run.context import PlanContext
from stair_jax.run.runtime import Runtime
from stair_jax.stages import Pretrain, Sft, training_stage
from stair_jax.storage import read_json, read_jsonl, write_json
from stair_jax.training.metrics import StepMetrics

STAGE = Sft(
    epochs=1.0,
    batch_size=4,
    max_length=160,
    microbatch_rows=2,
    learning_rate=2e-3,
    reader="datasets",
    keep_state=True,
)
# Embedding and head, the last norm; of a layer: two norms, attention, MLP.
MODEL = ModelConfig(4096, 32, 56, 1, 4, 4, 8)
PARAMETERS = 2 * 4096 * 32 + 32 + 2 * 32 + 4 * 32 * 32 + 3 * 32 * 56


@pytest.fixture
def context(make_stage_inputs, make_context, tmp_path):
    """Of a stage with two steps an epoch."""
    inputs = make_stage_inputs(tmp_path, rows=8)
    return make_context(tmp_path / "sft", {"model": inputs / "model", "data": inputs / "data"})


def test_a_finished_stage_goes_on_where_it_stopped(context):
    def lengthen(epochs):
        stage = dataclasses.replace(STAGE, epochs=epochs)
        stage.check_lengthening(folder)
        stage.reopen(folder)
        stage.reopen(folder)  # as after a kill in the middle of it
        assert not (folder / "hf").exists()
        stage.run(dataclasses.replace(context, is_lengthened=True))
        return read_jsonl(folder / "metrics.jsonl"), weights.read_bytes()

    folder = context.folder
    weights = folder / "hf" / "model.safetensors"
    STAGE.run(context)
    first, before = read_jsonl(folder / "metrics.jsonl"), weights.read_bytes()
    assert [row["step"] for row in first] == [0, 1]
    second, longer = lengthen(2.0)
    assert [row["step"] for row in second] == [0, 1, 2, 3]
    assert second[:2] == first  # no step is done again
    assert second[2]["loss"] < first[0]["loss"]  # from the state, not from the model before
    assert longer != before
    third, _ = lengthen(3.0)
    assert [row["step"] for row in third] == [0, 1, 2, 3, 4, 5]
    assert third[:4] == second


def test_a_stage_that_stopped_on_one_device_goes_on_on_eight(
    make_stage_inputs, make_context, tmp_path, monkeypatch, capsys
):
    inputs = make_stage_inputs(tmp_path, rows=16)
    sources = {"model": inputs / "model", "data": inputs / "data"}
    stage = dataclasses.replace(
        STAGE, epochs=2.0, batch_size=8, microbatch_rows=8, checkpoint_every=1
    )
    stage.run(make_context(tmp_path / "whole", sources))
    add = StepMetrics.add

    def stop_at_step_2(self, step, *values):
        if step == 2:
            raise InterruptedError
        add(self, step, *values)

    monkeypatch.setattr(StepMetrics, "add", stop_at_step_2)
    with pytest.raises(InterruptedError):
        stage.run(make_context(tmp_path / "moved", sources))
    monkeypatch.setattr(StepMetrics, "add", add)
    capsys.readouterr()
    stage.run(make_context(tmp_path / "moved", sources, training_mesh={"fsdp": 8}))
    assert "resuming at 2 of 4" in capsys.readouterr().err
    whole, moved = (read_jsonl(tmp_path / name / "metrics.jsonl") for name in ("whole", "moved"))
    assert [row["step"] for row in moved] == [row["step"] for row in whole] == [0, 1, 2, 3]
    for one, eight in zip(whole, moved, strict=True):
        assert eight == pytest.approx(one, rel=1e-4, abs=1e-6)


def test_another_length_is_refused_unless_it_is_asked_for(context):
    STAGE.run(context)
    longer = dataclasses.replace(STAGE, epochs=2.0)
    longer.reopen(context.folder)
    with pytest.raises(UserError, match=r"the checkpoint of step 2 .* was made with another"):
        longer.run(context)


def test_a_stage_that_kept_no_state_cannot_be_lengthened(context):
    dataclasses.replace(STAGE, keep_state=False).run(context)
    with pytest.raises(UserError, match=r"^the stage sft .*\(keep_state\): --redo=sft") as refusal:
        STAGE.check_lengthening(context.folder)
    assert "\n" not in str(refusal.value)


def check_devices(stage, devices):
    stage.check_devices(PlanContext("sft", Runtime(), devices, devices, {"model": [MODEL]}))


def test_a_model_that_the_devices_cannot_hold_is_refused(tpu, monkeypatch):
    """In float32 a parameter and its two moments are 12 bytes, over four devices."""
    devices = tpu("v5e:2x2").devices
    stage = dataclasses.replace(STAGE, microbatch_rows=0)
    memory = {}
    monkeypatch.setattr(training_stage, "memory_bytes", lambda device: memory["device"])
    memory["device"] = 3.1 * PARAMETERS
    check_devices(stage, devices)
    memory["device"] = 2.9 * PARAMETERS
    with pytest.raises(UserError, match=r"parameters and moments take .* use more devices"):
        check_devices(stage, devices)
    check_devices(dataclasses.replace(stage, param_dtype="bfloat16", mu_dtype="bfloat16"), devices)
    memory["device"] = 2**16  # for the activations alone
    check_devices(stage, jax.devices())  # the devices of a CPU share its memory


def test_a_micro_batch_whose_activations_fit_no_device_is_refused(monkeypatch):
    """On a CPU too: nothing that large would ever be compiled."""
    rows, length = 1024, STAGE.max_length
    needed = rows // 8 * length * MODEL.num_hidden_layers * MODEL.hidden_size * 4
    stage = dataclasses.replace(STAGE, microbatch_rows=rows)
    monkeypatch.setattr(training_stage, "memory_bytes", lambda device: needed)
    check_devices(stage, jax.devices())
    monkeypatch.setattr(training_stage, "memory_bytes", lambda device: needed - 1)
    said = rf"128 rows of {length} tokens .*: lower microbatch_rows \(1024\) or max_length"
    with pytest.raises(UserError, match=said):
        check_devices(stage, jax.devices())


def test_a_mesh_that_does_not_split_a_micro_batch_is_refused():
    runtime = Runtime(training_mesh={"fsdp": 4})
    devices = jax.devices()
    context = PlanContext("sft", runtime, devices, devices, {"model": [MODEL]})
    with pytest.raises(UserError, match="microbatch_rows is 6: it must be a multiple of 4"):
        dataclasses.replace(STAGE, microbatch_rows=6).check_devices(context)


def test_rows_beyond_the_sliding_window_of_the_model_are_refused_before_the_run():
    windowed = dataclasses.replace(MODEL, model_type="mistral", sliding_window=160)
    context = PlanContext("sft", Runtime(), jax.devices(), jax.devices(), {"model": (windowed,)})
    STAGE.check_devices(context)
    with pytest.raises(UserError, match=r"161 tokens, more than the sliding_window 160 .* max_len"):
        dataclasses.replace(STAGE, max_length=161).check_devices(context)


def test_pretraining_splits_its_batch_and_no_micro_batch():
    """Four rows of a micro-batch, which pretraining does not have, would use four devices."""
    setup = Pretrain(batch_size=16).lay_out(MODEL, Runtime())
    assert setup.mesh.shape["fsdp"] == 8 and setup.rows == 16
    assert Pretrain(batch_size=6).lay_out(MODEL, Runtime()).mesh.shape["fsdp"] == 2


def test_sequences_beyond_the_positions_of_the_model_are_told_once(context, capsys):
    config = context.input("model") / "hf" / "config.json"
    stage = dataclasses.replace(STAGE, keep_state=False)
    stage.run(context)
    assert "max_position_embeddings" not in capsys.readouterr().err
    write_json(config, read_json(config) | {"max_position_embeddings": 16})
    again = dataclasses.replace(context, folder=context.folder.with_name("again"))
    stage.run(again)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "max_position" in line]
    assert re.search(
        r"warning: 8 sequences .* max_position_embeddings 16 .* up to \d+ tokens", line
    )
