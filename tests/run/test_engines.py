"""How many slots an engine gets where the config leaves them open, and what it serves."""

import dataclasses
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stair_jax.decoding.driver import run_all
from stair_jax.decoding.requests import Request
from stair_jax.errors import UserError
from stair_jax.models import huggingface
from stair_jax.models.config import ModelConfig
from stair_jax.models.lora import Lora
from stair_jax.models.transformer import init_params
from stair_jax.parallel.chips import GIB
from stair_jax.parallel.mesh import MeshShape
from stair_jax.run import engines
from stair_jax.run.engines import EngineSettings, load_engine, plan_engine
from stair_jax.run.runtime import Runtime
from stair_jax.testing.tiny_models import tiny_model
from stair_jax.testing.tiny_tokenizers import word_tokenizer

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


def test_an_engine_serves_the_adapters_of_other_folders_over_its_base(tmp_path):
    tokenizer = word_tokenizer(["1", "2", "3"])
    base, params = tiny_model(tokenizer.vocab_size, num_hidden_layers=1, initializer_range=0.3)
    folders = {name: tmp_path / name for name in ("base", "first", "second")}
    huggingface.save(folders["base"], params, base, tokenizer)
    for rank, name in enumerate(("first", "second"), start=1):
        config = dataclasses.replace(base, lora=Lora(rank, 1.0))
        shapes = jax.eval_shape(partial(init_params, config), jax.random.key(0))
        rng = np.random.default_rng(rank)
        adapted = jax.tree.map(lambda a, rng=rng: jnp.asarray(rng.normal(0, 0.5, a.shape)), shapes)
        huggingface.save_adapter(folders[name], adapted, config, tokenizer, folders["base"])
    runtime = Runtime(slots=2, decoding_mesh=MeshShape())
    request = Request("a", (5, 6, 7, 4), score_ids=(1, 2, 3))

    def scores(name, others=(), **settings):
        chosen = EngineSettings(context_tokens=32, dtype="float32", **settings)
        named = [folders[other] for other in others]
        engine, _, _ = load_engine(folders[name], chosen, runtime, others=named)
        count = engine.device.engine_config.num_adapters + 1 if settings else 1
        asked = [dataclasses.replace(request, id=n, adapter=n if settings else None)
                 for n in range(count)]  # fmt: skip
        found = run_all(engine, asked)
        return [found[n].scores for n in range(count)]

    alone = [scores(name)[0] for name in ("base", "first", "second")]
    np.testing.assert_allclose(scores("first", ["second"], is_shared=True), alone, atol=1e-4)
    np.testing.assert_allclose(scores("base", ["second"], is_shared=True), alone[::2], atol=1e-4)
    assert np.abs(np.diff(alone, axis=0)).max(axis=1).min() > 0.01
