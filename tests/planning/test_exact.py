"""Plans match what runs: functions, static arguments, shapes, dtypes, shardings."""

import dataclasses
import math
import sys

import jax
import numpy as np
import pytest

from stair_jax.decoding import programs
from stair_jax.decoding.driver import run_all
from stair_jax.decoding.engine import Engine
from stair_jax.decoding.engine_config import EngineConfig
from stair_jax.decoding.requests import MAX_SCORE_IDS, Request, Sampling
from stair_jax.inference import scorers
from stair_jax.models import huggingface
from stair_jax.models.heads import init_score_head
from stair_jax.models.transformer import init_params, logical_axes
from stair_jax.parallel.mesh import MeshShape, make_mesh
from stair_jax.parallel.rules import shardings
from stair_jax.planning.abstract import abstract_prm
from stair_jax.planning.decoding import EnginePlan, plan_engine_config, prm_score, tree_round
from stair_jax.run.context import PlanContext
from stair_jax.search import kernel
from stair_jax.search.batched_trees import BatchedTrees
from stair_jax.search.tree import NO_NODE, Need, SearchConfig, Selection
from stair_jax.stages import Dpo, Prm, Sft
from stair_jax.stages.prm import prm_axes
from stair_jax.training import loop

RUNTIME = {"training_mesh": {"fsdp": 2, "tensor": 2}, "vocab_multiple": 16}


class Recorder:
    """Stands in for a jitted function, and records the arguments of its first call.

    `result` maps the arguments to a stand-in for the function's result.
    """

    def __init__(self, function, result):
        self.function, self.arguments, self._result = function, None, result

    def __call__(self, *arguments):
        if self.arguments is None:
            self.arguments = jax.tree.map(described, arguments)
        return self._result(*arguments)


def described(leaf):
    """An argument as a shape; host arrays have no sharding."""
    if isinstance(leaf, jax.Array):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
    if isinstance(leaf, np.ndarray | np.generic):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
    return leaf


def assert_same(run, planned):
    assert jax.tree.structure(run) == jax.tree.structure(planned)
    for real, plan in zip(jax.tree.leaves(run), jax.tree.leaves(planned), strict=True):
        if not isinstance(real, jax.ShapeDtypeStruct):
            assert real == plan
            continue
        assert (real.shape, real.dtype) == (plan.shape, plan.dtype)
        assert (real.sharding is None) == (plan.sharding is None)
        if real.sharding is not None:
            assert real.sharding.is_equivalent_to(plan.sharding, len(real.shape))


def recorded(monkeypatch, module, name, result):
    recorder = Recorder(getattr(module, name), result)
    monkeypatch.setattr(module, name, recorder)
    return recorder


SHAPES = EngineConfig(
    num_slots=8, max_length=12, page_size=4, prefill_rows=4, prefill_width=3, steps_per_call=2
)


@pytest.mark.parametrize(
    ("shape", "changes"),
    [
        (None, {}),
        (MeshShape(data=2, tensor=2), {}),
        (MeshShape(data=2, tensor=2), {"weights": "int8", "kv_dtype": "int8", "cache_tokens": 64}),
    ],
    ids=["one device", "mesh", "mesh, 8 bits"],
)
def test_the_programs_of_the_engine(config, monkeypatch, shape, changes):
    mesh = shape and make_mesh(shape)
    shapes = dataclasses.replace(SHAPES, **changes)
    params = init_params(config, jax.random.key(0))
    if mesh:
        params = jax.device_put(params, shardings(logical_axes(config), mesh))
    sampled = jax.numpy.zeros((8, 2 * 2 + MAX_SCORE_IDS), jax.numpy.int32)
    results = {
        "copy_pages": lambda config, backend, num_pages, state, *_: state,
        "prefill": lambda config, backend, fused, state, *_: state,
        "decode": lambda config, backend, steps, decode_mode, fused, state, *_: (state, sampled),
    }
    jitted = programs.get_programs("cpu")
    recorders = programs.Programs(
        **{name: Recorder(getattr(jitted, name), result) for name, result in results.items()}
    )
    monkeypatch.setattr(programs, "get_programs", lambda platform: recorders)
    engine = Engine(config, params, shapes, mesh=mesh)
    parent = engine.keep((1, 2, 3, 4, 5, 6, 7))  # half of its second page is copied
    requests = [
        Request(0, (8,), parent=parent, sampling=Sampling(max_tokens=4)),
        Request(1, (8,), parent=parent, score_ids=(1, 2, 3, 4, 5)),
    ]
    run_all(engine, requests)
    place = mesh or jax.devices()[0]
    plan = EnginePlan(config, place, plan_engine_config(config, shapes, place))
    planned = plan.programs()
    assert {program.function for program in planned} == {*recorders}
    for program in planned:
        assert_same(program.function.arguments, program.arguments)
    assert_same(jax.tree.map(described, (engine.device.params, engine.device.state)), plan.resident)


