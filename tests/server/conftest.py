"""A tiny model that is served, and clients of its app without a network."""

import asyncio
from contextlib import asynccontextmanager

import httpx
import jax
import pytest

from stair_jax.run.answer_models import AnswerSettings, find_files
from stair_jax.run.answering import load_answerer
from stair_jax.server.app import make_app
from stair_jax.server.serving import Serving
from stair_jax.server.settings import ServerSettings

NAME = "tiny"


@pytest.fixture(scope="session")
def served_files(tmp_path_factory, chat_tokenizer):
    """Folder of a random language model with a context of 128 tokens."""
    from stair_jax.models import huggingface
    from stair_jax.testing.tiny_models import tiny_model

    folder = tmp_path_factory.mktemp("served")
    shape = {"num_hidden_layers": 1, "max_position_embeddings": 128}
    config, params = tiny_model(chat_tokenizer.vocab_size, **shape)
    huggingface.save(folder / "hf", params, config, chat_tokenizer)
    return folder / "hf"


@pytest.fixture(scope="session")
def answerer(served_files):
    """The tiny model, loaded once for all tests; each app has a thread of its own over it."""
    settings = AnswerSettings(method="sample", temperature=1.0, max_answer_tokens=40, slots=4)
    files, _ = find_files(str(served_files), "", settings)
    return load_answerer(files, None, settings, 4, steps=4)


@pytest.fixture
def serve(answerer):
    """A context of a client of an app over the tiny model, and of what the app serves.

    `async with serve(**settings) as (client, serving)`.

    Afterwards the engine has nothing left of what was asked.
    """

    @asynccontextmanager
    async def make(**settings):
        serving = Serving(answerer, ServerSettings(served_name=NAME, **settings))
        transport = httpx.ASGITransport(make_app(serving), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://tiny") as client:
            yield client, serving
        await asyncio.to_thread(serving.close)
        engine = answerer.engine
        assert not engine.pending and engine.free == engine.capacity and not engine._handles

    return make


@pytest.fixture
def ask(serve):
    """`ask(body, path=..., **settings)`: the response to one request."""

    def post(body, path="/v1/chat/completions", headers=None, **settings):
        async def run():
            async with serve(**settings) as (client, _):
                is_bytes = isinstance(body, bytes)
                sent = {"content": body} if is_bytes else {"json": body}
                return await client.post(path, headers=headers, **sent)

        return asyncio.run(run())

    return post


@pytest.fixture
def chat_body():
    """`chat_body(text, **fields)`: a body that asks the tiny model one question."""

    def make(text="hello", **fields):
        return {"model": NAME, "messages": [{"role": "user", "content": text}], **fields}

    return make


@pytest.fixture(scope="session")
def guided(served_files, tmp_path_factory, chat_tokenizer):
    """The same model with a random reward model, and with other settings of search."""
    from stair_jax.models import huggingface

    config = huggingface.load_config(served_files)
    params = huggingface.load_params(served_files, config)
    head = {"kernel": jax.random.normal(jax.random.key(1), (config.hidden_size,))}
    folder = tmp_path_factory.mktemp("prm") / "hf"
    huggingface.save(folder, params, config, chat_tokenizer, head)
    settings = AnswerSettings(
        method="sample", temperature=1.0, max_answer_tokens=24, max_step_tokens=8, slots=4,
        n=3, width=2, successors=2, max_depth=2,
    )  # fmt: skip
    files, prm = find_files(str(served_files), str(folder), settings)
    return load_answerer(files, prm, settings, 4, steps=4)


@pytest.fixture
def ask_guided(guided):
    """As `ask`, of the model with a reward model."""

    def post(body, path="/v1/chat/completions", **settings):
        async def run():
            serving = Serving(guided, ServerSettings(served_name=NAME, **settings))
            transport = httpx.ASGITransport(make_app(serving), raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://tiny") as client:
                response = await client.post(path, json=body)
            await asyncio.to_thread(serving.close)
            return response

        response = asyncio.run(run())
        engine = guided.engine
        assert not engine.pending and engine.free == engine.capacity and not engine._handles
        return response

    return post
