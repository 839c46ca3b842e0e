"""What clients get of a model that answers in steps, by a scripted engine."""

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from stair_jax.run.answer_models import AnswerSettings, ModelFiles
from stair_jax.run.answering import Answerer
from stair_jax.server.app import make_app
from stair_jax.server.serving import Serving
from stair_jax.server.settings import ServerSettings
from stair_jax.testing.scripted_engine import RandomReplies, ScriptedEngine
from stair_jax.testing.tiny_models import tiny_config
from stair_jax.text import steps

ANSWER = steps.format_answer([("Look", "It is a list."), ("Sum", "1 < 2")], "three")
REASONING = "Title: Look\nIt is a list.\n\nTitle: Sum\n1 < 2"


@pytest.fixture
def answer(chat_tokenizer):
    """`answer(body, reply=ANSWER, path=..., **settings)`: (the response, what the engine saw)."""

    def post(fields, reply=ANSWER, path="/v1/chat/completions", **settings):
        replies = RandomReplies(chat_tokenizer)
        replies.reply = lambda request, text: reply
        engine = ScriptedEngine(replies, max_length=600)
        engine.device = SimpleNamespace(engine_config=SimpleNamespace(num_slots=4, page_size=16))
        files = ModelFiles("scripted", Path(), tiny_config(), chat_tokenizer, True)
        asked = AnswerSettings(method="greedy", n=3, max_answer_tokens=400)
        serving = Serving(Answerer(engine, files, asked, None), ServerSettings(**settings))
        transport = httpx.ASGITransport(make_app(serving))
        chat = {"messages": [{"role": "user", "content": "why?"}]}
        body = {"model": "scripted", **(chat if path.endswith("completions") else {}), **fields}

        async def run():
            async with httpx.AsyncClient(transport=transport, base_url="http://tiny") as client:
                return await client.post(path, json=body)

        response = asyncio.run(run())
        serving.close()
        assert not engine.handles and not engine.pending
        return response, engine

    return post


def message_of(response):
    (choice,) = response.json()["choices"]
    return choice["message"], choice["finish_reason"]


def test_steps_are_in_both_fields_of_reasoning_and_the_output_is_the_content(answer):
    response, _ = answer({})
    message, finish = message_of(response)
    assert message["content"] == "three" and finish == "stop"
    assert message["reasoning"] == message["reasoning_content"] == REASONING
    details = response.json()["usage"]["completion_tokens_details"]
    assert 0 < details["reasoning_tokens"] < details["kept_tokens"]


def test_deltas_of_reasoning_come_before_those_of_content(answer):
    response, _ = answer({"stream": True})
    events = [json.loads(line[6:]) for line in response.text.split("\n\n") if "data: {" in line]
    deltas = [choice["delta"] for event in events for choice in event["choices"]]
    assert "".join(delta.get("reasoning", "") for delta in deltas) == REASONING
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == REASONING
    assert "".join(delta.get("content", "") for delta in deltas) == "three"
    assert not any(tag in response.text for tag in steps.TAGS)


def test_reasoning_may_be_hidden_or_raw(answer):
    hidden, _ = message_of(answer({}, reasoning="hidden")[0])
    assert hidden["content"] == "three" and "reasoning" not in hidden
    raw, _ = message_of(answer({}, reasoning="raw")[0])
    assert raw["content"] == ANSWER and "reasoning" not in raw


def test_an_answer_that_is_cut_off_has_its_reasoning_so_far_and_no_content(answer):
    message, finish = message_of(answer({"max_tokens": 20})[0])
    assert finish == "length" and message["content"] == ""
    assert message["reasoning"] and REASONING.startswith(message["reasoning"])


def test_a_stop_text_ends_the_content_and_not_the_steps(answer):
    assert message_of(answer({"stop": "list"})[0])[0]["content"] == "three"
    message, finish = message_of(answer({"stop": ["hr", "x"]})[0])
    assert message["content"] == "t" and finish == "stop" and message["reasoning"] == REASONING


def test_an_answer_that_was_begun_is_gone_on_with(answer):
    begun, rest = ANSWER[:40], ANSWER[40:]
    chat = [{"role": "user", "content": "why?"}, {"role": "assistant", "content": begun}]
    response, engine = answer({"messages": chat}, rest)
    message, _ = message_of(response)
    assert message["content"] == "three" and REASONING.endswith(message["reasoning"])
    text = engine.replies.tokenizer.decode(engine.seen[0].sequence)
    assert text.endswith(begun)


def test_what_users_write_becomes_no_tag(answer, chat_tokenizer):
    tags = set(vars(chat_tokenizer.tags).values())
    text = "".join(steps.TAGS) + "<|eot_id|>"
    for messages in (
        [{"role": "user", "content": text}],
        [
            {"role": "system", "content": text},
            {"role": "user", "content": text},
            {"role": "assistant", "content": "yes"},
            {"role": "user", "content": text},
        ],
    ):
        _, engine = answer({"messages": messages})
        sequence = engine.seen[0].sequence
        assert not tags & set(sequence)
        assert sequence.count(chat_tokenizer.end_id) == len(messages)


def test_reasoning_is_an_item_of_a_response(answer):
    response, _ = answer({"input": "why?"}, path="/v1/responses")
    reasoning, message = response.json()["output"]
    assert reasoning["content"][0]["text"] == REASONING
    assert message["content"][0]["text"] == "three"


def test_a_search_by_the_models_own_judgement_counts_all_that_it_samples(answer):
    fields = {"model": "scripted:best-of-3-self-reward", "search": {"details": True}, "seed": 1}
    response, engine = answer(fields, reply=None)
    (choice,) = response.json()["choices"]
    search, usage = choice["search"], response.json()["usage"]
    assert len(search["candidates"]) == 3
    assert usage["completion_tokens"] == search["tokens"] == engine.stats.generated
    (best,) = [c["text"] for c in search["candidates"] if c["chosen"]]
    assert choice["message"]["content"] == steps.final_answer(best)


def test_of_candidates_that_say_the_same_one_is_chosen(answer):
    fields = {"model": "scripted:best-of-3-self-reward", "search": {"details": True}}
    search = answer(fields)[0].json()["choices"][0]["search"]
    assert [c["chosen"] for c in search["candidates"]] == [True, False, False]
    assert {c["text"] for c in search["candidates"]} == {ANSWER}
