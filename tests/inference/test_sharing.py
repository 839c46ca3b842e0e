"""Sharing of prefixes in the engine's cache; `conftest.py` checks that all handles are released."""

import pytest

from stair_jax.data.records import Prompt
from stair_jax.decoding.engine import Engine
from stair_jax.inference.beam_search import beam_search
from stair_jax.inference.best_of_n import best_of_n
from stair_jax.inference.candidates import Scored, TestTimeSettings
from stair_jax.inference.scorers import SelfReward
from stair_jax.search.judging.judges import Judge, JudgeSettings
from stair_jax.search.judging.reward import SafetyReward
from stair_jax.testing.tiny_models import tiny_model
from stair_jax.text import steps
from stair_jax.text.chat import encode_prompt

PROMPTS = [Prompt(f"p{i}", f"question {i}?", "safety") for i in range(3)]


def longest(candidates):
    return [Scored(float(len(candidate.tokens))) for candidate in candidates]


def test_answers_to_a_prompt_share_it(tokenizer, make_engine):
    engine = make_engine()
    best_of_n(engine, tokenizer, PROMPTS, longest, TestTimeSettings(n=5), seed=0)
    for index, prompt in enumerate(PROMPTS):
        asked = [request for request in engine.seen if request.id[0] == index]
        (parent,) = {request.parent for request in asked}
        assert parent.tokens == tuple(encode_prompt(tokenizer, prompt.prompt))
        assert len(asked) == 5 and all(request.tokens == () for request in asked)


def test_beams_go_on_from_what_was_sampled(tokenizer, make_engine):
    engine = make_engine(p_end=0.1)
    settings = TestTimeSettings(successors=3, width=2, max_depth=4)
    most = []

    def score(candidates):
        most.append(len(engine.handles))
        return [Scored(float(candidate.state == "open")) for candidate in candidates]

    beam_search(engine, tokenizer, PROMPTS[:1], score, settings, seed=0)
    depths = set()
    for request in engine.seen:
        assert request.tokens == ()
        depth, parent = 0, request.parent
        while parent.parent is not None:  # up to the handle of the prompt
            assert parent.tokens[: len(parent.parent.tokens)] == parent.parent.tokens
            depth, parent = depth + 1, parent.parent
        depths.add(depth)
    assert depths == {0, 1, 2, 3, 4}
    # The beam, and its successors that were just sampled.
    assert len(most) == 5 and max(most) <= 2 + 2 * 3


def test_judgements_of_a_prompt_share_its_beginning(tokenizer, make_engine):
    engine = make_engine()
    engine.replies.reply = lambda request, text: (
        "Conclusion: [SAFE]"
        if isinstance(request.id, tuple) and request.id[-1] == "safety"
        else "Conclusion: [5]"
        if isinstance(request.id, tuple) and request.id[-1] == "helpfulness"
        else steps.format_output("yes")
    )
    settings = JudgeSettings(
        mode="generative",
        helpfulness_template="rating",
        safety_template="verdict",
        max_tokens=60,
    )
    judge = Judge(tokenizer, settings)
    settings = TestTimeSettings(successors=3, width=2, max_depth=1)
    score = SelfReward(engine, judge, SafetyReward(), settings, seed=0)
    (result,) = beam_search(engine, tokenizer, PROMPTS[:1], score, settings, seed=0)
    assert result.score == 3.0
    asked = [request for request in engine.seen if request.id[-1] in ("safety", "helpfulness")]
    assert asked and all(len(request.parent.tokens) > 300 for request in asked)


@pytest.fixture(scope="module")
def small_model(tokenizer):
    config, params = tiny_model(tokenizer.vocab_size, num_hidden_layers=1)
    # Makes sampled steps end from time to time.
    head = params["head"].at[tokenizer.tags.reasoning_close].multiply(2)
    return config, params | {"head": head}


def test_a_cache_that_is_too_small_for_all_changes_nothing(tokenizer, small_model):
    """With a real engine; restricted to few tokens, so that rounding changes no sample."""
    settings = TestTimeSettings(
        n=4,
        successors=3,
        width=2,
        max_depth=3,
        temperature=1.0,
        top_p=1.0,
        top_k=8,
        max_step_tokens=30,
        max_answer_tokens=40,
    )
    found, stats = [], []
    for cache_tokens in (160, 4096):
        engine = Engine(
            *small_model,
            num_slots=4,
            max_length=64,
            cache_tokens=cache_tokens,
            prefill_rows=2,
            prefill_width=16,
        )
        for search in (best_of_n, beam_search):
            found.append(search(engine, tokenizer, PROMPTS, longest, settings, seed=3))
        assert not engine._handles and not engine.pending
        stats.append(engine.stats)
    assert found[0] == found[2] and found[1] == found[3]
    assert max(result.generated_steps for result in found[1]) > 9  # more than one round
    # With a large cache, a prompt is prefilled once in each of the two searches.
    prompt_tokens = sum(len(encode_prompt(tokenizer, prompt.prompt)) for prompt in PROMPTS)
    assert stats[1].prefilled < 3 * prompt_tokens < stats[1].reused
    assert stats[0].prefilled > stats[1].prefilled
