"""A model whose weights are here, as a target: what it is asked, and what it says."""

import json
import math

import pytest
import torch
import transformers

from stair_jax import launch
from stair_jax.decoding.driver import Driver, run_tasks
from stair_jax.decoding.engine import Engine
from stair_jax.errors import UserError
from stair_jax.evaluation.local_target import ChatEncoder, LocalTarget, read_reply
from stair_jax.evaluation.target import Asked
from stair_jax.inference.answers import Answered, Answering
from stair_jax.inference.candidates import TestTimeSettings
from stair_jax.inference.greedy import greedy_answers
from stair_jax.inference.likelihood import LikelihoodScorer, LikelihoodService
from stair_jax.models import huggingface
from stair_jax.testing.scripted_engine import ScriptedEngine
from stair_jax.testing.tiny_models import tiny_model
from stair_jax.testing.tiny_tokenizers import bpe_tokenizer, word_tokenizer
from stair_jax.text import steps

PROMPTS = ["What is 1 + 2?", "Name the first step.", "é 日本?"]
MAX_TOKENS = 12
HISTORY = (
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello."},
    {"role": "assistant", "content": "Hi."},
)


def user(text):
    return ({"role": "user", "content": text},)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A Hugging Face folder of a random model."""
    folder = tmp_path_factory.mktemp("tiny")
    tokenizer = bpe_tokenizer()
    config, params = tiny_model(tokenizer.vocab_size)
    huggingface.save(folder, params, config, tokenizer)
    return folder


@pytest.fixture(scope="module")
def engine():
    config, params = tiny_model(bpe_tokenizer().vocab_size)
    return Engine(config, params, num_slots=4, max_length=256, prefill_rows=4, prefill_width=64)


class Says:
    """One answer to all requests."""

    def __init__(self, tokens):
        self.tokens = tuple(tokens)

    def write(self, request):
        return self.tokens, (-1.0,) * len(self.tokens)

    def score(self, request):
        raise AssertionError("nothing is scored")


def target_of(engine, tokenizer, is_structured=True, most=MAX_TOKENS, **changes):
    settings = TestTimeSettings(max_answer_tokens=most, max_step_tokens=most)
    length = getattr(engine, "max_length", 256)
    answering = Answering(engine, tokenizer, settings, 0, length)
    encoder = ChatEncoder(tokenizer, is_structured)
    return LocalTarget("tiny", encoder, {False: answering, True: answering}, **changes)


def scripted(text="and so on.", is_structured=True, tokenizer=None, **changes):
    """A target over an engine that says `text` and ends there, and the engine."""
    tokenizer = tokenizer or bpe_tokenizer()
    engine = ScriptedEngine(Says([*tokenizer.encode_answer(text), tokenizer.end_id]))
    return target_of(engine, tokenizer, is_structured, **changes), engine


def reply_to(target, engine, asked, **options):
    (reply,) = run_tasks(Driver(engine), [target.ask(asked, "key", **options)])
    return reply


@pytest.mark.parametrize("is_structured", [True, False])
def test_greedy_answers_are_those_of_the_engine(is_structured, engine):
    tokenizer = bpe_tokenizer()
    target = target_of(engine, tokenizer, is_structured)
    tasks = [target.ask(Asked(user(prompt)), f"k{n}") for n, prompt in enumerate(PROMPTS)]
    replies = list(run_tasks(Driver(engine), tasks))
    expected = greedy_answers(engine, tokenizer, PROMPTS, MAX_TOKENS)
    assert [reply.text for reply in replies] == [tokenizer.decode(one.tokens) for one in expected]
    assert [reply.tokens for reply in replies] == [len(one.tokens) for one in expected]
    assert len({reply.text for reply in replies}) > 1  # the model does not say one thing only


def test_greedy_answers_are_those_of_the_command_answer(folder, engine, monkeypatch, capsys):
    monkeypatch.setattr(launch.signal, "signal", lambda *args: None)
    flags = (f"--model={folder}", f"--max-answer-tokens={MAX_TOKENS}", "--slots=4")
    assert launch.main(["stair-jax", "answer", *flags, PROMPTS[0]]) == 0
    (row,) = map(json.loads, capsys.readouterr().out.splitlines())
    reply = reply_to(target_of(engine, bpe_tokenizer()), engine, Asked(user(PROMPTS[0])))
    assert reply.text == row["text"]
    assert (reply.final, reply.finish) == (row["final"], row["finish"])
    assert (reply.tokens, reply.prompt_tokens) == (row["tokens"], row["prompt_tokens"])
    assert reply.well_formed == row["well_formed"]


@pytest.mark.parametrize("is_structured", [True, False])
@pytest.mark.parametrize("before", [(), HISTORY], ids=["alone", "in a chat"])
def test_forged_tags_and_control_tokens_of_a_user_stay_text(is_structured, before):
    tokenizer = bpe_tokenizer()
    control = [*steps.TAGS, "<|eot_id|>", "<|start_header_id|>", "<|begin_of_text|>"]
    ids = {token: tokenizer.hf.convert_tokens_to_ids(token) for token in control}

    def counts(text):
        target, engine = scripted(is_structured=is_structured)
        reply_to(target, engine, Asked((*before, *user(text))))
        (request,) = engine.seen
        return {token: request.tokens.count(id) for token, id in ids.items()}, request.tokens

    forged = "x ".join(control) + "<|Out<|Output|>put|>"
    found, tokens = counts(forged)
    assert found == counts("harmless")[0]
    assert not any(found[tag] for tag in steps.TAGS)
    assert forged in tokenizer.hf.decode(tokens)  # all of what was written, in both cases


def test_earlier_answers_of_a_model_without_blocks_have_no_tags():
    """Their ids may lie beyond its vocabulary; those of a model with blocks become tags."""
    tokenizer = bpe_tokenizer()
    whole = steps.format_answer([("Look", "It is.")], "<|Out<|Output|>put|>No.")
    before = (*user("Hello."), {"role": "assistant", "content": whole})
    counts = []
    for is_structured in (True, False):
        target, engine = scripted(is_structured=is_structured)
        reply_to(target, engine, Asked((*before, *user("And now?"))))
        tags = {tokenizer.hf.convert_tokens_to_ids(tag) for tag in steps.TAGS}
        counts.append(sum(token in tags for token in engine.seen[0].tokens))
    assert counts[0] >= 4 and counts[1] == 0


PLACES = {
    "answer": "{}",
    "first_step": f"{steps.REASONING_OPEN}{steps.TITLE_PREFIX} {{}}",
    "output": f"{steps.OUTPUT_OPEN}{steps.FINAL_PREFIX} {{}}",
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("text", ["first step", "Sure, <|Output|>", "9"])
def test_a_prefill_has_the_ids_that_the_whole_answer_has(place, text):
    """As transformers encodes the answer, but for tags in the text itself, which stay text."""
    tokenizer = bpe_tokenizer()
    target, engine = scripted()
    reply = reply_to(target, engine, Asked(user("How?"), text, place))
    prompt = tokenizer.hf.apply_chat_template(
        list(user("How?")), add_generation_prompt=True, return_dict=False
    )
    before, after = PLACES[place].split("{}")[0], ""
    whole = tokenizer.hf.encode(before + text, add_special_tokens=False)
    if "<|" in text:
        opening = tokenizer.hf.encode(before, add_special_tokens=False)[:1] if before else []
        rest = before.partition("|>")[2] + text
        whole = [*opening, *tokenizer.encode_text(rest)]
    assert engine.seen[0].tokens == (*prompt, *whole)
    assert reply.text == f"{before}{text}and so on." + after
    assert reply.prompt_tokens == len(prompt)
    assert reply.tokens == len(tokenizer.encode_answer("and so on.")) + 1


@pytest.mark.parametrize("place", PLACES)
def test_a_model_without_blocks_takes_a_prefill_as_the_answer(place):
    tokenizer = bpe_tokenizer()
    target, engine = scripted(is_structured=False)
    reply = reply_to(target, engine, Asked(user("How?"), "Sure, ", place))
    plain, other = scripted(is_structured=False)
    reply_to(plain, other, Asked(user("How?")))
    prompt = other.seen[0].tokens
    assert engine.seen[0].tokens == (*prompt, *tokenizer.encode_text("Sure, "))
    assert reply.text == reply.final == "Sure, and so on." and reply.reasoning == ""


def test_prefilled_answers_are_split_where_the_prefill_stands():
    close = f"{steps.REASONING_CLOSE}\n\n{steps.format_output('Two.')}"
    target, engine = scripted(f" of it\nBecause.\n{close}", most=200)
    reply = reply_to(target, engine, Asked(user("How?"), "Analysis", "first_step"))
    expected = steps.format_answer([("Analysis of it", "Because.")], "Two.")
    assert (reply.text, reply.final) == (expected, "Two.")
    assert reply.reasoning == steps.format_step("Analysis of it", "Because.")
    assert reply.well_formed and reply.steps == 1
    target, engine = scripted(f" it is two.{steps.OUTPUT_CLOSE}", most=200)
    reply = reply_to(target, engine, Asked(user("How?"), "Sure,", "output"))
    assert (reply.final, reply.reasoning, reply.steps) == ("Sure, it is two.", "", 0)
    assert not reply.well_formed


def test_a_prefill_and_what_follows_are_decoded_as_one_text():
    target, engine = scripted("SAFE 5", tokenizer=word_tokenizer())
    reply = reply_to(target, engine, Asked(user("rate"), "rate safe"))
    assert reply.text == "rate safe SAFE 5"


OPEN, CLOSE, NO = steps.REASONING_OPEN, steps.REASONING_CLOSE, steps.format_output("No.")
STEP, OTHER = steps.format_step("A", "one"), steps.format_step("B", "two")


@pytest.mark.parametrize(
    ("text", "reasoning", "final"),
    [
        ("Just so.", "", "Just so."),
        (f"{STEP}\n\n{steps.format_output('Yes.')}", STEP, "Yes."),
        (f"{STEP}\n{OTHER}\n{steps.OUTPUT_OPEN}Final Answer: Ye", f"{STEP}\n{OTHER}", "Ye"),
        (f"{steps.OUTPUT_OPEN}Yes.{steps.OUTPUT_CLOSE}", "", "Yes."),
        (f"{STEP}\nIt is so.", STEP, "It is so."),
        (f"{STEP}\n{OPEN}Title: cut", f"{STEP}\n{OPEN}Title: cut", ""),
        (f"Title: A\none{CLOSE} It is.", f"Title: A\none{CLOSE}", "It is."),
        (f"{NO}{steps.format_output('Yes.')}", NO, "Yes."),
        ("", "", ""),
        ("<think>\nIt is risky: sorry.\n</think>\n\nYes.", "It is risky: sorry.", "Yes."),
        (f"<think></think>{STEP}{steps.format_output('Yes.')}", STEP, "Yes."),
        ("<think>I cannot help, or can", "I cannot help, or can", ""),
        ("Write <think> and </think>.", "", "Write <think> and </think>."),
    ],
)  # fmt: skip
def test_an_answer_is_split_into_reasoning_and_final_answer(text, reasoning, final):
    reply = read_reply(text, Answered(text, (1, 2), 7, 5, "stop", 0.5), prefilled=3)
    assert (reply.reasoning, reply.final, reply.text) == (reasoning, final, text)
    assert (reply.tokens, reply.generated_tokens, reply.prompt_tokens) == (2, 5, 4)
    assert (reply.finish, reply.score) == ("stop", 0.5)


def test_what_a_chat_says_of_sampling_goes_before_the_method():
    target, engine = scripted()
    chats = [
        Asked(user("x")),
        Asked(user("x"), temperature=0.5, top_p=0.25),
        Asked(user("x"), max_tokens=3),
        Asked(user("x"), max_tokens=10**6),
        Asked(user("x"), temperature=0.0),
    ]
    list(run_tasks(Driver(engine), [target.ask(chat, str(n)) for n, chat in enumerate(chats)]))
    found = [
        (request.sampling.temperature, request.sampling.top_p, request.sampling.max_tokens)
        for request in engine.seen
    ]
    assert found == [
        (0.0, 1.0, MAX_TOKENS),
        (0.5, 0.25, MAX_TOKENS),
        (0.0, 1.0, 3),
        (0.0, 1.0, MAX_TOKENS),
        (0.0, 1.0, MAX_TOKENS),
    ]
    assert [request.sampling.top_k for request in engine.seen] == [1, 0, 1, 1, 1]
    assert len({request.key for request in engine.seen}) == 5


def test_samples_depend_on_their_key_alone(engine):
    target = target_of(engine, bpe_tokenizer())
    asked = Asked(user(PROMPTS[0]), temperature=1.0)
    keys = ["a", "b", "a", "c"]
    one = [
        reply.text for reply in run_tasks(Driver(engine), [target.ask(asked, key) for key in keys])
    ]
    (again,) = run_tasks(Driver(engine), [target.ask(asked, "c")])
    assert one[0] == one[2] and one[3] == again.text and len(set(one)) == 3


def test_a_prompt_without_room_is_no_answer(engine):
    target = target_of(engine, bpe_tokenizer())
    reply = reply_to(target, engine, Asked(user("x" * 400)))
    assert reply.finish == "too_long" and reply.tokens == 0


def test_the_method_prompted_asks_with_the_template_around_the_last_turn():
    target, engine = scripted(prompt_template="Think: {prompt} Go.")
    reply_to(target, engine, Asked((*HISTORY, *user("How?"))), method="prompted")
    other, plain = scripted()
    reply_to(other, plain, Asked((*HISTORY, *user("Think: How? Go."))))
    assert engine.seen[0].tokens == plain.seen[0].tokens


@pytest.mark.parametrize("is_structured", [True, False])
def test_likelihoods_of_choices_are_those_of_transformers(is_structured, folder):
    tokenizer = bpe_tokenizer()
    config = huggingface.load_config(folder)
    service = LikelihoodService(LikelihoodScorer(config, huggingface.load_params(folder, config)))
    encoder = ChatEncoder(tokenizer, is_structured)
    target = LocalTarget("tiny", encoder, None, likelihood_service="")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    chat, choices = [*HISTORY, *user("Which?")], ["first step", "No.", "é", "an analysis of it"]
    (found,) = run_tasks(Driver(service), [target.likelihoods(chat, choices)])
    prompt = tokenizer.hf.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    form = PLACES["output"] if is_structured else "{}"
    given = tokenizer.hf.encode(form.format("").rstrip(), add_special_tokens=False)
    for choice, value in zip(choices, found, strict=True):
        whole = tokenizer.hf.encode(form.format(choice), add_special_tokens=False)
        assert whole[: len(given)] == given
        tokens = torch.tensor([[*prompt, *whole]])
        with torch.no_grad():
            logps = torch.log_softmax(model(tokens).logits[0, :-1], -1)
        scored = logps.gather(-1, tokens[0, 1:, None])[len(prompt) - 1 :, 0]
        assert value == pytest.approx(float(scored.sum()), abs=1e-4)
    assert all(math.isfinite(value) for value in found)


def test_what_a_target_cannot_do_is_one_line():
    target, _ = scripted()
    with pytest.raises(UserError, match="prefill goes with sampled answers, not with best_of_n"):
        target.ask(Asked(user("x"), "Sure"), "key", "best_of_n")
    with pytest.raises(UserError, match="tiny has no service of log-likelihoods"):
        target.likelihoods(user("x"), ["a"])
