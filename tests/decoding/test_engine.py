"""The engine against dense evaluation of the model, and against itself in other company."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from stair_jax.decoding import programs
from stair_jax.decoding.engine import Engine
from stair_jax.decoding.requests import EngineStats, Request, Sampling, request_key, run_all
from stair_jax.errors import UserError
from stair_jax.models.config import ModelConfig
from stair_jax.models.transformer import apply, init_params, output_embedding

CONFIG = ModelConfig(
    vocab_size=61,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    initializer_range=0.3,
)
PARAMS = init_params(CONFIG, jax.random.key(1))
MAX_LENGTH = 48
GREEDY = Sampling(temperature=0.0, max_tokens=12)
PAPER = Sampling(temperature=1.2, top_k=50, top_p=0.9, max_tokens=12)


def make_engine(params=PARAMS, num_slots=8):
    return Engine(
        CONFIG,
        params,
        num_slots=num_slots,
        max_length=MAX_LENGTH,
        prefill_rows=4,
        buckets=(16,),
        steps_per_call=4,
    )


def random_tokens(length, seed):
    return tuple(np.random.default_rng(seed).integers(0, CONFIG.vocab_size, length).tolist())


def complete(request, engine=None):
    return run_all(engine or make_engine(), [request])[request.id]


@jax.jit
def dense_log_softmax(tokens):
    positions = jnp.arange(tokens.shape[1])[None]
    hidden, _ = apply(CONFIG, PARAMS, tokens, positions)
    return jax.nn.log_softmax(hidden @ output_embedding(PARAMS, CONFIG).T)


def next_token_logps(sequence):
    """Log-softmax [V] after the sequence, out of one padded program."""
    tokens = np.zeros((1, MAX_LENGTH), np.int32)
    tokens[0, : len(sequence)] = sequence
    return np.asarray(dense_log_softmax(tokens)[0, len(sequence) - 1])


def mixed_requests(count=24):
    """Requests of many lengths and settings; some share a prompt, some only score."""
    settings = (
        GREEDY,
        PAPER,
        Sampling(max_tokens=7),
        Sampling(top_p=0.8, max_tokens=20, stop_ids=(3, 9, 11)),
        Sampling(temperature=0.7, top_k=3, max_tokens=1),
    )
    requests = []
    for index in range(count):
        tokens = random_tokens(1 + 5 * (index // 3) % 37, seed=index // 3)
        if index % 6 == 5:
            requests.append(Request(index, tokens, score_ids=(1, 2, 60)))
        else:
            sampling = settings[index % len(settings)]
            requests.append(Request(index, tokens, sampling=sampling, key=request_key(0, index)))
    return requests


def test_greedy_tokens_and_logps_are_those_of_the_dense_model():
    requests = [
        Request(index, random_tokens(1 + 3 * index, index), sampling=GREEDY) for index in range(10)
    ]
    completions = run_all(make_engine(), requests)
    for request in requests:
        completion = completions[request.id]
        sequence = list(request.tokens)
        for token, logp in zip(completion.tokens, completion.logps, strict=True):
            expected = next_token_logps(sequence)
            assert token == np.argmax(expected)
            assert logp == pytest.approx(expected[token], abs=1e-4)
            sequence.append(token)
        assert (len(completion.tokens), completion.finish) == (12, "length")


def test_sampled_frequencies_and_logps():
    tokens, draws = random_tokens(9, 5), 3000
    requests = [
        Request(index, tokens, sampling=Sampling(max_tokens=1), key=request_key(3, index))
        for index in range(draws)
    ]
    completions = run_all(make_engine(), requests).values()
    logps = next_token_logps(tokens)
    sampled = [completion.tokens[0] for completion in completions]
    given = [completion.logps[0] for completion in completions]
    np.testing.assert_allclose(given, logps[sampled], atol=1e-4)
    expected = np.exp(np.float64(logps)) * draws
    common = expected > 5
    observed = np.bincount(sampled, minlength=CONFIG.vocab_size)
    observed = np.append(observed[common], observed[~common].sum())
    expected = np.append(expected[common], expected[~common].sum())
    assert common.sum() > 5
    assert stats.chisquare(observed, expected * draws / expected.sum()).pvalue > 1e-3


def test_results_do_not_depend_on_company_slot_or_order():
    """Bit for bit: crowded, alone, in the opposite order, and in a trickle."""
    requests = mixed_requests()
    crowd = run_all(make_engine(), requests)
    assert run_all(make_engine(), requests[::-1]) == crowd
    used = make_engine()
    assert {request.id: complete(request, used) for request in requests} == crowd
    trickle, seen = make_engine(), {}
    for request in requests:
        trickle.submit([request])
        seen.update((completion.id, completion) for completion in trickle.step())
    while trickle.pending:
        seen.update((completion.id, completion) for completion in trickle.step())
    assert seen == crowd
    assert len({completion.tokens for completion in crowd.values()}) > 10


def test_another_key_gives_another_sample():
    requests = [
        Request(index, (1, 2), sampling=PAPER, key=request_key(0, index)) for index in range(20)
    ]
    completions = run_all(make_engine(), requests).values()
    assert len({completion.tokens for completion in completions}) > 10


def test_a_stop_token_ends_and_belongs_to_the_completion():
    tokens = random_tokens(6, 1)
    free = complete(Request("a", tokens, sampling=GREEDY))
    stop = free.tokens[4]
    sampling = Sampling(temperature=0.0, max_tokens=12, stop_ids=(60, stop))
    stopped = complete(Request("a", tokens, sampling=sampling))
    end = free.tokens.index(stop) + 1
    assert (stopped.tokens, stopped.finish) == (free.tokens[:end], "stop")
    assert stopped.logps == free.logps[:end]


@pytest.mark.parametrize("max_tokens", [1, 4, 5, 9])
def test_max_tokens(max_tokens):
    completion = complete(
        Request("a", (1, 2, 3), sampling=Sampling(temperature=0.0, max_tokens=max_tokens))
    )
    assert (len(completion.tokens), completion.finish) == (max_tokens, "length")


@pytest.mark.parametrize(
    ("length", "sampled", "finish"),
    [
        (MAX_LENGTH - 2, 2, "length"),
        (MAX_LENGTH - 1, 1, "length"),
        (MAX_LENGTH, 0, "too_long"),
        (MAX_LENGTH + 30, 0, "too_long"),
    ],
)
def test_the_context_is_the_limit(length, sampled, finish):
    completion = complete(Request("a", random_tokens(length, 0), sampling=GREEDY))
    assert (len(completion.tokens), completion.finish) == (sampled, finish)


@pytest.mark.parametrize("length", [1, 16, 17, MAX_LENGTH])
def test_scores_are_the_dense_log_softmax(length):
    tokens, ids = random_tokens(length, 7), tuple(range(1, 9))
    completion = complete(Request("a", tokens, score_ids=ids))
    assert (completion.finish, completion.tokens) == ("scored", ())
    np.testing.assert_allclose(completion.scores, next_token_logps(tokens)[list(ids)], atol=1e-5)


def test_scoring_beyond_the_context_is_too_long():
    completion = complete(Request("a", random_tokens(MAX_LENGTH + 1, 7), score_ids=(1,)))
    assert (completion.finish, completion.scores) == ("too_long", ())


@pytest.mark.parametrize("sampling", [GREEDY, PAPER], ids=["greedy", "sampled"])
def test_a_child_is_its_parent_with_tokens_appended(sampling):
    engine = make_engine()
    parent = Request("a", random_tokens(5, 2), sampling=sampling, key=(1, 2), keep=True)
    handle = complete(parent, engine).handle
    own = (7, 8)
    child = complete(Request("b", own, parent=handle, sampling=sampling, key=(3, 4)), engine)
    whole = (*handle.tokens, *own)
    assert handle.tokens[:5] == parent.tokens
    assert len(handle.tokens) == 17
    assert child == complete(Request("b", whole, sampling=sampling, key=(3, 4)))
    scored = Request("c", own, parent=handle, score_ids=(1, 2), keep=True)
    completion = complete(scored, engine)
    assert completion.handle.tokens == whole
    assert completion.scores == complete(Request("c", whole, score_ids=(1, 2))).scores


def test_only_a_kept_handle_can_be_a_parent():
    engine = make_engine()
    handle = complete(Request("a", (1,), sampling=GREEDY, keep=True), engine).handle
    child = Request("b", (2,), parent=handle, sampling=GREEDY)
    engine.submit([child])
    engine.release(handle)
    assert [completion.id for completion in drain(engine)] == ["b"]
    with pytest.raises(ValueError, match="not kept"):
        engine.submit([child])
    with pytest.raises(ValueError, match="not kept"):
        engine.release(handle)


def drain(engine):
    completions = []
    while engine.pending:
        completions += engine.step()
    return completions


def test_slots_are_refilled_while_others_decode():
    """One long request among many short ones: it must not hold them up."""
    engine = make_engine()
    engine.submit([Request("long", (1,), sampling=Sampling(temperature=0.0, max_tokens=40))])
    engine.submit(
        Request(index, (1, index), sampling=Sampling(temperature=0.0, max_tokens=2))
        for index in range(20)
    )
    assert engine.pending == 21
    assert [completion.id for completion in drain(engine)][-1] == "long"
    assert engine.stats.generated == 40 + 20 * 2
    assert engine.pending == 0


def test_stats_count_tokens_without_padding():
    engine = make_engine()
    requests = [
        Request(index, (1, 2, 3), sampling=Sampling(max_tokens=2), key=(0, index))
        for index in range(4)
    ]
    run_all(engine, [*requests, Request("score", (1,) * 20, score_ids=(1,))])
    # The prompt of the four is shared; admission, scoring and one decode call.
    assert engine.stats == EngineStats(generated=8, prefilled=3 + 20, calls=3)


def test_other_weights_need_no_compilation(caplog):
    request = Request("a", (1, 2, 3), sampling=GREEDY)
    engine = make_engine()
    before = complete(request, engine)
    other = init_params(CONFIG, jax.random.key(2))
    jax.block_until_ready(other)
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        engine.set_params(other)
        after = complete(request, engine)
        assert complete(request, make_engine(other)) == after
    assert "Compiling" not in caplog.text
    assert after.tokens != before.tokens


def test_weights_cannot_change_under_a_request():
    engine = make_engine()
    engine.submit([Request("a", (1,), sampling=GREEDY)])
    with pytest.raises(ValueError, match="pending"):
        engine.set_params(PARAMS)


def test_the_cache_is_updated_in_place():
    slots = programs.empty_slots(CONFIG, 8, MAX_LENGTH)
    size = sum(array.nbytes for array in jax.tree.leaves(slots))
    compiled = programs.decode.lower(CONFIG, 4, PARAMS, slots, np.int32(0)).compile()
    assert compiled.memory_analysis().alias_size_in_bytes == size


@pytest.mark.parametrize("tokens", [(1, 61), (-1,)])
def test_a_token_outside_of_the_vocabulary_is_the_users_error(tokens):
    with pytest.raises(UserError, match="vocabulary of 61"):
        make_engine().submit([Request("a", tokens, sampling=GREEDY)])


def test_sizes_must_be_positive():
    with pytest.raises(UserError, match="num_slots"):
        Engine(CONFIG, PARAMS, num_slots=0)
