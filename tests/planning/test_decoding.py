"""Planned memory of an engine."""

import dataclasses

import jax
import pytest

from stair_jax.decoding.engine_config import EngineConfig
from stair_jax.models.layout import fit_to_mesh
from stair_jax.parallel.chips import Chip
from stair_jax.parallel.mesh import MeshShape, make_mesh
from stair_jax.planning import decoding
from stair_jax.planning.cost import local_bytes
from stair_jax.planning.decoding import EnginePlan, plan_engine_config

SHAPES = EngineConfig(num_slots=8, max_length=64, prefill_rows=4)


@pytest.mark.parametrize("shape", [None, MeshShape(data=2, tensor=2), MeshShape(tensor=4)], ids=str)
@pytest.mark.parametrize(
    ("attention", "kv_dtype", "each"),  # bytes per head of 8 numbers, with scales and padding
    [
        ("gather", "bfloat16", 16),
        ("gather", "int8", 8 + 4),  # a float32 scale
        ("ragged", "bfloat16", 256),  # the TPU kernel pads the head to 128
        ("ragged", "float8_e4m3fn", 128),
    ],
)
def test_a_cache_takes_the_bytes_that_it_is_planned_with(config, shape, attention, kv_dtype, each):
    place = make_mesh(shape) if shape else jax.devices()[0]
    config = dataclasses.replace(config, dtype="bfloat16")
    config = fit_to_mesh(config, place, vocab_multiple=8) if shape else config
    engine_config = dataclasses.replace(
        SHAPES, attention=attention, kv_dtype=kv_dtype, cache_tokens=1024
    )
    plan = EnginePlan(config, place, plan_engine_config(config, engine_config, place))
    heads = 1 if shape and shape.tensor == 2 else 2  # four devices cannot split two KV heads
    token = 3 * 2 * heads * each  # layers, keys and values
    shards = shape.data if shape else 1
    tokens = 1024 // shards + 16  # one page of each shard is never handed out
    assert plan.engine_config.token_bytes(config, place) == token
    assert local_bytes(plan.state.pages) == tokens * token


def test_the_cache_fills_the_chip(config, monkeypatch):
    """Except for a reserve for logits and activations, and what is already on the device."""
    memory = 8 * 2**30
    chip = Chip("x", memory)
    monkeypatch.setattr(decoding, "device_chip", lambda device: chip)
    monkeypatch.setattr(EngineConfig, "on_cpu", False)
    config = dataclasses.replace(config, num_hidden_layers=100)
    device = jax.devices()[0]
    engine_config = EngineConfig(num_slots=2048, max_length=4096)
    alone = EnginePlan(config, device, plan_engine_config(config, engine_config, device))
    assert 0.8 * memory < local_bytes(alone.resident) < 0.9 * memory
    beside = jax.ShapeDtypeStruct((2**28,), "float32")
    shared = EnginePlan(config, device, plan_engine_config(config, engine_config, device, beside))
    page = 16 * engine_config.resolve(config, device).token_bytes(config, device)
    difference = local_bytes(alone.resident) - local_bytes(shared.resident)
    assert abs(difference - 2**30) < page
