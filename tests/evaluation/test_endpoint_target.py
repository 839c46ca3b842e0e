"""A model behind an endpoint as a target: what is asked, and what becomes of faults."""

import json

import pytest

from stair_jax.decoding.driver import Driver, run_tasks
from stair_jax.endpoints.service import EndpointService
from stair_jax.endpoints.settings import ChatSampling, EndpointSettings
from stair_jax.errors import UserError
from stair_jax.evaluation.attacks.attack import Means
from stair_jax.evaluation.benchmarks import BENCHMARKS
from stair_jax.evaluation.case import Answer, Case
from stair_jax.evaluation.endpoint_target import EndpointTarget
from stair_jax.evaluation.report import grade
from stair_jax.evaluation.runner import answer_keys, answering, make_answers, to_judge
from stair_jax.evaluation.shards import Shards
from stair_jax.evaluation.table import RowKey
from stair_jax.evaluation.target import Asked
from stair_jax.monitoring import Progress
from stair_jax.testing.fake_endpoint import Act, FakeEndpoint, reply_of
from stair_jax.text import steps

CAN = frozenset({"harmful", "refusal"}).__contains__  # questions that a judge knows

pytest.importorskip("openai", "3.0", reason="openai, of the extra endpoints, is not installed")


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    """Loopback is reached directly, whatever the environment says."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")


def says(text, **message):
    """A body with this text; `finish` and `reasoning_content` as given."""
    finish = message.pop("finish", "stop")
    choice = {"message": {"content": text, **message}, "finish_reason": finish}
    return {"choices": [choice], "usage": {"prompt_tokens": 5, "completion_tokens": 3}}


def content(body):
    return body["messages"][-1]["content"]


def user(text):
    return ({"role": "user", "content": text},)


@pytest.fixture
def ask(tmp_path):
    """`ask(script, chats, **options)`: (replies, bodies that were sent)."""

    def ask(script, chats, sampling=None, tries=6, **options):
        sampling = sampling or ChatSampling(max_tokens=50)
        method = options.pop("method", "greedy")
        target = EndpointTarget("fake", sampling, **options)
        with FakeEndpoint(script) as fake:
            settings = settings_of(fake, sampling, tries)
            with EndpointService(settings, tmp_path / "replies.jsonl.gz") as service:
                tasks = [target.ask(chat, f"key {n}", method) for n, chat in enumerate(chats)]
                replies = list(run_tasks(Driver(service), tasks))
            return replies, fake.calls

    return ask


def settings_of(fake, sampling, tries=6):
    return EndpointSettings(
        base_url=fake.base_url,
        model="fake",
        max_requests=10**4,
        retry_seconds=0.001,
        tries=tries,
        sampling=sampling,
    )


def test_answers_are_those_of_the_endpoint_and_greedy(ask):
    chats = [Asked(user(f"text {n}")) for n in range(5)]
    replies, calls = ask(None, chats)
    expected = {content(body): reply_of(body) for body in calls}
    assert [reply.text for reply in replies] == [
        expected[f"text {n}"]["choices"][0]["message"]["content"] for n in range(5)
    ]
    assert {body["temperature"] for body in calls} == {0.0}
    assert {body["max_completion_tokens"] for body in calls} == {50}
    for reply, body in zip(replies, sorted(calls, key=content), strict=True):
        assert (reply.tokens, reply.generated_tokens) == (4, 4)
        assert reply.prompt_tokens == reply_of(body)["usage"]["prompt_tokens"]
        assert (reply.final, reply.reasoning, reply.finish) == (reply.text, "", "stop")


def test_reasoning_is_what_the_endpoint_shows_or_what_stands_in_blocks(ask):
    whole = steps.format_answer([("A", "one")], "Yes.")
    bodies = {
        "shown": says("Yes.", reasoning_content="I think."),
        "blocks": says(whole),
        "open": says(f"{steps.REASONING_OPEN}Title: A\none"),
        "plain": says("Yes."),
        "thought": says("<think>I think.</think>Yes."),
    }
    replies, _ = ask(
        lambda number, body: Act(body=bodies[content(body)]), [Asked(user(n)) for n in bodies]
    )
    found = {
        name: (reply.reasoning, reply.final) for name, reply in zip(bodies, replies, strict=True)
    }
    assert found == {
        "shown": ("I think.", "Yes."),
        "blocks": (steps.format_step("A", "one"), "Yes."),
        "open": (f"{steps.REASONING_OPEN}Title: A\none", ""),
        "plain": ("", "Yes."),
        "thought": ("I think.", "Yes."),
    }
    assert [reply.well_formed for reply in replies] == [False, True, False, False, False]


def test_a_storm_of_refusals_for_the_rate_loses_no_answer(ask):
    def storm(number, body):
        return Act(429, {}, {"Retry-After": "0.005"}) if number % 4 else Act()

    replies, calls = ask(storm, [Asked(user(f"text {n}")) for n in range(12)], tries=1)
    assert all(reply.finish == "stop" and reply.text for reply in replies)
    assert len(calls) > 24 and len({content(body) for body in calls}) == 12


def test_what_a_chat_says_of_sampling_goes_before_the_settings(ask):
    chats = [
        Asked(user("a")),
        Asked(user("b"), temperature=0.5, top_p=0.25),
        Asked(user("c"), max_tokens=7),
        Asked(user("d"), max_tokens=10**6),
        Asked(user("e"), temperature=0.0),
    ]
    _, calls = ask(None, chats, ChatSampling(temperature=1.0, top_p=0.75, max_tokens=50))
    found = {
        content(body): (body["temperature"], body["top_p"], body["max_completion_tokens"])
        for body in calls
    }
    assert found == {
        "a": (1.0, 0.75, 50),
        "b": (0.5, 0.25, 50),
        "c": (1.0, 0.75, 7),
        "d": (1.0, 0.75, 50),
        "e": (0.0, 0.75, 50),
    }


def test_samples_of_one_prompt_are_calls_of_their_own_and_greedy_answers_are_one(ask):
    sampled, calls = ask(None, [Asked(user("x"), temperature=1.0)] * 4)
    assert len(calls) == len(sampled) == 4
    greedy, calls = ask(None, [Asked(user("x"))] * 4)
    assert len(calls) == 1 and len({reply.text for reply in greedy}) == 1


def test_the_method_prompted_asks_with_the_template(ask):
    chats = [Asked(({"role": "system", "content": "s"}, *user("How?")))]
    _, (body,) = ask(None, chats, prompt_template="Think: {prompt}", method="prompted")
    assert [message["content"] for message in body["messages"]] == ["s", "Think: How?"]


def test_a_reply_that_is_cut_on_its_way_is_missing_and_never_graded(small_set, tmp_path):
    """One prompt's replies always are; the others are answered, judged and graded."""
    fake = FakeEndpoint(lambda number, body: Act(cut=20 if content(body) == "prompt 1" else None))
    asked = small_set(3)
    with fake:
        settings = settings_of(fake, ChatSampling(max_tokens=50), tries=2)
        shards = Shards(tmp_path / "answers.jsonl", answer_keys([asked]))
        with EndpointService(settings, tmp_path / "replies.jsonl.gz") as service:
            means = Means(EndpointTarget("fake", settings.sampling))
            silent = Progress("evaluate", 3, "cases", silent=True)
            answer = answering(Driver(service), means)
            make_answers(answer, RowKey("fake", "greedy"), [asked], shards, silent)
        shards.finish()
    answers = [Answer.from_dict(row) for row in shards.read()]
    assert [answer.finish for answer in answers] == ["stop", "missing", "stop"]
    cases = {("small", case.id): case for case in asked.cases}
    judged = to_judge(answers, {"small": asked.benchmark}, cases, CAN)
    assert [json.loads(each.key)[4] for each in judged] == ["c0", "c2"]
    graded = grade(asked, answers, {}, "harmful")
    assert graded[1].scores == {"harmless": None, "short": None}
    assert graded[0].scores["short"] == 0.0


def test_a_content_filter_is_a_refusal_that_no_judge_sees(ask):
    filtered = Act(body=says("", finish="content_filter"))
    (reply,), _ = ask(lambda number, body: filtered, [Asked(user("x"))])
    assert reply.finish == "content_filter"
    answer = Answer("xstest_unsafe", "c", final=reply.final, finish=reply.finish)
    benchmark = BENCHMARKS["xstest_unsafe"]()
    case = Case("c", "x")
    assert to_judge([answer], {benchmark.NAME: benchmark}, {(benchmark.NAME, "c"): case}, CAN) == []
    assert benchmark.grade(case, answer, None) == {"refused": 1.0, "fully_refused": 1.0}


def test_what_an_endpoint_cannot_do_is_one_line():
    target = EndpointTarget("fake", ChatSampling())
    with pytest.raises(UserError, match="answers by greedy or prompted"):
        target.ask(Asked(user("x")), "key", "best_of_n")
    with pytest.raises(UserError, match="whose answers can have no prefill"):
        target.ask(Asked(user("x"), "Sure"), "key")
    with pytest.raises(UserError, match="has no log-likelihoods"):
        target.likelihoods(user("x"), ["a"])
