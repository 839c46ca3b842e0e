"""The scripted engine answers and refuses as the real one does."""

import pytest

from stair_jax.decoding.driver import run_all
from stair_jax.decoding.engine import Engine
from stair_jax.decoding.requests import Request, Sampling
from stair_jax.errors import UserError
from stair_jax.testing.scripted_engine import RandomReplies, ScriptedEngine, ZeroReplies
from stair_jax.testing.tiny_models import tiny_model
from stair_jax.testing.tiny_tokenizers import byte_tokenizer
from stair_jax.text import steps

MAX_LENGTH = 40


@pytest.fixture(scope="module")
def tokenizer():
    return byte_tokenizer()


@pytest.fixture(scope="module")
def real():
    return Engine(*tiny_model(num_hidden_layers=1), num_slots=2, max_length=MAX_LENGTH)


@pytest.fixture
def engine():
    return ScriptedEngine(ZeroReplies(), max_length=MAX_LENGTH)


@pytest.mark.parametrize("kind", ["real", "engine"])
def test_completions_have_the_form_of_the_real_ones(kind, request):
    engine = request.getfixturevalue(kind)
    root = engine.keep((1, 2, 3))
    sampling = Sampling(temperature=0.0, max_tokens=5)
    found = run_all(
        engine,
        [
            Request("sampled", (4,), root, sampling, keep=True),
            Request("scored", (4,), root, score_ids=(5, 6)),
            Request("long", (0,) * (MAX_LENGTH - 5), root, sampling),
            Request("too long", (0,) * (MAX_LENGTH - 3), root, sampling),
        ],
    )
    forms = {
        name: (len(done.tokens), len(done.logps), len(done.scores), done.finish)
        for name, done in found.items()
    }
    assert forms == {
        "sampled": (5, 5, 0, "length"),
        "scored": (0, 0, 2, "scored"),
        "long": (2, 2, 0, "length"),
        "too long": (0, 0, 0, "too_long"),
    }
    handle = found["sampled"].handle
    assert handle.parent is root and handle.tokens == (1, 2, 3, 4, *found["sampled"].tokens)
    engine.release(handle)
    engine.release(root)


@pytest.mark.parametrize("kind", ["real", "engine"])
def test_what_cannot_be_is_refused_alike(kind, request):
    engine = request.getfixturevalue(kind)
    root = engine.keep((1, 2))
    for num_tokens in (0, 3):
        with pytest.raises(ValueError, match=f"no handle of {num_tokens} tokens"):
            engine.shorten(root, num_tokens)
    engine.release(root)
    with pytest.raises(UserError, match="at least one token"):
        engine.keep(())
    for use in (
        lambda: engine.release(root),
        lambda: engine.keep((1,), root),
        lambda: engine.submit([Request("a", (1,), root, score_ids=(1,))]),
    ):
        with pytest.raises(ValueError, match="not a handle of this engine"):
            use()


def test_answers_depend_on_tokens_and_key_alone(tokenizer):
    sampling = Sampling(max_tokens=200, stop_ids=(tokenizer.eos_id, tokenizer.tags.output_close))
    requests = [
        Request(i, (1, i % 3), sampling=sampling, key=(i // 3 % 4, 0), priority=i)
        for i in range(24)
    ]
    plain = run_all(ScriptedEngine(RandomReplies(tokenizer)), requests)
    mixed = run_all(ScriptedEngine(RandomReplies(tokenizer), disorder=5), requests)
    assert plain == mixed and list(plain) != list(mixed)
    texts = [tokenizer.decode(plain[i].tokens) for i in range(24)]
    assert texts[:12] == texts[12:] and len(set(texts)) == 12
    assert all(steps.final_answer(text) in set("abcdefgh") for text in texts)
    assert all(done.finish == "stop" for done in plain.values())


def test_a_request_that_stops_at_a_step_gets_one_step(tokenizer):
    tags = tokenizer.tags
    sampling = Sampling(max_tokens=200, stop_ids=(tags.reasoning_close, tags.output_close))
    requests = [Request(i, (1,), sampling=sampling, key=(i, 0)) for i in range(16)]
    ends = set()
    for done in run_all(ScriptedEngine(RandomReplies(tokenizer)), requests).values():
        inner = {tags.reasoning_close, tags.output_close} & set(done.tokens[:-1])
        assert done.finish == "stop" and not inner
        ends.add(done.tokens[-1])
    assert ends == {tags.reasoning_close, tags.output_close}


def test_a_reply_of_ones_own_is_closed_or_cut(tokenizer):
    replies = RandomReplies(tokenizer)
    replies.reply = lambda request, text: f"{text}!" if request.key == (1, 0) else "x" * 9
    sampling = Sampling(max_tokens=4, stop_ids=(tokenizer.eos_id,))
    question = tuple(tokenizer.encode_text("hi"))
    found = run_all(
        ScriptedEngine(replies),
        [
            Request(id, question, sampling=sampling, key=(int(id == "own"), 0))
            for id in ("own", "long")
        ],
    )
    assert tokenizer.decode(found["own"].tokens) == "hi!"
    assert found["own"].finish == "stop" and found["own"].tokens[-1] == tokenizer.eos_id
    assert tokenizer.decode(found["long"].tokens) == "xxxx" and found["long"].finish == "length"


def test_what_was_sampled_and_what_was_there_is_counted(engine):
    root = engine.keep(range(10))
    sampling = Sampling(max_tokens=3)
    engine.submit([Request(i, (1, 2), root, sampling) for i in range(4)])
    assert engine.free == engine.capacity - 4 * 12 and engine.pending == 4
    assert [done.id for done in engine.step()] == [0, 1, 2, 3]
    stats = engine.stats
    assert (stats.generated, stats.prefilled, stats.reused) == (12, 8, 40)
    assert engine.free == engine.capacity and len(engine.seen) == 4
