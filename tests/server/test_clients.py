"""Clients of others over a socket: openai, lm-eval and inspect-ai."""

import asyncio
import threading
import time

import pytest

from stair_jax.server.app import make_app
from stair_jax.server.serving import Serving
from stair_jax.server.settings import ServerSettings

pytestmark = pytest.mark.slow

TEXTS = [
    ("The first step", " is an analysis"),
    ("<|begin_of_text|>The", " problem."),
    ("x" * 140, " and more"),  # longer than the context
    ("a", "\u00e9\u65e5 b"),  # several tokens a character
]


@pytest.fixture(scope="module")
def address(guided):
    """Of a server of the tiny model, in a thread."""
    uvicorn = pytest.importorskip("uvicorn")
    serving = Serving(guided, ServerSettings(served_name="tiny"))
    config = uvicorn.Config(make_app(serving), port=0, log_level="warning", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()
    serving.close()
    engine = guided.engine
    assert not engine.pending and engine.free == engine.capacity and not engine._handles


@pytest.fixture(scope="module")
def openai_client(address):
    openai = pytest.importorskip("openai", "1.0")
    with openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_openai_lists_models_and_chats(openai_client):
    names = [model.id for model in openai_client.models.list()]
    assert names[:2] == ["tiny", "tiny:best-of-3"]
    assert openai_client.models.retrieve("tiny:beam-2x2").id == "tiny:beam-2x2"
    chat = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "seed": 1}
    whole = openai_client.chat.completions.create(
        **chat, n=2, logprobs=True, top_logprobs=2, max_completion_tokens=12
    )
    assert len({choice.message.content for choice in whole.choices}) == 2
    assert len(whole.choices[0].logprobs.content[0].top_logprobs) == 2
    pieces = openai_client.chat.completions.create(
        **chat, max_completion_tokens=12, stream=True, stream_options={"include_usage": True}
    )
    pieces = list(pieces)
    deltas = [piece.choices[0].delta for piece in pieces if piece.choices]
    alone = openai_client.chat.completions.create(**chat, max_completion_tokens=12)
    assert "".join(d.content or "" for d in deltas) == alone.choices[0].message.content
    assert pieces[-1].usage == alone.usage


def test_openai_reads_a_search(openai_client):
    found = openai_client.chat.completions.create(
        model="tiny:best-of-3",
        messages=[{"role": "user", "content": "hello"}],
        extra_body={"search": {"details": True}},
    )
    assert len(found.choices[0].search["candidates"]) == 3
    details = found.usage.completion_tokens_details
    assert found.usage.completion_tokens > details.kept_tokens


def test_openai_reads_completions_and_responses(openai_client):
    found = openai_client.completions.create(model="tiny", prompt=["a", "b"], echo=True, logprobs=2)
    assert [choice.text[0] for choice in found.choices] == ["a", "b"]
    assert found.choices[0].logprobs.token_logprobs[1] < 0
    response = openai_client.responses.create(model="tiny", input="hello", instructions="Be brief.")
    assert response.output_text
    with openai_client.responses.stream(model="tiny", input="hello", temperature=0) as stream:
        events = list(stream)
    text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    assert text and text == events[-1].response.output_text


def test_openai_raises_what_is_wrong(openai_client):
    import openai

    chat = {"messages": [{"role": "user", "content": "hello"}]}
    with pytest.raises(openai.NotFoundError, match="best-of-8"):
        openai_client.chat.completions.create(model="other", **chat)
    with pytest.raises(openai.BadRequestError, match="response_format") as raised:
        openai_client.chat.completions.create(
            model="tiny", response_format={"type": "json_object"}, **chat
        )
    assert raised.value.param == "response_format"


@pytest.fixture(scope="module")
def lm_eval_models(address, served_files):
    """(lm-eval's client of completions, our model in the same process)."""
    pytest.importorskip("lm_eval.api.instance")
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    from stair_jax.adapters.lm_eval_model import StairJaxLM

    client = LocalCompletionsAPI(
        model="tiny",
        base_url=f"{address}/v1/completions",
        tokenizer=str(served_files),
        tokenizer_backend="huggingface",
        max_length=128,
        batch_size=3,
    )
    # The client keeps room for one token that it asks for, and ours reads no last token.
    options = {"max_length": 126, "add_bos_token": False, "keep_reasoning": True}
    return client, StairJaxLM(str(served_files), **options)


def requests(kind, arguments):
    from lm_eval.api.instance import Instance

    return [Instance(kind, {}, each, number) for number, each in enumerate(arguments)]


def test_log_likelihoods_of_lm_eval_are_those_in_the_process(lm_eval_models):
    client, ours = lm_eval_models
    plain = {"until": [], "max_gen_toks": 1, "do_sample": False}
    contexts = ["The first step", "user", "a", "b", "c"]
    greedy = ours.generate_until(requests("generate_until", [(c, plain) for c in contexts]))
    texts = [*TEXTS, *zip(contexts, greedy, strict=True)]
    found = client.loglikelihood(requests("loglikelihood", texts))
    expected = ours.loglikelihood(requests("loglikelihood", texts))
    for (value, is_greedy), (near, is_near_greedy) in zip(found, expected, strict=True):
        assert value == pytest.approx(near, abs=1e-4)
        assert is_greedy == is_near_greedy
    assert any(is_greedy for _, is_greedy in found)


def test_samples_of_lm_eval_are_those_in_the_process(lm_eval_models):
    client, ours = lm_eval_models
    plain = {"until": [], "max_gen_toks": 12, "do_sample": False}
    asked = [("The first", plain), ("user", plain)]
    whole = ours.generate_until(requests("generate_until", asked))
    assert client.generate_until(requests("generate_until", asked)) == whole
    stop = whole[0][3:5]
    cut = [(asked[0][0], {**plain, "until": [stop]})]
    assert client.generate_until(requests("generate_until", cut)) == [whole[0].partition(stop)[0]]


@pytest.mark.parametrize("model", ["tiny", "tiny:best-of-2"])
def test_lm_eval_chats(address, model, openai_client):
    pytest.importorskip("lm_eval.api.instance")
    from lm_eval.models.api_models import JsonChatStr
    from lm_eval.models.openai_completions import LocalChatCompletion

    client = LocalChatCompletion(model=model, base_url=f"{address}/v1/chat/completions")
    context = JsonChatStr('[{"role": "user", "content": "hello"}]')
    options = {"until": ["\n\n\n"], "max_gen_toks": 10, "do_sample": False}
    (text,) = client.generate_until(requests("generate_until", [(context, options)]))
    expected = openai_client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "hello"}],
        max_tokens=10,
        temperature=0,
        seed=1234,
        stop=["\n\n\n"],
    )
    assert text and text == expected.choices[0].message.content


def test_inspect_generates(address):
    inspect_model = pytest.importorskip("inspect_ai.model")

    async def ask(name):
        model = inspect_model.get_model(
            f"openai-api/tiny/{name}", base_url=f"{address}/v1", api_key="none", memoize=False
        )
        config = inspect_model.GenerateConfig(temperature=0, max_tokens=10, seed=1)
        return await model.generate("hello", config=config)

    plain, searched = asyncio.run(ask("tiny")), asyncio.run(ask("tiny:best-of-2"))
    assert plain.completion and plain.usage.output_tokens <= 10
    assert searched.completion and searched.usage.output_tokens > 10
