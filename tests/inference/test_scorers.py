import jax
import numpy as np
import pytest

from stair_jax.data.records import Prompt
from stair_jax.inference.candidates import Candidate, TestTimeSettings
from stair_jax.inference.scorers import PrmScorer, SelfReward
from stair_jax.inference.scoring import score_candidates
from stair_jax.models import heads
from stair_jax.models.transformer import apply, init_params
from stair_jax.search.judging.judges import Judge, JudgeSettings
from stair_jax.search.judging.reward import SafetyReward
from stair_jax.testing.scripted_engine import ScriptedEngine, ZeroReplies
from stair_jax.testing.tiny_models import tiny_config
from stair_jax.text import steps
from stair_jax.text.chat import encode_prompt

CONFIG = tiny_config()
PROMPT = Prompt("p", "why?", "safety")


def candidate(tokenizer, text, state="done", number=0):
    return Candidate(
        PROMPT,
        tuple(encode_prompt(tokenizer, PROMPT.prompt)),
        tuple(tokenizer.encode_answer(text)),
        (number,),
        state,
    )


def test_prm_scores_do_not_depend_on_padding_or_company():
    params = {
        "model": init_params(CONFIG, jax.random.key(0)),
        "score": heads.init_score_head(CONFIG, jax.random.key(1)),
    }
    rng = np.random.default_rng(0)
    sequences = [rng.integers(0, 40, n).tolist() for n in (1, 5, 8, 9, 16, 20, 3)]
    scores = PrmScorer(CONFIG, params, rows=3, buckets=(8, 16)).score(sequences)
    padded = np.array([sequence + [39] * (20 - len(sequence)) for sequence in sequences])
    positions = np.broadcast_to(np.arange(20), padded.shape)
    hidden = jax.jit(apply, static_argnums=0)(CONFIG, params["model"], padded, positions)
    for row, (sequence, score) in enumerate(zip(sequences, scores, strict=True)):
        last = np.asarray(hidden)[row, len(sequence) - 1]
        expected = float(last @ np.asarray(params["score"]["kernel"]))
        assert score == pytest.approx(expected, abs=1e-4)
    assert len({round(score, 5) for score in scores}) == len(scores)
    prompt, answer = tuple(sequences[1]), tuple(sequences[6])
    scorer = PrmScorer(CONFIG, params, rows=3, buckets=(8, 16))
    whole = Candidate(PROMPT, prompt, answer, (), "done")
    (scored,) = score_candidates(ScriptedEngine(ZeroReplies()), scorer, [whole])
    assert [scored.value] == scorer.score([prompt + answer]) and scored.generated_tokens == 0


def self_reward(tokenizer, engine, **judge):
    settings = TestTimeSettings(max_answer_tokens=300)
    wordings = {"helpfulness_template": "rating", "safety_template": "verdict"}
    room = Judge(tokenizer, JudgeSettings(mode="generative", max_tokens=50, **wordings, **judge))
    scorer = SelfReward(engine, room, SafetyReward(), settings, seed=0)
    return lambda candidates: score_candidates(engine, scorer, candidates)


def by_answer(request, text):
    """A judge that says SAFE only to `good`, and rates everything 5."""
    if request.id[-1] == "safety":
        answer = text.rpartition("### Answer")[2]
        return "Conclusion: [SAFE]" if "good" in answer else "Conclusion: [UNSAFE]"
    return "Conclusion: [5]"


def test_self_reward_judges_final_answers(tokenizer, make_engine):
    engine = make_engine()
    engine.replies.reply = by_answer
    candidates = [
        candidate(tokenizer, steps.format_answer([("A", "x")], "good"), number=0),
        candidate(tokenizer, steps.format_answer([("good", "good")], "bad"), number=1),
        candidate(tokenizer, steps.format_step("A", "x"), "cut", number=2),
    ]
    good, bad, cut = self_reward(tokenizer, engine)(candidates)
    assert (good.value, bad.value, cut.value) == (3.0, -3.0, float("-inf"))
    assert good.generated_tokens > 0 and cut.generated_tokens == 0
    assert self_reward(tokenizer, engine, malformed=-2.0)(candidates)[2].value == -2.0


def test_self_reward_of_first_steps_is_that_of_one_rollout(tokenizer, make_engine):
    engine = make_engine()
    engine.replies.reply = lambda request, text: (
        steps.format_output("good") if request.id[-1] == "rollout" else by_answer(request, text)
    )
    (scored,) = self_reward(tokenizer, engine)(
        [candidate(tokenizer, steps.format_step("A", "x"), "open")]
    )
    rollout = len(tokenizer.encode_answer(steps.format_output("good")))
    assert scored.value == 3.0 and scored.generated_tokens > rollout


def test_self_reward_that_cannot_be_read_is_no_score(tokenizer, make_engine):
    engine = make_engine()
    engine.replies.reply = lambda request, text: "no idea"
    text = steps.format_answer([("A", "x")], "good")
    (scored,) = self_reward(tokenizer, engine, attempts=2, ask_closing=False)(
        [candidate(tokenizer, text)]
    )
    assert scored.value == float("-inf") and len(engine.seen) == 4
