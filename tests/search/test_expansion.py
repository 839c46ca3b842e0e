"""Which samples of an expansion become children."""

from collections import Counter

import pytest

from stair_jax.decoding.requests import Completion
from stair_jax.search.expansion import ExpansionSamples, whole_characters

EURO = "€".encode()  # three bytes


def cut(engine, tokens, finish="length"):
    return Completion(0, tuple(tokens), (-1.0,) * len(tokens), finish, handle=engine.keep(tokens))


@pytest.mark.parametrize("number", [1, 2])
def test_a_step_that_is_cut_within_a_character_ends_before_it(tokenizer, make_engine, number):
    engine = make_engine()
    whole = tokenizer.encode_text("a€")
    assert len(whole) == 1 + len(EURO)
    step = whole_characters(cut(engine, whole[: 1 + number]), tokenizer.decode, engine)
    assert step.tokens == tuple(whole[:1]) and len(step.logps) == 1
    assert step.handle.tokens == step.tokens and engine.handles == {step.handle}


def test_other_steps_stay_as_they_were_sampled(tokenizer, make_engine):
    engine = make_engine()
    text = tokenizer.encode_text("a€")
    for tokens, finish in ((text, "length"), (text[:2], "stop"), (text[2:3] * 9, "length")):
        step = cut(engine, tokens, finish)
        assert whole_characters(step, tokenizer.decode, engine).tokens == step.tokens


@pytest.mark.parametrize(("keep_cut", "kept"), [(True, [0, 1]), (False, [0])])
def test_equal_steps_are_one_child_and_empty_ones_none(make_engine, keep_cut, kept):
    engine, counts = make_engine(), Counter()
    found = [cut(engine, [1], "stop"), cut(engine, [2]), cut(engine, [1], "stop"), cut(engine, [2])]
    samples = ExpansionSamples(0, 5, dict(enumerate([*found, Completion(0, finish="length")])))
    assert samples.distinct_steps(engine, counts, keep_cut) == [found[index] for index in kept]
    assert engine.handles == {found[index].handle for index in kept}
    assert counts == (
        {"duplicate_steps": 2, "kept_cut_steps": 1, "cut_steps": 1}
        if keep_cut
        else {"duplicate_steps": 1, "cut_steps": 3}
    )
