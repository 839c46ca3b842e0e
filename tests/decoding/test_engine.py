"""The engine against a dense forward pass, and against itself under other loads."""

import logging
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from stair_jax.decoding import programs
from stair_jax.decoding.driver import run_all
from stair_jax.decoding.engine import Engine
from stair_jax.decoding.engine_config import EngineConfig
from stair_jax.decoding.requests import Request, Sampling, request_key
from stair_jax.decoding.slots import WIDTH
from stair_jax.errors import UserError
from stair_jax.models.config import ModelConfig
from stair_jax.models.serving import fused_params
from stair_jax.models.transformer import apply, init_params, output_embedding
from stair_jax.testing.device_programs import noted_prefills, wrapped_program

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


def make_engine(params=PARAMS, **sizes):
    """An engine whose sizes make each row bitwise independent of the other rows."""
    usual = {"num_slots": 8, "page_size": 4, "prefill_rows": 4, "prefill_width": 8}
    usual["steps_per_call"] = 4
    return Engine(CONFIG, params, max_length=MAX_LENGTH, **(usual | sizes))


def random_tokens(length, seed):
    return tuple(np.random.default_rng(seed).integers(0, CONFIG.vocab_size, length).tolist())


def complete(request, engine=None):
    return run_all(engine or make_engine(), [request])[request.id]


@jax.jit
def dense_log_softmax(tokens):
    positions = jnp.arange(tokens.shape[1])[None]
    hidden = apply(CONFIG, PARAMS, tokens, positions)
    return jax.nn.log_softmax(hidden @ output_embedding(PARAMS, CONFIG).T)


def next_token_logps(sequence):
    """Log-probabilities [V] of the next token, from one program over padded sequences."""
    tokens = np.zeros((1, MAX_LENGTH), np.int32)
    tokens[0, : len(sequence)] = sequence
    return np.asarray(dense_log_softmax(tokens)[0, len(sequence) - 1])


def mixed_requests(count=24):
    """Requests of many lengths and settings; some share a prompt, some only score it."""
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


def assert_same_but_for_rounding(found, expected):
    """Asserts equal tokens, and log-probabilities and scores equal up to rounding."""
    assert found.keys() == expected.keys()
    for id, completion in found.items():
        other = expected[id]
        assert (completion.tokens, completion.finish) == (other.tokens, other.finish)
        np.testing.assert_allclose(completion.logps, other.logps, atol=1e-4)
        np.testing.assert_allclose(completion.scores, other.scores, atol=1e-4)


def test_results_do_not_depend_on_company_slot_or_order():
    """Bitwise equal: all at once, alone, in reverse order, and submitted one by one."""
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


@pytest.mark.parametrize(
    "sizes",
    [
        {"num_slots": 3, "page_size": 16, "prefill_width": 5},
        {"num_slots": 24, "page_size": 1},
        {"num_slots": 4, "cache_tokens": 60},
    ],
    ids=str,
)
def test_results_do_not_depend_on_sizes(sizes):
    requests = mixed_requests()
    engine = make_engine(**sizes)
    assert_same_but_for_rounding(run_all(engine, requests), run_all(make_engine(), requests))
    assert (engine.stats.preempted > 0) == ("cache_tokens" in sizes)


def test_a_round_has_as_many_full_prefills_as_are_wanted(monkeypatch):
    """With several prefill sizes, as on accelerators."""
    requests = mixed_requests()
    expected = run_all(make_engine(), requests)
    monkeypatch.setattr(EngineConfig, "prefill_sizes", (4, 2, 1))
    engine = make_engine()
    with noted_prefills(engine) as calls:
        assert_same_but_for_rounding(run_all(engine, requests), expected)
    rows = [spans[:, 1] for _, spans, _ in calls]  # tokens of each row
    assert [len(tokens) for tokens in rows[:2]] == [4, 4]  # the maximum per round
    assert {len(tokens) for tokens in rows} == {4, 2, 1}
    assert min(map(min, rows)) > 0  # no row is empty


def grow_tree(engine, depth=3):
    """Completions by path of a small tree of kept sequences with two children each."""
    found, level = {}, {(): engine.keep(random_tokens(7, 3))}
    for _ in range(depth):
        requests = [
            Request((*path, number), (), parent=handle, sampling=Sampling(max_tokens=5),
                    key=request_key(5, *path, number), keep=True)
            for path, handle in level.items()
            for number in range(2)
        ]  # fmt: skip
        completions = run_all(engine, requests)
        found |= {
            path: completion.__class__(path, completion.tokens, completion.logps, completion.finish)
            for path, completion in completions.items()
        }
        level |= {path: completion.handle for path, completion in completions.items()}
    return found


