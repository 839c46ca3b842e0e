"""Log-probabilities by the weights of an engine are those of the model, whatever its layout."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stair_jax.decoding.driver import Driver, run_tasks
from stair_jax.decoding.engine import Engine
from stair_jax.decoding.task import GatherTask
from stair_jax.errors import UserError
from stair_jax.inference import prompt_logps
from stair_jax.inference.prompt_logps import (
    PROMPT_LOGPS_SERVICE,
    LogpsRequest,
    LogpsTask,
    PromptLogps,
)
from stair_jax.models import transformer
from stair_jax.models.layout import fit_to_mesh
from stair_jax.parallel.mesh import MeshShape, make_mesh
from stair_jax.testing.tiny_models import tiny_model

RNG = np.random.default_rng(0)
SEQUENCES = [tuple(RNG.integers(0, 40, n).tolist()) for n in (2, 7, 63, 64, 65, 100)]
STARTS = [1, 3, 1, 40, 64, 99]


@partial(jax.jit, static_argnums=0)
def whole(config, params, tokens):
    """[T, V] log-probabilities behind each token."""
    hidden = transformer.apply(config, params, tokens[None], jnp.arange(len(tokens))[None])
    return jax.nn.log_softmax(hidden[0] @ transformer.output_embedding(params, config).T)


def expected(config, params, tokens):
    """[T - 1, V] log-probabilities behind each token; one length is compiled for all sequences."""
    padded = np.zeros(max(map(len, SEQUENCES)), np.int32)
    padded[: len(tokens)] = tokens  # no token attends to what follows it
    return np.asarray(whole(config, params, padded))[: len(tokens) - 1]


def scored(engine, sequences=SEQUENCES, starts=STARTS):
    driver = Driver(engine, {PROMPT_LOGPS_SERVICE: PromptLogps(engine.device)})
    task = GatherTask(LogpsTask(*pair) for pair in zip(sequences, starts, strict=True))
    (found,) = run_tasks(driver, [task])
    return found


def check(config, params, found):
    for tokens, start, completion in zip(SEQUENCES, STARTS, found, strict=True):
        table = expected(config, params, tokens)[start - 1 :]
        own = table[np.arange(len(table)), tokens[start:]]
        np.testing.assert_allclose(completion.logps, own, atol=1e-5)
        best = -np.sort(-table, axis=-1)[:, : prompt_logps.MOST_TOP]
        np.testing.assert_allclose([[p for _, p in top] for top in completion.top], best, atol=1e-5)
        for row, top in zip(table, completion.top, strict=True):
            np.testing.assert_allclose([row[id] for id, _ in top], [p for _, p in top], atol=1e-5)


@pytest.mark.parametrize("changes", [{}, {"model_type": "qwen3"}])
def test_log_probabilities_are_those_of_the_model(changes, monkeypatch):
    monkeypatch.setattr(prompt_logps, "_LOGITS_BYTES", 2**15)  # several chunks
    config, params = tiny_model(**changes)
    engine = Engine(config, params, num_slots=2, max_length=128, page_size=16)
    check(config, params, scored(engine))


def test_they_are_those_of_sampled_tokens_too():
    from stair_jax.decoding.driver import run_all
    from stair_jax.decoding.requests import Request, Sampling

    config, params = tiny_model()
    engine = Engine(config, params, num_slots=2, max_length=128, page_size=16)
    request = Request(0, SEQUENCES[1], sampling=Sampling(max_tokens=20))
    completion = run_all(engine, [request])[0]
    (found,) = scored(engine, [SEQUENCES[1] + completion.tokens], [len(SEQUENCES[1])])
    np.testing.assert_allclose(found.logps, completion.logps, atol=1e-5)


def test_no_more_of_the_likeliest_tokens_are_told_than_are_asked_for():
    config, params = tiny_model()
    engine = Engine(config, params, num_slots=2, max_length=128, page_size=16)
    driver = Driver(engine, {PROMPT_LOGPS_SERVICE: PromptLogps(engine.device)})
    task = GatherTask(LogpsTask(SEQUENCES[1], 3, count) for count in (0, 2, 20))
    ((none, two, all_),) = run_tasks(driver, [task])
    assert none.logps == two.logps == all_.logps and none.top == ((),) * 4
    assert two.top == tuple(top[:2] for top in all_.top) and len(all_.top[0]) == 20


def test_a_mesh_changes_nothing():
    mesh = make_mesh(MeshShape(data=2, tensor=2), jax.devices()[:4])
    config, params = tiny_model()
    own = fit_to_mesh(config, mesh, 16)
    engine = Engine(own, params, num_slots=2, max_length=128, page_size=16, mesh=mesh)
    check(config, params, scored(engine))


def test_what_cannot_be_scored_is_refused():
    for start in (0, 2):
        with pytest.raises(UserError, match="at least one token"):
            LogpsRequest((), (1, 2), start)


def test_few_shapes_are_compiled():
    config, params = tiny_model()
    engine = Engine(config, params, num_slots=2, max_length=128, page_size=16)
    service = PromptLogps(engine.device)
    assert {service.bucket(LogpsRequest(0, (1,) * n)) for n in range(2, 129)} == {64, 128}


def test_what_does_not_fit_beside_the_cache_is_refused_before_it_is_computed(monkeypatch):
    config, params = tiny_model()
    engine = Engine(config, params, num_slots=2, max_length=128, page_size=16)
    service = PromptLogps(engine.device)
    compiled, compile = [], service._compile
    monkeypatch.setattr(service, "_compile", lambda bucket: compiled.append(1) or compile(bucket))
    monkeypatch.setattr(type(engine.device), "free_bytes", 2**16)
    for _ in range(2):
        with pytest.raises(UserError, match=r"of 128 tokens need .* lower runtime.cache_tokens"):
            service.check(100)
    monkeypatch.setattr(type(engine.device), "free_bytes", 2**30)
    service.check(100)
    assert len(compiled) == 1


def test_few_results_are_on_the_device_at_once():
    config, params = tiny_model()
    engine = Engine(config, params, num_slots=2, max_length=128, page_size=16)
    service = PromptLogps(engine.device)
    service._batch_tokens = 128  # a sequence a batch
    service.submit(LogpsRequest(number, SEQUENCES[-1]) for number in range(7))
    found, most = [], 0
    while service.pending:
        found += service.step()
        most = max(most, len(service._running))
    assert [completion.id for completion in found] == [*range(7)] and most <= 2
