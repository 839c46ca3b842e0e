"""Common prefixes of judge prompts are kept once and never change what a judge is asked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Backend
from transformers import PreTrainedTokenizerFast

from stair_jax.data.prompts import Prompt
from stair_jax.search.judging.judges import Judge, JudgeSettings
from stair_jax.search.judging.prefixes import JudgePrefixes
from stair_jax.search.judging.templates import common_start
from stair_jax.text.tokenizer import Tokenizer, add_tags

TEMPLATE = "Rate.\nQ:\n{prompt}\nA:\n{answer}"
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=12)


def make_judge(tokenizer, **settings):
    templates = {"helpfulness_template": TEMPLATE, "safety_template": TEMPLATE}
    return Judge(tokenizer, JudgeSettings(**templates, **({"fence": False} | settings)))


@pytest.fixture(scope="module")
def merging():
    """Merges a line break and a following x into one token, also across a template boundary."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {c: i for i, c in enumerate([*alphabet, "\u010ax"])}
    backend = Backend(models.BPE(vocab=vocabulary, merges=[("\u010a", "x")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken("<|eot|>", special=True)])
    hf = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|eot|>")
    hf.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}<|eot|>"
    add_tags(hf)
    return Tokenizer(hf)


def ask(judge, judge_prefixes, prompt, answer):
    """The kept prefixes of a tree, and the requests of one judgement."""
    handles = judge_prefixes.open(Prompt("p", prompt, "safety"))
    judging = judge.requests(
        prompt, "safety", answer, lambda *_: (0, 0), parents=handles, priority=7
    )
    return handles, judging.start()


@given(prompt=TEXTS, answer=TEXTS)
def test_the_judge_is_asked_the_same_with_and_without_handles(
    tokenizer, merging, make_engine, prompt, answer
):
    for any_tokenizer in (tokenizer, merging):
        engine, judge = make_engine(), make_judge(any_tokenizer)
        judge_prefixes = JudgePrefixes(engine, judge)
        handles, requests = ask(judge, judge_prefixes, prompt, answer)
        plain = judge.requests(prompt, "safety", answer, lambda *_: (0, 0)).start()
        assert [request.parent for request in plain] == [None, None]
        assert [r.sequence for r in requests] == [r.sequence for r in plain]
        assert {request.priority for request in requests} == {7}
        judge_prefixes.close(handles)
        judge_prefixes.close_all()
        assert not engine.handles


def test_handles_are_one_a_question_and_below_it_one_a_tree(tokenizer, make_engine):
    engine, judge = make_engine(), make_judge(tokenizer)
    judge_prefixes = JudgePrefixes(engine, judge)
    first, requests = ask(judge, judge_prefixes, "why?", "because")
    second, others = ask(judge, judge_prefixes, "how?", "thus")
    assert len(engine.handles) == 2 + 2 * 2  # templates, questions of two trees
    for question in ("helpfulness", "safety"):
        template = first["policy", question].parent
        assert template is second["policy", question].parent
        assert tokenizer.decode(template.tokens) == "Rate.\nQ:\n"
        assert tokenizer.decode(first["policy", question].tokens) == "Rate.\nQ:\nwhy?\nA:\n"
    assert tokenizer.decode(requests[0].tokens) == "because"
    assert [request.parent for request in others] == list(second.values())


def test_a_seam_that_is_joined_costs_the_handle_alone(merging, make_engine):
    engine, judge = make_engine(), make_judge(merging)
    judge_prefixes = JudgePrefixes(engine, judge)
    handles, (request, _) = ask(judge, judge_prefixes, "why?", "x is y")
    assert (
        request.parent is handles["policy", "helpfulness"].parent
    )  # the template, not the question
    handles, (request, _) = ask(judge, judge_prefixes, "x?", "because")
    assert request.parent is handles["policy", "helpfulness"]
    assert handles["policy", "helpfulness"].parent is None  # the template ends in another token
    # A handle that is not a prefix is not used.
    other = engine.keep((1, 2, 3))
    source = judge.sources["policy"]
    request = source.request("r", "safety", "why?", "because", (0, 0), parent=other)
    assert request.parent is None and request.tokens == source.tokens("safety", "why?", "because")


def test_only_questions_that_are_asked_are_kept(tokenizer, make_engine):
    engine = make_engine()
    judge_prefixes = JudgePrefixes(engine, make_judge(tokenizer, safety_rule="paper_release"))
    assert judge_prefixes.open(Prompt("p", "q", "safety")) == {} and not engine.handles
    assert list(judge_prefixes.open(Prompt("p", "q", "helpfulness"))) == [("policy", "helpfulness")]
    assert len(engine.handles) == 2


def test_common_start():
    assert common_start([(1, 2, 3), (1, 2), (1, 2, 4)]) == (1, 2)
    assert common_start([(1, 2), (3,)]) == ()
    assert common_start([(5, 6)]) == (5, 6)
