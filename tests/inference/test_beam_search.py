import math

import pytest

from stair_jax.data.records import Prompt
from stair_jax.inference.beam_search import beam_search
from stair_jax.inference.candidates import Scored, TestTimeSettings
from stair_jax.text import steps

PROMPTS = [Prompt(f"p{i}", f"question {i}?", "safety") for i in range(4)]
SETTINGS = TestTimeSettings(successors=4, width=2, max_depth=4, max_answer_tokens=600)


def fewest_b(tokenizer):
    """Scores by content: steps titled A are good, those titled B bad."""

    def score(candidates):
        texts = [tokenizer.decode(c.tokens) for c in candidates]
        return [Scored(float(t.count("Title: A") - t.count("Title: B"))) for t in texts]

    return score


def test_only_the_best_answers_go_on(tokenizer, make_engine):
    rounds, value = [], fewest_b(tokenizer)

    def score(candidates):
        rounds.append(list(candidates))
        return value(candidates)

    results = beam_search(make_engine(p_end=0.2), tokenizer, PROMPTS[:1], score, SETTINGS, seed=0)
    kept = []
    for number, fresh in enumerate(rounds):
        if number:
            parents = [c.tokens for c in kept if c.state == "open"]
            assert all(any(c.tokens[: len(p)] == p for p in parents) for c in fresh)
            assert len(fresh) <= 4 * len(parents)
        pool = [c for c in kept if c.state != "open"] + fresh
        kept = sorted(pool, key=lambda c: -value([c])[0].value)[:2]
    (result,) = results
    assert len(rounds) > 2 and result.tokens == kept[0].tokens
    assert steps.is_well_formed(result.text) and result.score == value(kept)[0].value
    assert result.generated_tokens > len(result.tokens)


def test_each_round_is_as_costly_as_width_times_successors(tokenizer, make_engine):
    engine = make_engine(p_end=0.0)
    engine.replies.reply = lambda request, text: (
        None
        if tokenizer.tags.reasoning_close in request.sampling.stop_ids
        else steps.format_output("end")
    )
    (result,) = beam_search(engine, tokenizer, PROMPTS[:1], fewest_b(tokenizer), SETTINGS, seed=0)
    # Four rounds of eight steps each; then the two unfinished answers are sampled to the end.
    assert len(engine.seen) == 4 * 8 + 2 == result.generated_steps
    answer = steps.parse(result.text)
    assert len(answer.steps) == 4 and answer.final == "end"


def test_search_ends_when_the_kept_answers_have_ended(tokenizer, make_engine):
    engine = make_engine(p_end=1.0)
    (result,) = beam_search(engine, tokenizer, PROMPTS[:1], fewest_b(tokenizer), SETTINGS, seed=0)
    assert len(engine.seen) == 8 and result.text.endswith("<|/Output|>")


def test_exact_duplicates_are_scored_once(tokenizer, make_engine):
    engine = make_engine()
    engine.replies.reply = lambda request, text: steps.format_output("same")
    sizes = []

    def score(candidates):
        sizes.append(len(candidates))
        return [Scored(0.0) for _ in candidates]

    beam_search(engine, tokenizer, PROMPTS[:3], score, SETTINGS, seed=0)
    assert sizes == [1, 1, 1]


def test_results_depend_on_prompt_and_seed_alone(tokenizer, make_engine):
    score = fewest_b(tokenizer)
    together = beam_search(make_engine(disorder=1), tokenizer, PROMPTS, score, SETTINGS, seed=5)
    alone = beam_search(make_engine(disorder=2), tokenizer, PROMPTS[2:3], score, SETTINGS, seed=5)
    assert alone == together[2:3]


def test_steps_that_were_cut_off_are_not_continued(tokenizer, make_engine):
    settings = TestTimeSettings(max_step_tokens=5, max_depth=3)
    engine = make_engine()
    (result,) = beam_search(engine, tokenizer, PROMPTS[:1], fewest_b(tokenizer), settings, seed=0)
    assert len(engine.seen) == 8 and len(result.tokens) == 5


@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
def test_a_score_that_is_not_finite_is_kept_behind_all_others(tokenizer, make_engine, odd):
    """The best step by content gets no score: the search goes on with the others."""
    value, rounds = fewest_b(tokenizer), []

    def score(candidates):
        scores = value(candidates)
        best = max(range(len(scores)), key=lambda index: scores[index].value)
        rounds.append(candidates[best].tokens)
        return [Scored(odd) if index == best else one for index, one in enumerate(scores)]

    (result,) = beam_search(make_engine(p_end=0.2), tokenizer, PROMPTS[:1], score, SETTINGS, seed=0)
    assert result.tokens not in rounds and math.isfinite(result.score)
    assert result.unscored == len(rounds)
