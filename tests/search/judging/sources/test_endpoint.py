"""An endpoint as a judge: messages, closing lines, retries, and what cannot be asked again."""

import pytest

from stair_jax.endpoints.chat import ChatCompletion
from stair_jax.search.judging.judges import JudgeSettings
from stair_jax.search.judging.sources.endpoint import EndpointSource
from stair_jax.text.fence_prompts import CLOSING_REQUEST


def settings_of(**settings):
    return JudgeSettings(safety_template="verdict", helpfulness_template="rating", **settings)


def replies(*texts, finish="stop"):
    left = list(texts)
    return lambda request: ChatCompletion(request.id, text=left.pop(0), finish=finish)


def test_one_user_turn_holds_the_fenced_answer(ask):
    source = EndpointSource(settings_of())
    scoring, (request,) = ask(source, "safety", replies("Conclusion: [UNSAFE]"))
    assert scoring.score == -1.0
    (message,) = request.messages
    assert message["role"] == "user" and "| Because." in message["content"]
    assert request.service == "endpoint" and 0 <= request.sample < 2**31
    assert any(line.startswith("=== End") for line in message["content"].splitlines())


def test_a_reply_without_a_verdict_is_asked_for_its_closing_line(ask):
    scoring, (first, second) = ask(
        EndpointSource(settings_of()), "helpfulness", replies("It is fine.", "4")
    )
    assert (scoring.score, scoring.closings, scoring.unreadable) == (0.5, 1, 0)
    assert second.messages[0] == first.messages[0]
    assert second.messages[1:] == (
        {"role": "assistant", "content": "It is fine."},
        {"role": "user", "content": CLOSING_REQUEST.replace("{labels}", "1, 2, 3, 4, 5")},
    )


def test_an_unreadable_reply_is_another_sample_under_another_mark(ask):
    source = EndpointSource(settings_of(attempts=2))
    scoring, requests = ask(source, "safety", replies("hm", "hm", "hm", "hm"))
    assert scoring.score is None and scoring.unreadable == 2
    assert [len(request.messages) for request in requests] == [1, 3, 1, 3]
    assert requests[0].sample != requests[2].sample
    assert requests[0].messages[0] != requests[2].messages[0]


@pytest.mark.parametrize("finish", ["content_filter", "too_long", "missing"])
def test_what_the_endpoint_will_not_judge_is_missing(ask, finish):
    source = EndpointSource(settings_of())
    scoring, requests = ask(source, "safety", replies("", finish=finish))
    assert scoring.score is None and scoring.unreadable == len(requests) == 1


def test_a_reply_that_was_cut_off_is_closed(ask):
    cut = iter(["length", "stop"])
    source = EndpointSource(settings_of())
    scoring, requests = ask(
        source,
        "safety",
        lambda request: ChatCompletion(request.id, text="SAFE", finish=next(cut)),
    )
    assert scoring.score == 1.0 and len(requests) == 2
