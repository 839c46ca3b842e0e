"""/v1/completions: texts that are gone on with, and scored."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stair_jax.server import serving

PATH = "/v1/completions"


@pytest.fixture
def complete(ask):
    def post(prompt, **fields):
        return ask({"model": "tiny", "prompt": prompt, **fields}, PATH)

    return post


def test_more_log_probabilities_than_a_response_can_have_are_refused(complete, monkeypatch):
    monkeypatch.setattr(serving, "_MOST_LOGPROBS", 63)
    fields = {"max_tokens": 3, "logprobs": 2, "echo": True}
    assert complete([[5] * 4] * 3, **fields).status_code == 200
    refused = complete([[5] * 5] * 3, **fields)
    assert refused.status_code == 400 and refused.json()["error"]["param"] == "logprobs"
    assert complete([[5] * 5] * 3, **fields | {"logprobs": None}).status_code == 200


@pytest.fixture(scope="session")
def table(served_files):
    """`table(ids)`: the log-probabilities [T - 1, V] behind each token, by the plain model."""
    from stair_jax.models import huggingface, transformer

    config = huggingface.load_config(served_files)
    params = huggingface.load_params(served_files, config)
    hidden_states = jax.jit(transformer.apply, static_argnums=0)

    def compute(ids):
        positions = jnp.arange(len(ids))[None]
        hidden = hidden_states(config, params, jnp.asarray([ids]), positions)
        logits = hidden[0, :-1] @ transformer.output_embedding(params, config).T
        return np.asarray(jax.nn.log_softmax(logits, axis=-1))

    return compute


def test_a_text_and_its_token_ids_are_gone_on_with_alike(complete, chat_tokenizer):
    text = "The first step"
    ids = [chat_tokenizer.hf.bos_token_id, *chat_tokenizer.encode_text(text)]
    found = complete(text, seed=1).json()
    assert found["object"] == "text_completion"
    (choice,) = found["choices"]
    assert choice["text"] and choice["logprobs"] is None
    assert choice == complete(ids, seed=1).json()["choices"][0]
    assert found["usage"]["prompt_tokens"] == len(ids)
    assert found["usage"]["completion_tokens"] <= 16


def test_a_control_token_in_a_text_is_text_and_its_id_is_the_token(complete, chat_tokenizer):
    as_text = complete("<|eot_id|>", max_tokens=1).json()["usage"]["prompt_tokens"]
    id = chat_tokenizer.hf.convert_tokens_to_ids("<|eot_id|>")
    assert as_text > 2 and complete([id], max_tokens=1).json()["usage"]["prompt_tokens"] == 1


def test_several_prompts_have_their_completions_in_order(complete):
    prompts = ["one", "two"]
    together = complete(prompts, seed=4, n=2, echo=True).json()["choices"]
    assert [choice["index"] for choice in together] == [0, 1, 2, 3]
    alone = [c for p in prompts for c in complete(p, seed=4, n=2, echo=True).json()["choices"]]
    assert [choice["text"] for choice in together] == [choice["text"] for choice in alone]
    assert all(
        choice["text"].startswith(p) for choice, p in zip(together[::2], prompts, strict=True)
    )


def test_a_stream_gives_the_same_text(complete):
    whole = complete("so", seed=2, echo=True, n=2).json()["choices"]
    lines = complete("so", seed=2, echo=True, n=2, stream=True).text.split("\n\n")
    events = [json.loads(line[len("data: ") :]) for line in lines if line.startswith("data: {")]
    choices = [choice for event in events for choice in event["choices"]]
    for number in range(2):
        own = [choice for choice in choices if choice["index"] == number]
        assert "".join(choice["text"] for choice in own) == whole[number]["text"]
        assert own[-1]["finish_reason"] == whole[number]["finish_reason"]


def test_a_prompt_is_scored_without_a_completion(complete, chat_tokenizer, table):
    ids = chat_tokenizer.encode_text("The first step is an analysis of the problem.")
    found = complete(ids, max_tokens=0, echo=True, logprobs=1).json()
    (choice,) = found["choices"]
    scored, expected = choice["logprobs"], table(ids)
    assert choice["text"] == "".join(scored["tokens"]) and len(scored["tokens"]) == len(ids)
    assert scored["token_logprobs"][0] is None and scored["top_logprobs"][0] is None
    own = expected[np.arange(len(ids) - 1), ids[1:]]
    np.testing.assert_allclose(scored["token_logprobs"][1:], own, atol=1e-4)
    best = [max(top.values()) for top in scored["top_logprobs"][1:]]
    np.testing.assert_allclose(best, expected.max(axis=-1), atol=1e-4)
    assert found["usage"]["completion_tokens"] == 0


def test_echo_and_completion_are_scored_as_one_text(complete, chat_tokenizer, table):
    ids = chat_tokenizer.encode_text("The first")
    choice = complete(ids, max_tokens=5, echo=True, logprobs=3, seed=1).json()["choices"][0]
    scored = choice["logprobs"]
    assert len(scored["tokens"]) > len(ids) and len(scored["token_logprobs"]) == len(
        scored["tokens"]
    )
    own = table(ids)[np.arange(len(ids) - 1), ids[1:]]
    np.testing.assert_allclose(scored["token_logprobs"][1 : len(ids)], own, atol=1e-4)
    offsets = scored["text_offset"]
    assert offsets[0] == 0 and offsets == sorted(offsets)
    assert all(3 <= len(top) <= 4 for top in scored["top_logprobs"][1:])


def test_greedy_tokens_are_the_likeliest_ones(complete):
    """What lm-eval finds out by comparing the numbers themselves."""
    choice = complete("so it is", max_tokens=8, temperature=0, logprobs=1).json()["choices"][0]
    scored = choice["logprobs"]
    for logp, top in zip(scored["token_logprobs"], scored["top_logprobs"], strict=True):
        assert logp == max(top.values()) and not math.isnan(logp)


def test_a_stop_text_ends_a_completion_with_its_log_probabilities(complete):
    text = complete("so", seed=1, max_tokens=30).json()["choices"][0]["text"]
    stop = text[len(text) // 2 :][:2]
    choice = complete("so", seed=1, max_tokens=30, stop=stop, logprobs=0).json()["choices"][0]
    assert choice["text"] == text.partition(stop)[0] and choice["finish_reason"] == "stop"
    assert choice["logprobs"]["text_offset"][-1] < max(1, len(choice["text"]))
    assert all(len(top) == 1 for top in choice["logprobs"]["top_logprobs"])


@pytest.mark.parametrize(
    ("fields", "about"),
    [
        ({"prompt": []}, "empty"),
        ({"prompt": [[]]}, "empty"),
        ({"prompt": "a", "model": "other"}, "'other'"),
        ({"prompt": "a", "model": "tiny:best-of-2"}, "/v1/chat/completions"),
        ({"prompt": [10**6]}, "1000000"),
        ({"prompt": [-1]}, "-1"),
        ({"prompt": "x " * 200}, "context"),
        ({"prompt": "a", "logprobs": 100}, "logprobs"),
        ({"prompt": "a", "best_of": 3}, "best_of"),
        ({"prompt": ["a"] * 100, "n": 2}, "200"),
    ],
)
def test_what_cannot_be_is_refused(ask, fields, about):
    response = ask({"model": "tiny", **fields}, PATH)
    assert response.status_code in (400, 404)
    assert about in response.json()["error"]["message"]
