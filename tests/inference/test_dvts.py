"""DVTS: independent beams of width 1, of which the best answer wins; no handle is left."""

import math

import pytest

from stair_jax.data.records import Prompt
from stair_jax.decoding.driver import Driver, run_tasks
from stair_jax.decoding.requests import Request, request_key
from stair_jax.inference.beam_search import BeamSearch
from stair_jax.inference.candidates import Candidate, Scored, TestTimeSettings, end_ids
from stair_jax.inference.dvts import Dvts, dvts
from stair_jax.inference.scorers import SelfReward
from stair_jax.inference.scoring import FunctionScorer
from stair_jax.search.judging.judges import Judge, JudgeSettings
from stair_jax.search.judging.reward import SafetyReward
from stair_jax.testing.scripted_engine import RandomReplies
from stair_jax.text import steps
from stair_jax.text.chat import encode_prompt

PROMPTS = [Prompt(f"p{i}", f"question {i}?", "safety") for i in range(6)]
SETTINGS = TestTimeSettings(successors=3, width=4, max_depth=4, max_answer_tokens=600)


@pytest.fixture
def fewest_b(tokenizer):
    """Scores by content: steps titled A are good, those titled B bad."""

    def score(candidates):
        texts = [tokenizer.decode(c.tokens) for c in candidates]
        return [Scored(float(t.count("Title: A") - t.count("Title: B"))) for t in texts]

    return score


def beams(engine, tokenizer, prompt, score, seed):
    """Results of the beam searches of width 1 that DVTS should consist of."""
    settings = TestTimeSettings(successors=3, width=1, max_depth=4, max_answer_tokens=600)
    tasks = [
        BeamSearch(
            engine,
            tokenizer,
            prompt,
            FunctionScorer(score),
            settings,
            seed,
            path=("subtree", number),
        )
        for number in range(4)
    ]
    return list(run_tasks(Driver(engine), tasks))


@pytest.mark.parametrize("p_end", [0.1, 0.5])
def test_the_answer_is_the_best_of_independent_beams_of_width_one(
    tokenizer, make_engine, fewest_b, p_end
):
    results = dvts(make_engine(0, p_end), tokenizer, PROMPTS, fewest_b, SETTINGS, seed=3)
    for prompt, result in zip(PROMPTS, results, strict=True):
        alone = beams(make_engine(1, p_end), tokenizer, prompt, fewest_b, 3)
        best = max(alone, key=lambda beam: beam.score)  # all answers are whole
        assert (result.text, result.tokens, result.score) == (best.text, best.tokens, best.score)
        assert result.generated_tokens == sum(beam.generated_tokens for beam in alone)
        assert result.generated_steps == sum(beam.generated_steps for beam in alone)
        assert len({beam.tokens for beam in alone}) > 1  # random keys of their own


def reference_subtree(tokenizer, prompt, score, number, seed, p_end):
    """(score, answer) of one subtree in plain Python: the best of three next steps is kept."""
    replies, ends = RandomReplies(tokenizer, p_end), end_ids(tokenizer)
    rendered = tuple(encode_prompt(tokenizer, prompt.prompt))
    tokens, path = (), ("subtree", number)
    for depth in range(SETTINGS.max_depth + 1):
        whole = depth == SETTINGS.max_depth
        stops = ends if whole else (tokenizer.tags.reasoning_close, *ends)
        found = []
        for sample in range(1 if whole else SETTINGS.successors):
            key = request_key(seed, prompt.id, *path, "beam", sample)
            sampling = SETTINGS.sampling(SETTINGS.max_answer_tokens, stops)
            sampled, _ = replies.write(
                Request((), (*rendered, *tokens), sampling=sampling, key=key)
            )
            answer = (*tokens, *sampled)
            (scored,) = score([Candidate(prompt, rendered, answer, (), "open")])
            found.append((scored.value, -sample, answer))  # ties go to the first
        best, sample, tokens = max(found)
        path = (*path, -sample)
        if tokens[-1] in ends:
            break
    return best, tokens


@pytest.mark.parametrize("p_end", [0.1, 0.5])
def test_the_answer_is_that_of_a_plain_reference(tokenizer, make_engine, fewest_b, p_end):
    results = dvts(make_engine(0, p_end), tokenizer, PROMPTS, fewest_b, SETTINGS, seed=3)
    for prompt, result in zip(PROMPTS, results, strict=True):
        subtrees = [
            reference_subtree(tokenizer, prompt, fewest_b, number, 3, p_end) for number in range(4)
        ]
        best = max(score for score, _ in subtrees)
        assert result.score == best
        assert result.tokens == next(tokens for score, tokens in subtrees if score == best)