def test_the_scores_of_a_process_reward_model(config, monkeypatch):
    mesh = make_mesh(MeshShape(data=2, tensor=2))
    recorder = recorded(monkeypatch, scorers, "prm_scores", lambda *_: np.zeros(4))
    key = jax.random.key(0)
    axes = prm_axes(config)
    model = init_params(config, key)
    params = {
        "model": {name: model[name] for name in axes["model"]},
        "score": init_score_head(config, key),
    }
    params = jax.device_put(params, shardings(axes, mesh))
    scorer = scorers.PrmScorer(config, params, rows=3, buckets=(4,), mesh=mesh)
    scorer.score([[1] * 7])
    shapes = abstract_prm(config, axes, mesh)
    program = prm_score(config, shapes, scorer, 7, mesh, ())
    assert program.name == "PRM score: 4 x 8 tokens"
    assert_same(recorder.arguments, program.arguments)


@pytest.mark.parametrize("in_flight", [1, 2])
def test_a_round_of_the_trees(monkeypatch, in_flight):
    config = SearchConfig(num_iterations=3, num_children=2, in_flight=in_flight)
    nothing = np.full((5, in_flight), NO_NODE), np.full((5, in_flight), Need.WAIT)
    recorder = recorded(
        monkeypatch, kernel, "advance", lambda config, trees, _: (trees, Selection(*nothing))
    )
    device = jax.devices()[1]
    batched_trees = BatchedTrees(config, 5, device)
    assert batched_trees.advance() == ([], [])
    program = tree_round(config, 5, device, ())
    assert program.function is recorder
    assert_same(recorder.arguments, program.arguments)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, make_stage_inputs):
    """Folders of a model stage and a data stage."""
    return make_stage_inputs(tmp_path_factory.mktemp("run"), rows=3, num_key_value_heads=2)


@pytest.mark.parametrize(
    ("kind", "others"),
    [(Sft, []), (Dpo, ["sequence_logps"]), (Prm, ["sequence_scores"])],
    ids=["sft", "dpo", "prm"],
)
def test_the_programs_of_training(workdir, make_context, monkeypatch, kind, others):
    fields = {
        "max_length": 128, "microbatch_rows": 4, "batch_size": 4, "epochs": 1.0,
        "dtype": "bfloat16", "mu_dtype": "bfloat16", "remat": "full", "logps_chunks": 4,
        "reader": "datasets",
    }  # fmt: skip
    stage = kind(**fields | ({"held_out": 0.4} if kind is Prm else {}))
    module = sys.modules[kind.__module__]
    recorders = [
        recorded(monkeypatch, module, other, lambda *_: np.zeros((4, 2))) for other in others
    ]
    steps = []

    def make_train_step(*arguments):
        metrics = {"loss": 0, "grad_norm": 0, "dpo_loss": math.log(2), "margin": 0, "accuracy": 0}
        steps.append(Recorder(original(*arguments), lambda state, *_: (state, metrics)))
        return steps[-1]

    original = loop.make_train_step
    monkeypatch.setattr(loop, "make_train_step", make_train_step)
    inputs = {
        "model": workdir / "model",
        "data" if kind is Sft else "preferences": workdir / "data",
    }
    context = make_context(workdir / kind.__name__, inputs, seed=3, **RUNTIME)
    stage.run(context)

    model = huggingface.load_config(workdir / "model" / "hf")
    devices = jax.devices()
    plan = PlanContext(context.name, context.runtime, devices, devices, {"model": [model]})
    planned = {program.name.partition(":")[0]: program for program in stage.programs(plan)}
    step = planned.pop(stage.STEP)
    assert step.function is steps[0].function  # the same jitted function: nothing in it differs
    assert_same(steps[0].arguments, step.arguments)
    for recorder, program in zip(recorders, planned.values(), strict=True):
        assert program.function is recorder
        assert_same(recorder.arguments, program.arguments)
