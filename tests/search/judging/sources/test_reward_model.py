"""A reward model as a judge: what it reads, and the scale of its scores."""

import math

import pytest

from stair_jax.decoding.score_requests import ScoreCompletion
from stair_jax.search.judging.judges import Judge, JudgeSettings
from stair_jax.search.judging.sources.reward_model import RewardModelSource
from stair_jax.text import steps
from stair_jax.text.chat import encode_prompt

TEXT = steps.format_answer([("Plan", "Think.")], "Conclusion: [SAFE]")


def one(request):
    return ScoreCompletion(request.id, 1.0)


def test_scores_are_centred_and_scaled(tokenizer, ask):
    source = RewardModelSource(tokenizer, JudgeSettings(prm_center=2.0, prm_scale=4.0))
    for value, score in ((2.0, 0.0), (6.0, math.tanh(1)), (-1e9, -1.0)):
        scoring, _ = ask(source, "safety", lambda r, v=value: ScoreCompletion(r.id, v))
        assert scoring.score == pytest.approx(score) and not scoring.unreadable
    scoring, _ = ask(source, "safety", lambda r: ScoreCompletion(r.id, math.nan))
    assert scoring.score is None and scoring.unreadable == 1


def test_our_models_read_the_steps_with_their_tags(tokenizer, ask):
    source = RewardModelSource(tokenizer, JudgeSettings())
    _, (request,) = ask(source, "helpfulness", one, answer="x", text=TEXT)
    prompt = encode_prompt(tokenizer, "Why?")
    expected = TEXT.replace("Conclusion: [SAFE]", "Conclusion (quoted) SAFE]")
    assert list(request.tokens) == [*prompt, *tokenizer.encode_answer(expected)]
    assert request.service == "prm"
    clean = TEXT.replace("Conclusion: [SAFE]", "It is done.")
    _, (request,) = ask(source, "helpfulness", one, answer="x", text=clean)
    assert list(request.tokens) == [*prompt, *tokenizer.encode_answer(clean)]


def test_other_models_read_a_conversation_as_transformers_encodes_it(chat_tokenizer, ask):
    source = RewardModelSource(chat_tokenizer, JudgeSettings(), is_structured=False)
    _, (request,) = ask(source, "helpfulness", one, answer="It is so.", text=TEXT)
    turns = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "It is so."}]
    encoded = chat_tokenizer.hf.apply_chat_template(turns, return_dict=False)
    assert list(request.tokens) == list(encoded)
    _, (request,) = ask(source, "helpfulness", one, answer="<|eot_id|>")
    assert list(request.tokens).count(chat_tokenizer.hf.convert_tokens_to_ids("<|eot_id|>")) == 2


def test_an_answer_without_tags_is_read_where_its_turn_ends(tokenizer, ask):
    source = RewardModelSource(tokenizer, JudgeSettings())
    _, (request,) = ask(source, "helpfulness", lambda r: ScoreCompletion(r.id, 1.0), answer="So.")
    prompt = encode_prompt(tokenizer, "Why?")
    assert list(request.tokens) == [*prompt, *tokenizer.encode_answer("So."), tokenizer.end_id]


@pytest.mark.parametrize(("is_structured", "read"), [(True, "whole"), (False, "output")])
def test_a_judge_reads_the_whole_answer_where_a_source_does(tokenizer, is_structured, read):
    settings = JudgeSettings(source="policy", helpfulness_prompts_source=("policy", "prm"))
    sources = {"prm": RewardModelSource(tokenizer, settings, is_structured)}
    judge = Judge(tokenizer, settings, sources)
    assert judge.reads("helpfulness", "output", "whole") == read
    assert judge.reads("safety", "output", "whole") == "output"
