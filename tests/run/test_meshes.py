"""The meshes that are chosen where the config names none."""

import dataclasses
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from stair_jax.errors import UserError
from stair_jax.models.config import ModelConfig
from stair_jax.parallel.mesh import MeshShape
from stair_jax.run import meshes
from stair_jax.run.meshes import decoding_mesh, itemsize_of, num_parameters, training_mesh
from stair_jax.run.runtime import Runtime

MODEL = ModelConfig(
    vocab_size=40,
    hidden_size=32,
    intermediate_size=56,
    num_hidden_layers=2,
    num_attention_heads=8,
    num_key_value_heads=8,
    head_dim=4,
)
# Embedding and head, the last norm; of a layer: two norms, attention, MLP.
PARAMETERS = 2 * 40 * 32 + 32 + 2 * (2 * 32 + 4 * 32 * 32 + 3 * 32 * 56)


def shape(mesh):
    return tuple(mesh.shape.values())  # data, fsdp, tensor


def test_parameters_and_their_bytes():
    assert num_parameters(MODEL) == PARAMETERS
    assert [itemsize_of("float32"), itemsize_of("bfloat16")] == [4, 2]
    assert itemsize_of("bfloat16", "int8") == 1


@pytest.mark.parametrize("count", [1, 4, 8])
@pytest.mark.parametrize("rows", [0, 8])
def test_training_shards_over_all_devices(count, rows, capsys):
    assert shape(training_mesh(Runtime(), MODEL, rows, jax.devices()[:count])) == (1, count, 1)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("rows", "hidden_size", "count", "used"),
    [(4, 32, 8, 4), (6, 32, 8, 2), (6, 32, 6, 2), (5, 32, 8, 1), (0, 36, 8, 4), (4, 34, 8, 2)],
)
def test_training_leaves_devices_out_that_rows_or_model_do_not_need(
    rows, hidden_size, count, used, capsys
):
    model = dataclasses.replace(MODEL, hidden_size=hidden_size)
    mesh = training_mesh(Runtime(), model, rows, jax.devices()[:count])
    assert shape(mesh) == (1, used, 1)
    shown = capsys.readouterr().err
    both = f"both the {rows} rows of a micro-batch and " if rows else ""
    said = f"{count} devices do not divide {both}hidden_size {hidden_size} of the model"
    assert shown == f"{said}: training uses {used} of them\n"


@pytest.mark.parametrize(
    ("rows", "hidden_size", "advice"),
    [
        (4, 32, r"set microbatch_rows to 0, or runtime\.training_mesh"),
        (0, 36, r": set runtime\.training_mesh"),
    ],
)
def test_training_in_several_processes_leaves_no_device_out(rows, hidden_size, advice):
    devices = [SimpleNamespace(process_index=number // 4) for number in range(8)]
    model = dataclasses.replace(MODEL, hidden_size=hidden_size)
    with pytest.raises(UserError, match=advice):
        training_mesh(Runtime(), model, rows, devices)


def test_a_mesh_that_leaves_a_process_out_is_refused(monkeypatch):
    devices = [SimpleNamespace(process_index=number // 2) for number in range(4)]

    def make(shape, devices):
        used = np.array(devices[: shape.data])
        return SimpleNamespace(devices=used, size=used.size)

    monkeypatch.setattr(meshes, "make_mesh", make)
    with pytest.raises(UserError, match="has 2 of 4 devices, and none of process 1: set one of"):
        training_mesh(Runtime(training_mesh=MeshShape(2)), MODEL, devices=devices)
    used = training_mesh(Runtime(training_mesh=MeshShape(3)), MODEL, devices=devices)
    assert used.size == 3


def test_meshes_of_the_config_are_taken():
    runtime = Runtime(training_mesh=MeshShape(2, 2, -1), decoding_mesh=MeshShape(data=3))
    assert shape(training_mesh(runtime, MODEL, 5)) == (2, 2, 2)
    assert shape(decoding_mesh(runtime, MODEL, 4)) == (3, 1, 1)
    too_large = Runtime(training_mesh=MeshShape(64), decoding_mesh=MeshShape(tensor=64))
    with pytest.raises(UserError, match=r"runtime\.training_mesh: .* needs 64 devices, there are"):
        training_mesh(too_large, MODEL)
    with pytest.raises(UserError, match=r"runtime\.decoding_mesh: .* needs 64 devices, there are"):
        decoding_mesh(too_large, MODEL, 4)


@pytest.mark.parametrize("itemsize", [1, 2, 4])
@pytest.mark.parametrize(
    ("memory", "count", "expected"),  # memory of a device in bytes per byte of the weights
    [
        (2.0, 1, (1, 1, 1)),
        (2.0, 4, (4, 1, 1)),
        (2.0, 8, (8, 1, 1)),
        (1.999, 8, (4, 1, 2)),
        (1.0, 8, (4, 1, 2)),
        (0.999, 8, (2, 1, 4)),
        (0.5, 4, (1, 1, 4)),
        (0.499, 4, (1, 1, 4)),  # more than half; the engine says what does not fit
        (0.499, 8, (1, 1, 8)),
        (0.01, 1, (1, 1, 1)),
    ],
)
def test_decoding_splits_heads_just_as_far_as_memory_asks_for_it(
    monkeypatch, itemsize, memory, count, expected
):
    monkeypatch.setattr(meshes, "memory_bytes", lambda device: memory * itemsize * PARAMETERS)
    mesh = decoding_mesh(Runtime(), MODEL, itemsize, jax.devices()[:count])
    assert shape(mesh) == expected


@pytest.mark.parametrize(
    ("model", "vocab_multiple", "expected"),
    [
        ({"num_key_value_heads": 2}, 1, (4, 1, 2)),
        ({"intermediate_size": 52}, 1, (2, 1, 4)),
        ({"vocab_size": 41}, 1, (8, 1, 1)),
        ({"vocab_size": 41}, 8, (1, 1, 8)),  # padded to 48 rows
    ],
)
def test_decoding_splits_no_further_than_the_model_divides(
    monkeypatch, model, vocab_multiple, expected
):
    monkeypatch.setattr(meshes, "memory_bytes", lambda device: 1.0)
    runtime = Runtime(vocab_multiple=vocab_multiple)
    mesh = decoding_mesh(runtime, dataclasses.replace(MODEL, **model), 4)
    assert shape(mesh) == expected