def test_eviction_and_preemption_change_cost_only():
    roomy, tight = make_engine(), make_engine(cache_tokens=60, num_slots=4)
    expected = grow_tree(roomy)
    assert len(expected) == 2 + 4 + 8
    assert_same_but_for_rounding(grow_tree(tight), expected)
    assert (roomy.stats.evicted, tight.stats.evicted > 0) == (0, True)
    assert tight.stats.prefilled > roomy.stats.prefilled


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
    alone = complete(Request("b", whole, sampling=sampling, key=(3, 4)))
    assert_same_but_for_rounding({"b": child}, {"b": alone})
    scored = Request("c", own, parent=handle, score_ids=(1, 2), keep=True)
    completion = complete(scored, engine)
    assert completion.handle.tokens == whole
    alone = complete(Request("c", whole, score_ids=(1, 2)))
    np.testing.assert_allclose(completion.scores, alone.scores, atol=1e-4)


def test_only_a_kept_handle_can_be_a_parent():
    engine = make_engine()
    handle = complete(Request("a", (1,), sampling=GREEDY, keep=True), engine).handle
    child = Request("b", (2,), parent=handle, sampling=GREEDY)
    engine.submit([child])
    engine.release(handle)
    assert [completion.id for completion in drain(engine)] == ["b"]
    with pytest.raises(ValueError, match="handle of this engine"):
        engine.submit([child])
    with pytest.raises(ValueError, match="handle of this engine"):
        engine.release(handle)


def drain(engine):
    completions = []
    while engine.pending:
        completions += engine.step()
    return completions


def test_slots_are_refilled_while_others_decode():
    """One long request among many short ones must not delay them."""
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
    # The last token of a prompt goes through the decode program.
    assert (engine.stats.generated, engine.stats.prefilled) == (8, 4 * 2 + 19)
    assert engine.stats.busy_steps == 8 <= engine.stats.slot_steps


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
    state = programs.empty_state(CONFIG, "gather", 8, 40, 4, "float32")
    fused = fused_params.fuse_params(CONFIG, PARAMS, stacked=False)
    size = sum(array.nbytes for array in jax.tree.leaves(state))
    jitted = programs.get_programs("cpu")
    rows = _, table = np.zeros((8, WIDTH), np.int32), np.zeros((8, 12), np.int32)
    calls = (
        *(
            jitted.decode.lower(CONFIG, "gather", 4, decode_mode, fused, state, *rows, *rows)
            for decode_mode in get_args(programs.DecodeMode)
        ),
        jitted.prefill.lower(CONFIG, "gather", fused, state, table[:, :8], table[:, :2], table),
        jitted.copy_pages.lower(CONFIG, "gather", 40, state, table[0], table[0]),
    )
    for call in calls:
        memory = call.compile().memory_analysis()
        assert memory.alias_size_in_bytes == size


def test_a_quick_call_leaves_what_it_cannot_sample(monkeypatch):
    """As on a GPU: calls without branches, and a full call for rows that need a branch."""
    requests, modes = mixed_requests(), []
    expected = run_all(make_engine(), requests)
    monkeypatch.setattr(EngineConfig, "decode_mode", "quick")
    engine = make_engine()

    def decode(program, config, backend, num_steps, decode_mode, *rest):
        modes.append(decode_mode)
        return program(config, backend, num_steps, decode_mode, *rest)

    with wrapped_program(engine, "decode", decode):
        assert_same_but_for_rounding(run_all(engine, requests), expected)
    assert {*modes} == {"quick", "full"}


def test_a_row_that_a_quick_call_could_not_sample_waits_for_the_next(monkeypatch):
    """Rounding may let a row be sampled one step later in the same call, as other rows move on."""
    requests, steps = mixed_requests(), 5  # so that no other test has compiled the program
    expected = run_all(make_engine(steps_per_call=steps), requests)
    sample_quickly = programs.sample_quickly

    def unsteady(logits, rows, positions):
        tokens, logps, valid = sample_quickly(logits, rows, positions)
        others = jnp.sum(positions) - positions
        # Greedy rows and those with a top-k never stall, which the host counts on.
        may_stall = (rows.temperature > 0) & (rows.top_k == 0)
        return tokens, logps, valid & ~(may_stall & (others % 3 == 0))

    monkeypatch.setattr(programs, "sample_quickly", unsteady)
    monkeypatch.setattr(EngineConfig, "decode_mode", "quick")
    assert_same_but_for_rounding(run_all(make_engine(steps_per_call=steps), requests), expected)