def test_each_round_is_as_costly_as_that_of_a_beam_search(tokenizer, make_engine, fewest_b):
    engine = make_engine()
    engine.replies.reply = lambda request, text: (
        steps.format_step("A", "x")
        if tokenizer.tags.reasoning_close in request.sampling.stop_ids
        else steps.format_output("end")
    )
    (result,) = dvts(engine, tokenizer, PROMPTS[:1], fewest_b, SETTINGS, seed=0)
    # Four rounds of 4 x 3 steps each; then each subtree's answer is sampled to the end.
    assert len(engine.seen) == 4 * 12 + 4
    rendered = tuple(encode_prompt(tokenizer, PROMPTS[0].prompt))
    assert all(request.sequence[: len(rendered)] == rendered for request in engine.seen)
    assert len(steps.parse(result.text).steps) == 4


def test_no_subtree_is_dropped_for_another_one(tokenizer, make_engine):
    """A score that likes one subtree alone: the others still go on to their ends."""
    paths = []

    def score(candidates):
        paths.extend(candidate.path for candidate in candidates)
        return [Scored(float(candidate.path[1] == 2)) for candidate in candidates]

    engine = make_engine(p_end=0.0)
    engine.replies.reply = lambda request, text: (
        None
        if tokenizer.tags.reasoning_close in request.sampling.stop_ids
        else steps.format_output("end")
    )
    (result,) = dvts(engine, tokenizer, PROMPTS[:1], score, SETTINGS, seed=0)
    assert result.score == 1.0
    depths = {number: max(len(p) for p in paths if p[1] == number) for number in range(4)}
    assert depths == dict.fromkeys(range(4), 2 + 5)


def test_an_answer_without_an_output_block_does_not_win(tokenizer, make_engine):
    """The subtree with the highest score is cut off in its first step."""
    engine = make_engine(p_end=1.0)
    cut = set()

    def score(candidates):
        cut.update(c.path[1] for c in candidates if c.state == "cut")
        return [Scored(9.0 if c.state == "cut" else 1.0) for c in candidates]

    engine.replies.reply = lambda request, text: (
        "x" * 700 if request.id[1] == 0 else None  # (ticket, subtree, ...)
    )
    (result,) = dvts(engine, tokenizer, PROMPTS[:1], score, SETTINGS, seed=0)
    assert cut == {0} and result.score == 1.0 and result.text.endswith("<|/Output|>")


def test_results_depend_on_prompt_and_seed_alone(tokenizer, make_engine, fewest_b):
    together = dvts(make_engine(1), tokenizer, PROMPTS, fewest_b, SETTINGS, seed=5)
    alone = dvts(make_engine(2), tokenizer, PROMPTS[2:3], fewest_b, SETTINGS, seed=5)
    other = dvts(make_engine(2), tokenizer, PROMPTS[2:3], fewest_b, SETTINGS, seed=6)
    assert alone == together[2:3] and alone != other


def test_missing_scores_are_counted_over_all_subtrees(tokenizer, make_engine):
    def score(candidates):
        return [Scored(math.nan) for _ in candidates]

    engine = make_engine(p_end=1.0)
    (result,) = dvts(engine, tokenizer, PROMPTS[:1], score, SETTINGS, seed=0)
    assert result.score == -math.inf and 4 <= result.unscored <= 12


def test_a_search_that_is_cancelled_gives_back_all_it_kept(tokenizer, make_engine, fewest_b):
    engine = make_engine(0, p_end=0.0)
    driver = Driver(engine)
    scorer = FunctionScorer(fewest_b)
    ticket = driver.add(Dvts(engine, tokenizer, PROMPTS[0], scorer, SETTINGS, 0))
    for _ in range(8):
        driver.step()
    assert engine.handles
    driver.cancel(ticket)
    assert not engine.handles and not engine.pending


def test_self_reward_judges_all_subtrees_by_one_kept_prompt(tokenizer, make_engine):
    engine, kept = make_engine(), []
    engine.replies.reply = lambda request, text: (
        "Conclusion: [SAFE]"
        if request.id[-1] == "safety"
        else "Conclusion: [5]"
        if request.id[-1] == "helpfulness"
        else steps.format_output("yes")
    )
    settings = JudgeSettings(
        mode="generative",
        helpfulness_template="rating",
        safety_template="verdict",
        max_tokens=60,
    )
    judge = Judge(tokenizer, settings)
    scorer = SelfReward(engine, judge, SafetyReward(), SETTINGS, seed=0)
    keep = engine.keep

    def counted(tokens, parent=None, adapter=None):
        kept.append(parent is None)
        return keep(tokens, parent, adapter)

    engine.keep = counted
    (result,) = dvts(engine, tokenizer, PROMPTS[:1], scorer, SETTINGS, seed=0)
    assert result.score == 3.0
    # Of each question a handle for the run and one for the prompt; then a root for each subtree.
    assert kept[:8] == [True, False] * 2 + [True] * SETTINGS.width
    assert kept.count(True) == 2 + SETTINGS.width
