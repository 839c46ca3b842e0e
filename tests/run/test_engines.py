"""How many slots an engine gets where the config leaves them open."""

import re

import jax
import pytest

from stair_jax.errors import UserError
from stair_jax.models.config import ModelConfig
from stair_jax.parallel.chips import GIB
from stair_jax.parallel.mesh import MeshShape
from stair_jax.run import engines
from stair_jax.run.engines import EngineSettings, plan_engine
from stair_jax.run.runtime import Runtime

# The logits of one slot are as much as 400 tokens of the cache, which counts them six times.
MODEL = ModelConfig(200_000, 32, 48, 2, 4, 2, 8)
SETTINGS = EngineSettings(context_tokens=4096, dtype="float32")
SHARDS = MeshShape(data=4)


def plan(devices, **runtime):
    return plan_engine(MODEL, SETTINGS, Runtime(decoding_mesh=SHARDS, **runtime), devices)


@pytest.fixture
def devices(tpu, monkeypatch):
    """Four devices with room for the logits of about 100 slots each."""
    monkeypatch.setattr(engines, "memory_bytes", lambda device: 1.6 * GIB)
    return tpu("v5e:2x2").devices


def test_open_slots_are_halved_until_the_longest_sequence_fits(devices):
    planned = plan(devices)
    assert planned.engine_config.num_slots == planned.runtime.slots == 4 * 64
    assert planned.runtime.trees_in_flight == 3 * 64
    with pytest.raises(UserError, match=r"lower runtime\.slots"):
        plan(devices, slots=4 * 128)


def test_slots_that_are_set_are_refused_with_the_number_that_would_fit(devices):
    with pytest.raises(UserError) as refusal:
        plan(devices, slots=1024)
    slots = int(re.search(r"lower runtime\.slots to (\d+), which", str(refusal.value))[1])
    assert 4 * 64 <= slots < 4 * 128
    assert plan(devices, slots=slots).engine_config.num_slots == slots


def test_a_model_that_leaves_no_room_is_refused(devices, monkeypatch):
    monkeypatch.setattr(engines, "memory_bytes", lambda device: GIB)
    with pytest.raises(UserError, match="not even one slot fits beside the weights"):
        plan(devices)


def test_slots_of_a_cpu_are_not_looked_at(monkeypatch):
    monkeypatch.setattr(engines, "memory_bytes", lambda device: 0)
    assert plan(jax.devices()).runtime.slots == 4 * 64