def test_handles_are_used_again_and_shortened():
    engine = make_engine()
    root = engine.keep((1, 2, 3, 4, 5, 6))
    kept = Request("a", (), parent=root, sampling=GREEDY, keep=True)
    handle = complete(kept, engine).handle
    before = engine.stats.prefilled
    short = engine.shorten(handle, 11)
    assert short.tokens == handle.tokens[:11]
    child = Request("b", (), parent=short, sampling=GREEDY)
    found = complete(child, engine)
    assert engine.stats.prefilled == before
    assert_same_but_for_rounding(
        {"b": found}, {"b": complete(Request("b", short.tokens, sampling=GREEDY))}
    )
    with pytest.raises(ValueError, match="no handle"):
        engine.shorten(short, 5)
    with pytest.raises(ValueError, match="handle of this engine"):
        engine.release(handle)
    for left in (root, short):
        engine.release(left)
    assert engine.free == engine.capacity


def test_a_handle_knows_nothing_but_its_tokens_before_it_is_used():
    engine = make_engine()
    root = engine.keep((1, 2, 3))
    child = engine.keep((4,), root)
    assert child.tokens == (1, 2, 3, 4)
    assert engine.stats.calls == 0 and engine.pending == 0
    with pytest.raises(UserError, match="at least one token"):
        engine.keep(())
    with pytest.raises(ValueError, match="the parent is not a handle"):
        make_engine().keep((1,), root)


def test_other_weights_forget_the_cache():
    engine, other = make_engine(), init_params(CONFIG, jax.random.key(2))
    handle = engine.keep(random_tokens(9, 1))
    request = Request("a", (5,), parent=handle, sampling=GREEDY)
    complete(request, engine)
    engine.set_params(other)
    assert complete(request, engine) == complete(
        Request("a", request.sequence, sampling=GREEDY), make_engine(other)
    )


def test_the_first_of_two_trees_goes_first():
    engine = make_engine(num_slots=1, prefill_rows=1)
    sampling = Sampling(max_tokens=8)
    engine.submit(
        Request(number, (1, 2), sampling=sampling, priority=-number) for number in range(4)
    )
    assert [completion.id for completion in drain(engine)] == [3, 2, 1, 0]


@pytest.mark.parametrize("kv_dtype", ["int8", "float8_e4m3fn"])
def test_a_cache_of_eight_bits_gives_nearly_the_same(kv_dtype):
    requests = mixed_requests()
    expected = run_all(make_engine(), requests)
    found = run_all(make_engine(kv_dtype=kv_dtype), requests)
    first = [(found[id].logps[:1], expected[id].logps[:1]) for id in found if found[id].tokens]
    close = [abs(ours[0] - theirs[0]) < 0.1 for ours, theirs in first]
    assert sum(close) >= 0.8 * len(close)
    assert found != expected


def test_int8_weights_give_nearly_the_same():
    tokens = random_tokens(20, 7)
    request = Request("a", tokens, score_ids=tuple(range(1, 9)))
    exact = complete(request).scores
    np.testing.assert_allclose(
        complete(request, make_engine(weights="int8")).scores, exact, atol=0.2
    )


@pytest.mark.parametrize("tokens", [(1, 61), (-1,)])
def test_a_token_outside_of_the_vocabulary_is_the_users_error(tokens):
    with pytest.raises(UserError, match="vocabulary of 61"):
        make_engine().submit([Request("a", tokens, sampling=GREEDY)])


def test_sizes_must_be_positive():
    with pytest.raises(UserError, match="num_slots"):
        Engine(CONFIG, PARAMS, num_slots=0)


def test_a_cache_must_hold_a_sequence():
    with pytest.raises(UserError, match=r"raise runtime\.cache_tokens"):
        make_engine(cache_tokens=40)


def test_a_warm_engine_compiles_nothing_more_and_answers_the_same():
    requests = [
        Request(n, random_tokens(3 + 9 * n, n), sampling=PAPER, key=(n, 0)) for n in range(4)
    ]
    cold = run_all(make_engine(), requests)
    warm = make_engine()
    warm.device.warm_up()
    device = warm.device.programs
    compiled = [device.copy_pages, device.prefill, device.decode]
    before = [program._cache_size() for program in compiled]
    shared = warm.keep(random_tokens(6, 9))  # no whole page: its last one is copied
    children = [Request(("c", n), (n,), shared, PAPER, key=(n, 1)) for n in range(2)]
    found = run_all(warm, [*requests, *children])
    assert [program._cache_size() for program in compiled] == before
    assert {id: found[id] for id in cold} == cold
