"""An engine that serves models with adapters over one base, against engines of each model alone."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stair_jax.decoding import programs
from stair_jax.decoding.driver import run_all
from stair_jax.decoding.engine import Engine
from stair_jax.decoding.requests import Request, Sampling, request_key
from stair_jax.decoding.slots import WIDTH
from stair_jax.models import lora
from stair_jax.models.config import ModelConfig
from stair_jax.models.layout import fit_to_mesh
from stair_jax.models.lora import Lora
from stair_jax.models.serving.fused_adapters import Adapter, fuse_model
from stair_jax.models.transformer import init_params, logical_axes
from stair_jax.parallel.mesh import MeshShape, make_mesh
from stair_jax.parallel.rules import shardings
from stair_jax.planning.decoding import EnginePlan, plan_engine_config
from stair_jax.testing.merging import merge

CONFIG = ModelConfig(
    vocab_size=59,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=1,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    initializer_range=0.3,
)
LORA = Lora(4, 2.0)
# Of another rank, on few kernels, and on one part alone of those that are joined.
OTHER = Lora(6, 0.5, ("query", "value", "up"))
SIZES = {
    "num_slots": 8, "max_length": 48, "page_size": 4, "prefill_rows": 4, "prefill_width": 8,
    "steps_per_call": 4,
}  # fmt: skip
MODELS = (0, 1, 2)
make_engine = partial(Engine, **SIZES)


def with_lora(config, adapters):
    return dataclasses.replace(config, lora=adapters)


BASE = init_params(CONFIG, jax.random.key(1))


def random_params(config, adapters, seed):
    """Of the base, with adapters whose B are not zero."""
    make = partial(init_params, with_lora(config, adapters))
    shapes = lora.split(jax.eval_shape(make, jax.random.key(0)))[1]
    rng = np.random.default_rng(seed)
    values = jax.tree.map(lambda a: jnp.asarray(rng.normal(0, 0.3, a.shape), a.dtype), shapes)
    return {**BASE, "layers": BASE["layers"] | values["layers"]}


PARAMS = {1: random_params(CONFIG, LORA, 2), 2: random_params(CONFIG, OTHER, 3)}
ADAPTERS = [
    Adapter(adapters, lora.split(PARAMS[number])[1]) for number, adapters in ((1, LORA), (2, OTHER))
]


def merged(number):
    """The parameters of a model with its adapters in its kernels."""
    if not number:
        return BASE
    return merge(ADAPTERS[number - 1].lora, jax.tree.map(jnp.copy, PARAMS[number]))


def requests(adapter, name=""):
    """The same of each model: greedy, sampling and scoring, short and long."""
    settings = (
        Sampling(temperature=0.0, max_tokens=10),
        Sampling(temperature=1.2, top_k=50, top_p=0.9, max_tokens=10),
        None,
    )
    made = []
    for index in range(9):
        tokens = tuple(np.random.default_rng(index).integers(0, 59, 1 + 3 * index).tolist())
        sampling = settings[index % 3]
        ids = () if sampling else (1, 2, 58)
        key = request_key(0, index)
        id = (name, adapter, index)
        made.append(Request(id, tokens, None, sampling, ids, key, adapter=adapter))
    return made


@pytest.fixture(scope="module")
def alone():
    """The completions of engines of one model each, by id."""
    found = {}
    for number in MODELS:
        plain = [dataclasses.replace(each, adapter=None) for each in requests(number)]
        found |= run_all(make_engine(CONFIG, merged(number)), plain)
    return found


def assert_same_but_for_rounding(found, expected):
    assert (found.tokens, found.finish) == (expected.tokens, expected.finish)
    np.testing.assert_allclose(found.logps, expected.logps, atol=1e-4)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)


def test_each_row_is_of_its_own_model_and_the_base_is_exact(alone):
    engine = make_engine(CONFIG, BASE, adapters=ADAPTERS)
    mixed = [each for trio in zip(*map(requests, MODELS), strict=True) for each in trio]
    found = run_all(engine, mixed)
    assert engine.stats.occupancy > 0.5
    for id, completion in found.items():
        if id[1] == 0:
            assert completion == alone[id]
        else:
            assert_same_but_for_rounding(completion, alone[id])
    assert len({found["", number, 6].tokens for number in MODELS}) == 3


def test_the_adapters_in_the_parameters_are_those_of_roots_that_name_none(alone):
    engine = make_engine(with_lora(CONFIG, LORA), PARAMS[1])
    assert engine.adapter == 1
    unnamed = [dataclasses.replace(each, adapter=None) for each in requests(1)]
    for id, completion in run_all(engine, [*unnamed, *requests(0)]).items():
        assert_same_but_for_rounding(completion, alone[id])


def test_models_share_no_keys_and_values_under_pressure():
    """Equal sequences of all models as trees of kept handles, with hardly any pages."""
    engine = make_engine(CONFIG, BASE, adapters=ADAPTERS, cache_tokens=56)
    sampling = Sampling(temperature=1.2, top_k=50, max_tokens=6)
    tokens = tuple(range(2, 12))

    def grow(engine, numbers):
        roots = {number: engine.keep(tokens, adapter=own) for number, own in numbers.items()}
        found = {}
        for depth in range(2):
            parents = {number: engine.keep((7,), root) for number, root in roots.items()}
            children = [
                Request((number, depth, k), (k,), parent=parent, sampling=sampling,
                        key=request_key(k), keep=True)
                for number, parent in parents.items() for k in range(3)
            ]  # fmt: skip
            done = run_all(engine, children)
            found |= done
            roots = {
                number: engine.shorten(handle, len(handle.tokens) - 2)
                for number in numbers
                for handle in [done[number, depth, 1].handle]
            }
        return found

    found = grow(engine, {number: number for number in MODELS})
    assert engine.stats.evicted > 0 and engine.stats.reused > 0
    for id, completion in found.items():
        assert completion.handle.adapter == id[0]
    for number in MODELS:
        expected = grow(make_engine(CONFIG, merged(number)), {number: None})
        for id, completion in expected.items():
            assert_same_but_for_rounding(found[id], completion)


@pytest.mark.parametrize("shape", [(2, 2, 2), (2, 1, 4)])
def test_a_mesh_gives_the_samples_of_one_device(shape, alone):
    """On the second one each device holds both KV heads and one of the four query heads."""
    mesh = make_mesh(MeshShape(*shape))
    config = with_lora(fit_to_mesh(CONFIG, mesh, vocab_multiple=8), LORA)
    params = {
        **PARAMS[1],
        **{name: jnp.pad(PARAMS[1][name], ((0, 5), (0, 0))) for name in ("embedding", "head")},
    }
    params = jax.device_put(params, shardings(logical_axes(config), mesh))
    engine = make_engine(config, params, mesh=mesh, prefill_rows=8)
    for id, completion in run_all(engine, [*requests(0), *requests(1)]).items():
        assert_same_but_for_rounding(completion, alone[id])
    planned = plan_engine_config(config, engine._engine_config, mesh)
    plan = EnginePlan(config, mesh, planned)
    shapes = jax.tree.map(
        lambda a: (a.shape, a.dtype, a.sharding.shard_shape(a.shape)), plan.resident
    )
    actual = (engine.device.params, engine.device.state)
    assert shapes == jax.tree.map(
        lambda a: (a.shape, a.dtype, a.sharding.shard_shape(a.shape)), actual
    )


def test_without_adapters_the_programs_have_no_more_products():
    """One for each kernel and one for the logits; attention has two."""

    def count(adapters):
        fused = fuse_model(CONFIG, BASE, adapters, stacked=False)
        state = programs.empty_state(CONFIG, "gather", 8, 40, 4, "float32", bool(adapters))
        rows = np.zeros((8, WIDTH), np.int32), np.zeros((8, 12), np.int32)
        decode = partial(programs.decode, CONFIG, "gather", 4, "full")
        text = str(jax.make_jaxpr(decode)(fused, state, *rows, *rows))
        return len(jax.tree.leaves(state)), text.count("dot_general[")

    leaves, products = count(())
    assert products == (4 + 2) + 1
    assert count(ADAPTERS[:1]) == (leaves + 1, products + 2 * 4)
    assert count(ADAPTERS) == count(ADAPTERS[:1])


def test_adapters_can_be_replaced():
    engine = make_engine(CONFIG, BASE, adapters=ADAPTERS[:1])
    scaled = Adapter(LORA, {"layers": dict(ADAPTERS[0].params["layers"])})
    for name in scaled.params["layers"]:
        if name.endswith(lora.B):
            scaled.params["layers"][name] = jnp.zeros_like(scaled.params["layers"][name])
    engine.set_params(BASE, adapters=[scaled])
    found = run_all(engine, [*requests(0), *requests(1)])
    for index in range(9):
        first, second = found["", 0, index], found["", 1, index]
        assert (first.tokens, first.logps, first.scores) == (
            second.tokens, second.logps, second.scores,
        )  # fmt: skip


def test_wrong_adapters_are_refused():
    engine = make_engine(CONFIG, BASE, adapters=ADAPTERS)
    root = engine.keep((1, 2, 3), adapter=2)
    assert engine.keep((4,), root).adapter == 2
    with pytest.raises(ValueError, match="adapter 1 cannot continue a sequence of adapter 2"):
        engine.keep((4,), root, adapter=1)
    with pytest.raises(ValueError, match="no adapter 3: it has 2 beside the base"):
        engine.submit([Request("a", (1,), score_ids=(1,), adapter=3)])
    with pytest.raises(ValueError, match="no adapter 1: it has 0"):
        make_engine(CONFIG, BASE).keep((1,), adapter=1)
    assert engine.pending == 0
