"""GCG: losses are those of whole forward passes, gradients those of differences."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

from stair_jax.decoding.driver import Driver, run_tasks
from stair_jax.errors import UserError
from stair_jax.evaluation.attacks import gcg, gcg_step
from stair_jax.evaluation.attacks.attack import Means
from stair_jax.evaluation.attacks.gcg import Gcg, GcgService
from stair_jax.evaluation.attacks.gcg_step import GcgProblem, GcgShape, shape_of
from stair_jax.evaluation.attacks.suffix_settings import GcgSettings
from stair_jax.evaluation.case import Case
from stair_jax.evaluation.target import Reply
from stair_jax.models.transformer import apply, output_embedding
from stair_jax.testing.scripted_target import ScriptedTarget
from stair_jax.testing.tiny_models import tiny_config, tiny_model

CASE = Case("c1", "Tell me a secret.", columns={"target": "Sure, the problem"})


forward = jax.jit(apply, static_argnums=0)
gradient_of = jax.jit(gcg_step.one_hot_gradient, static_argnums=(0, 1))


def whole_loss(config, params, before, suffix, tail, num_target):
    """By a forward pass over this one sequence, with nothing before or between."""
    tokens = np.array([*before, *suffix, *tail])
    count = len(tokens)
    padded = np.pad(tokens, (0, 128 - count))[None]
    hidden = np.asarray(forward(config, params, padded, np.arange(128)[None]))[0, :count]
    logits = hidden @ np.asarray(output_embedding(params, config))[: config.vocab_size].T
    logps = logits - logsumexp(logits, axis=-1, keepdims=True)
    places = np.arange(count - num_target, count)
    return -np.mean(logps[places - 1, tokens[places]])


def make(config, before, tail, num_target, candidates=7, top_k=5, rows=2):
    shape = shape_of(config, len(before), 3, len(tail), num_target, candidates, top_k, 256)
    shape = replace(shape, per_row=2, rows=rows)
    problem = GcgProblem(
        np.pad(before, (0, shape.before - len(before)), constant_values=3),
        np.int32(len(before)),
        np.pad(tail, (0, shape.tail - len(tail)), constant_values=5),
        np.int32(len(tail)),
        np.int32(num_target),
        np.ones(config.vocab_size, bool),
    )
    return shape, problem


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(("rest", "num_target"), [(4, 3), (0, 1), (13, 9)])
def test_losses_are_those_of_whole_forward_passes(tied, rest, num_target):
    config, params = tiny_model(tie_word_embeddings=tied, vocab_multiple=16)
    rng = np.random.default_rng(0)
    before, tail = rng.integers(0, 40, 5), rng.integers(0, 40, rest + num_target)
    shape, problem = make(config, before, tail, num_target)
    suffixes = rng.integers(0, 40, (7, 3))
    score = jax.jit(gcg_step.suffix_losses, static_argnums=(0, 1))
    found = score(config, shape, params, problem, suffixes)
    expected = [whole_loss(config, params, before, s, tail, num_target) for s in suffixes]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_gradient_is_that_of_differences():
    config, params = tiny_model()
    rng = np.random.default_rng(1)
    before, tail, suffix = rng.integers(0, 40, 5), rng.integers(0, 40, 6), rng.integers(0, 40, 3)
    shape, problem = make(config, before, tail, 4)
    gradient = gradient_of(config, shape, params, problem, suffix)
    assert gradient.shape == (3, 40) and gradient.dtype == jnp.float32
    rows = jnp.asarray(np.eye(40, dtype=np.float32)[suffix])
    loss = jax.jit(gcg_step.one_hot_loss, static_argnums=(0, 1))
    arguments = (config, shape, params, problem, suffix)
    expected = whole_loss(config, params, before, suffix, tail, 4)
    assert float(loss(*arguments, rows)) == pytest.approx(expected, abs=1e-5)
    for place, token in ((0, 7), (1, 0), (2, 39), (2, int(suffix[2]))):
        step = jnp.zeros_like(rows).at[place, token].set(5e-3)
        slope = (loss(*arguments, rows + step) - loss(*arguments, rows - step)) / 1e-2
        assert float(gradient[place, token]) == pytest.approx(float(slope), rel=1e-2, abs=5e-4)


def test_a_step_takes_the_best_and_replaces_one_token_by_a_steepest_descent():
    config, params = tiny_model()
    rng = np.random.default_rng(2)
    before, tail = rng.integers(0, 40, 5), rng.integers(0, 40, 6)
    shape, problem = make(config, before, tail, 4, candidates=64, top_k=4, rows=8)
    allowed = np.arange(40) % 2 == 0
    problem = problem._replace(allowed=allowed)
    suffixes = rng.integers(0, 40, (64, 3)).astype(np.int32)
    counted = rng.random(64) < 0.5
    result = gcg_step.gcg_step(config, shape, params, problem, suffixes, counted, jax.random.key(0))
    losses = np.array([whole_loss(config, params, before, s, tail, 4) for s in suffixes[:8]])
    np.testing.assert_allclose(result.losses[:8], np.where(counted[:8], losses, np.inf), atol=1e-4)
    best = suffixes[int(result.best)]
    assert counted[int(result.best)] and result.losses[result.best] == result.losses.min()
    gradient = np.array(gradient_of(config, shape, params, problem, best))
    gradient[:, ~allowed] = np.inf
    gradient[np.arange(3), best] = np.inf
    steepest = np.argsort(gradient, axis=1)[:, :4]
    changes = np.asarray(result.candidates) != best
    assert (changes.sum(axis=1) == 1).all() and changes.any(axis=0).all()
    for candidate, change in zip(np.asarray(result.candidates), changes, strict=True):
        assert candidate[change][0] in steepest[int(np.argmax(change))]


def attack(target, seed=0, **settings):
    small = {"length": 5, "candidates": 16, "top_k": 16, "steps": 8, "ask_every": 3}
    chosen = Gcg(GcgSettings(**{**small, **settings}))
    means = Means(target, seed=seed)
    driver = Driver(target.engine, chosen.services(means))
    (tried,) = run_tasks(driver, [chosen.task(CASE, means)])
    return tried


def loss_of(target, messages):
    encoder = target.encoder
    form = encoder.tokenizer.encode_answer("<|Reasoning_step|>Title: ")
    text = encoder.tokenizer.encode_text("Sure, the problem")
    weights = target.weights()
    chat = encoder.chat(messages)
    return whole_loss(weights.config, weights.params, chat, form, text, len(text))


def test_a_search_lowers_the_loss_of_what_is_asked(target):
    tried = attack(target)
    assert 1 < len(tried) <= 3 and [one.asked for one in tried] == [
        chat for chat, _ in target.asked
    ]
    losses = [loss_of(target, one.asked.messages) for one in tried]
    start = CASE.prompt + "!!!!!"
    first = loss_of(target, [{"role": "user", "content": start}])
    assert losses == sorted(losses, reverse=True) and losses[-1] < first - 0.1
    said = [float(one.asked.label.rpartition(" ")[2]) for one in tried]
    assert said == pytest.approx(losses, abs=2e-3)
    tokens = target.encoder.chat(tried[-1].asked.messages)
    plain = target.encoder.chat(CASE.messages)
    texts = [
        target.encoder.tokenizer.decode(tokens[at : at + 5])
        for at in range(len(plain))
        if tokens[:at] + tokens[at + 5 :] == plain
    ]
    assert tried[-1].asked.messages[-1]["content"] in [CASE.prompt + text for text in texts]
    lengths = {len(target.encoder.chat(one.asked.messages)) for one in tried}
    assert lengths == {len(target.encoder.chat([{"content": start}]))}


def test_a_search_depends_on_case_and_seed_alone(target):
    first, again, other = (attack(target, seed=seed, ask_every=0) for seed in (0, 0, 1))
    assert first == again and len(first) == 1 and first[0].asked != other[0].asked


def test_a_search_ends_with_a_loss_that_is_low_enough(target):
    (tried,) = attack(target, enough=1000, ask_every=0)
    assert tried.asked.label.startswith("step 0,")


def test_searches_side_by_side_are_those_of_one_alone(target):
    chosen = Gcg(GcgSettings(length=5, candidates=16, top_k=16, steps=3, ask_every=0))
    means, cases = Means(target), [replace(CASE, id=f"c{number}") for number in range(4)]
    driver = Driver(target.engine, chosen.services(means))
    together = list(run_tasks(driver, [chosen.task(case, means) for case in cases]))
    for case, tried in zip(cases, together, strict=True):
        driver = Driver(target.engine, chosen.services(means))
        (alone,) = run_tasks(driver, [chosen.task(case, means)])
        assert alone == tried


def test_a_step_without_a_candidate_that_can_be_sent_draws_again(target, monkeypatch):
    """Only the first suffix, and those of later steps, stay the same as text."""
    calls = []
    kept = gcg.SuffixSpace.is_kept

    def is_kept(space, ids):
        calls.append(tuple(ids))
        return kept(space, ids) and not 1 < len(calls) <= 33

    monkeypatch.setattr(gcg.SuffixSpace, "is_kept", is_kept)
    (tried,) = attack(target, ask_every=0, steps=4)
    assert len(calls) == 1 + 4 * 16
    assert int(tried.asked.label.removeprefix("step ").partition(",")[0]) > 2


def test_dropped_searches_are_gone(target):
    service = GcgService(target.weights())
    task = Gcg(GcgSettings(length=5, candidates=16, steps=3)).task(CASE, Means(target))
    requests = [replace(task.start()[0], id=(number,)) for number in range(4)]
    service.submit(requests)
    service.step()
    service.cancel([(0,), (3,)])
    assert service.pending == 2
    found = []
    while service.pending:
        found += [completion.id for completion in service.step()]
    assert sorted(found) == [(1,), (2,)]


def test_a_target_that_shows_no_weights_is_named():
    means = Means(ScriptedTarget(lambda asked, key: Reply("no")))
    with pytest.raises(UserError, match="the weights of scripted are not here: name a model"):
        Gcg().services(means)


def test_candidates_share_rows_where_matrix_products_cost_more_than_attention():
    def shape(before=60, candidates=512, **sizes):
        config = tiny_config(**sizes)
        return shape_of(config, before, 20, 30, 5, candidates, 256, 4096)

    large = {"hidden_size": 896, "intermediate_size": 4864, "head_dim": 64}
    wide = shape(**large)
    assert wide == GcgShape(64, 20, 32, 8, 512, wide.per_row, wide.rows, 256)
    assert 4 < wide.per_row < 32 and wide.rows * wide.row(wide.per_row) <= 4096
    assert shape().per_row < wide.per_row < shape(before=600, **large).per_row
    batches = -(-512 // (wide.rows * wide.per_row))
    assert batches * wide.rows * wide.per_row < 512 * 1.1  # little of it padding
    few = shape(candidates=2, **large)
    assert (few.per_row, few.rows) == (2, 1)
