"""Test-time search over chat completions: by the model's name, and by a field."""

import json

import pytest


@pytest.mark.parametrize(
    ("model", "count", "method"),
    [
        ("tiny:best-of-3", 3, "best_of_n:3"),
        ("tiny:beam-2x2", 2, "beam_search:2x2"),
        ("tiny:dvts-2x2", 2, "dvts:2x2"),
    ],
)
def test_the_name_of_a_model_asks_for_a_search(ask_guided, chat_body, model, count, method):
    body = chat_body(seed=1) | {"model": model, "search": {"details": True}}
    found = ask_guided(body).json()
    (choice,) = found["choices"]
    search = choice["search"]
    assert found["model"] == model and search["method"] == method
    assert 0 < len(search["candidates"]) <= count
    (chosen,) = [c["text"] for c in search["candidates"] if c["chosen"]]
    assert chosen == choice["message"]["content"]  # of a random model: no tags
    for candidate in search["candidates"]:
        assert len(candidate["step_scores"]) >= 1
        assert candidate["step_scores"][-1] == pytest.approx(candidate["score"], rel=1e-5)
    usage = found["usage"]
    kept = usage["completion_tokens_details"]["kept_tokens"]
    assert usage["completion_tokens"] == search["tokens"] > kept > 0


def test_a_field_asks_for_the_same_search(ask_guided, chat_body):
    by_name = ask_guided(chat_body(seed=1) | {"model": "tiny:best-of-3"}).json()
    by_field = ask_guided(chat_body(seed=1, search={"method": "best_of_n"})).json()
    assert by_name["choices"] == by_field["choices"] and "search" not in by_name["choices"][0]
    assert ask_guided(chat_body(seed=2, search={"method": "best_of_n"})).json() != by_field


def test_self_reward_needs_no_reward_model(ask, chat_body):
    body = chat_body(seed=1, max_tokens=8) | {"model": "tiny:best-of-2-self-reward"}
    found = ask(body | {"search": {"details": True}}).json()
    search = found["choices"][0]["search"]
    assert len(search["candidates"]) == 2
    assert all(c["step_scores"] == [] for c in search["candidates"])


def test_a_stream_brings_the_answer_of_a_search_too(ask_guided, chat_body):
    body = chat_body(seed=1, n=2) | {"model": "tiny:best-of-2", "search": {"details": True}}
    whole = ask_guided(body).json()
    lines = ask_guided(body | {"stream": True}).text.split("\n\n")
    events = [json.loads(line[len("data: ") :]) for line in lines if line.startswith("data: {")]
    choices = [choice for event in events for choice in event["choices"]]
    for number, expected in enumerate(whole["choices"]):
        own = [choice for choice in choices if choice["index"] == number]
        content = "".join(choice["delta"].get("content", "") for choice in own)
        assert content == expected["message"]["content"]
        assert own[-1]["search"] == expected["search"]


def test_the_answer_of_a_search_has_log_probabilities(ask_guided, chat_body):
    body = chat_body(seed=1, logprobs=True) | {"model": "tiny:best-of-2"}
    found = ask_guided(body).json()
    entries = found["choices"][0]["logprobs"]["content"]
    assert len(entries) == found["usage"]["completion_tokens_details"]["kept_tokens"]
    assert all(entry["logprob"] <= 0 and entry["top_logprobs"] == [] for entry in entries)


def test_a_greedy_request_leaves_the_candidates_unlike(ask_guided, chat_body):
    body = chat_body(seed=1, temperature=0) | {"model": "tiny:best-of-3"}
    found = ask_guided(body | {"search": {"details": True}}).json()
    assert len({c["text"] for c in found["choices"][0]["search"]["candidates"]}) == 3


def test_a_stop_text_cuts_what_was_chosen(ask_guided, chat_body):
    body = chat_body(seed=1) | {"model": "tiny:best-of-3"}
    text = ask_guided(body).json()["choices"][0]["message"]["content"]
    stop = text[3:5]
    choice = ask_guided(body | {"stop": [stop]}).json()["choices"][0]
    assert choice["message"]["content"] == text.partition(stop)[0]
    assert choice["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("fields", "status", "about"),
    [
        ({"model": "tiny:best-of-3", "search": {"method": "dvts"}}, 400, "give one of them"),
        ({"model": "tiny:best-of-3", "search": {"n": 4}}, 400, "search.n"),
        ({"search": {"method": "best"}}, 400, "best"),
        ({"search": {"metod": "best_of_n"}}, 400, "metod"),
        ({"search": {"details": True}}, 400, "no method"),
        ({"model": "tiny:best"}, 404, "tiny:best-of-8"),
        ({"model": "tiny:best-of-200"}, 400, "--max-choices"),
        ({"model": "tiny:best-of-3", "n": 100}, 400, "--max-choices"),
    ],
)
def test_what_cannot_be_searched_is_refused(ask_guided, chat_body, fields, status, about):
    response = ask_guided(chat_body() | fields)
    assert response.status_code == status and about in response.json()["error"]["message"]


def test_a_search_does_not_go_on_with_an_answer(ask_guided, chat_body):
    body = chat_body() | {"model": "tiny:best-of-3"}
    body["messages"].append({"role": "assistant", "content": "Well,"})
    assert "begins its answers itself" in ask_guided(body).json()["error"]["message"]


def test_a_guided_search_needs_a_reward_model(ask, chat_body):
    response = ask(chat_body() | {"model": "tiny:best-of-3"})
    assert response.status_code == 400 and "--prm" in response.json()["error"]["message"]


def test_the_likeliest_tokens_are_told(ask, chat_body):
    body = chat_body(seed=1, max_tokens=6, logprobs=True, temperature=0)
    plain = ask(body).json()["choices"][0]["logprobs"]["content"]
    found = ask(body | {"top_logprobs": 3}).json()["choices"][0]["logprobs"]["content"]
    assert [entry["token"] for entry in plain] == [entry["token"] for entry in found]
    for before, entry in zip(plain, found, strict=True):
        assert entry["logprob"] == pytest.approx(before["logprob"], abs=1e-4)
        assert len(entry["top_logprobs"]) == 3
        assert entry["top_logprobs"][0]["token"] == entry["token"]  # greedy
