import pytest

from stair_jax.data.records import Prompt
from stair_jax.errors import UserError
from stair_jax.inference.best_of_n import best_of_n
from stair_jax.inference.candidates import Scored, TestTimeSettings
from stair_jax.text.steps import final_answer

PROMPTS = [Prompt(f"p{i}", f"question {i}?", "safety") for i in range(5)]
SETTINGS = TestTimeSettings(n=6, max_answer_tokens=400)


def by_letter(tokenizer):
    """Scores an answer by its letter: later letters are better."""
    return lambda candidates: [
        Scored(ord((final_answer(tokenizer.decode(c.tokens)) or "a")[0])) for c in candidates
    ]


def test_best_of_the_sampled_answers_is_taken(tokenizer, make_engine):
    engine, seen = make_engine(), []

    def score(candidates):
        seen.extend(candidates)
        return by_letter(tokenizer)(candidates)

    results = best_of_n(engine, tokenizer, PROMPTS, score, SETTINGS, seed=1)
    assert len(seen) == 5 * 6 == len(engine.seen)
    for prompt, result in zip(PROMPTS, results, strict=True):
        group = [c for c in seen if c.prompt is prompt]
        letters = [final_answer(tokenizer.decode(c.tokens)) for c in group if c.state == "done"]
        assert final_answer(result.text) == max(letters) == chr(int(result.score))
        assert result.tokens in [c.tokens for c in group]
        assert result.generated_tokens == sum(len(c.tokens) for c in group)
        assert result.generated_steps >= 6


def test_results_depend_on_prompt_and_seed_alone(tokenizer, make_engine):
    score = by_letter(tokenizer)
    together = best_of_n(make_engine(disorder=1), tokenizer, PROMPTS, score, SETTINGS, seed=1)
    alone = best_of_n(make_engine(disorder=2), tokenizer, PROMPTS[3:4], score, SETTINGS, seed=1)
    assert alone == together[3:4]
    other = best_of_n(make_engine(), tokenizer, PROMPTS, score, SETTINGS, seed=2)
    assert other != together


def test_answer_that_was_cut_off_loses_against_any_whole_one(tokenizer, make_engine):
    settings = TestTimeSettings(n=8, max_answer_tokens=40)

    def longest(candidates):
        states = {c.state for c in candidates}
        assert states == {"done", "cut"}
        return [Scored(float(len(c.tokens))) for c in candidates]

    (result,) = best_of_n(make_engine(), tokenizer, PROMPTS[:1], longest, settings, seed=0)
    assert len(result.tokens) < 40 and result.text.endswith("<|/Output|>")


def test_answer_without_an_output_block_loses_against_any_with_one(tokenizer, make_engine):
    engine = make_engine()
    engine.replies.reply = lambda request, text: "plain words" if request.key[0] % 2 else None

    def plain_words_first(candidates):
        assert {c.state for c in candidates} == {"done", "formless"}
        return [Scored(float(c.state == "formless")) for c in candidates]

    settings = TestTimeSettings(n=12, max_answer_tokens=600)
    (result,) = best_of_n(engine, tokenizer, PROMPTS[:1], plain_words_first, settings, seed=0)
    assert result.text.endswith("<|/Output|>") and result.score == 0.0


def test_cost_of_scoring_is_counted(tokenizer, make_engine):
    settings = TestTimeSettings(n=2)
    free, dear = (
        best_of_n(
            make_engine(),
            tokenizer,
            PROMPTS[:1],
            lambda candidates, cost=cost: [Scored(0.0, cost) for _ in candidates],
            settings,
            seed=0,
        )[0]
        for cost in (0, 10)
    )
    assert dear.generated_tokens == free.generated_tokens + 20
    assert dear.tokens == free.tokens


@pytest.mark.parametrize("setting", [{"n": 0}, {"width": 0}, {"successors": 0}, {"top_p": 0.0}])
def test_impossible_settings_are_refused(setting):
    with pytest.raises(UserError, match=next(iter(setting))):
        TestTimeSettings(**setting)


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), float("-inf")])
def test_a_score_that_is_not_finite_loses_against_any_and_is_counted(tokenizer, make_engine, odd):
    engine, seen = make_engine(), []

    def score(candidates):
        seen.extend(candidates)
        values = [-100.0 - number for number, _ in enumerate(candidates)]
        values[0] = values[2] = odd
        return list(map(Scored, values))

    (result,) = best_of_n(engine, tokenizer, PROMPTS[:1], score, SETTINGS, seed=1)
    scored = [n for n, c in enumerate(seen) if c.state == "done" and n not in (0, 2)]
    assert result.tokens == seen[scored[0]].tokens and result.score == -100.0 - scored[0]
    assert result.unscored == 2


def test_where_no_score_is_finite_the_first_answer_is_taken(tokenizer, make_engine):
    def score(candidates):
        return [Scored(float("nan"))] * len(candidates)

    (result,) = best_of_n(make_engine(), tokenizer, PROMPTS[:1], score, SETTINGS, seed=1)
    assert result.score == float("-inf") and result.unscored == SETTINGS.n
