"""A server of a tiny model gets fuzzed requests, and clients that leave.

No request gets a status of 500 or more, each refusal has OpenAI's form, and afterwards all pages of
the cache are free.
"""

import asyncio
import json
import random
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import jax
import uvicorn
from fastapi import FastAPI

from soak.result import Result
from soak.serving_bodies import MODEL, draw_request
from soak.serving_client import leave
from stair_jax.models import huggingface
from stair_jax.monitoring import Progress
from stair_jax.run.answer_models import AnswerSettings, find_files
from stair_jax.run.answering import Answerer, load_answerer
from stair_jax.server.app import make_app
from stair_jax.server.serving import Serving
from stair_jax.server.settings import ServerSettings
from stair_jax.testing.tiny_models import tiny_model
from stair_jax.testing.tiny_tokenizers import bpe_tokenizer

_AT_ONCE = 32  # requests
_BODIES_PER_LEAVE = 100
_CONTEXT = 192
_IDLE_SECONDS = 60.0


def run(size: int, seed: int, folder: Path) -> Result:
    """Sends `size` fuzzed requests, and a hundredth of that from clients that leave.

    Args:
      size: number of requests.
      seed: of the first; each next one has the next seed.
      folder: for the model.
    """
    result = Result("serving")
    answerer = make_answerer(folder)
    settings = ServerSettings(served_name=MODEL, max_choices=8)
    with serving_app(answerer, settings) as (serving, app, address):
        start = time.monotonic()
        asyncio.run(_fuzz(app, size, seed, result))
        result.figures["requests_per_s"] = size / (time.monotonic() - start)
        check_idle(serving, app, result, seed, size, "fuzzed requests")
        leaves = max(1, size // _BODIES_PER_LEAVE)
        asyncio.run(_leave(address, leaves, seed, result))
        check_idle(serving, app, result, seed, size, "clients that left")
        if serving.thread.failure is not None:
            result.fail(f"the engine has failed: {serving.thread.failure!r}", seed, size=size)
    return result


def make_answerer(folder: Path) -> Answerer:
    """A tiny random model with a reward model."""
    tokenizer = bpe_tokenizer()
    shape = {"num_hidden_layers": 1, "max_position_embeddings": _CONTEXT}
    config, params = tiny_model(tokenizer.vocab_size, **shape)
    head = {"kernel": jax.random.normal(jax.random.key(1), (config.hidden_size,))}
    huggingface.save(folder / "hf", params, config, tokenizer)
    huggingface.save(folder / "prm", params, config, tokenizer, head)
    settings = AnswerSettings(
        method="sample", n=2, width=1, successors=2, max_depth=2, max_answer_tokens=60, slots=8
    )
    files, prm = find_files(str(folder / "hf"), str(folder / "prm"), settings)
    return load_answerer(files, prm, settings, 8, steps=4)


@contextmanager
def serving_app(
    answerer: Answerer, settings: ServerSettings
) -> Iterator[tuple[Serving, FastAPI, tuple[str, int]]]:
    """(what is served, the app, its address), with a server in a thread."""
    bound = socket.create_server(("127.0.0.1", 0))
    serving = Serving(answerer, settings)
    app = make_app(serving)
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    thread.start()
    try:
        yield serving, app, bound.getsockname()
    finally:
        server.should_exit = True
        thread.join()
        serving.close()
        bound.close()


def check_idle(
    serving: Serving, app: FastAPI, result: Result, seed: int, size: int, after: str
) -> None:
    """Adds a failure unless all that was asked ends, and all pages are free.

    A prompt that was to be shared by answers which nobody waits for is still computed to its end,
    with the next request, which is sent here.
    """
    deadline, engine = time.monotonic() + _IDLE_SECONDS, serving.answerer.engine
    while time.monotonic() < deadline:
        if not serving.thread.num_open and not serving.num_requests and not engine.pending:
            break
        time.sleep(0.05)
    asyncio.run(_ask_once(app))
    lost, kept = engine.capacity - engine.free, engine.num_handles
    if serving.thread.num_open or serving.num_requests or engine.pending:
        result.fail(f"{after}: something is still under way", seed, size=size)
    elif lost or kept:
        what = f"{after}: {lost} tokens of the cache are lost, {kept} handles are not released"
        result.fail(what, seed, size=size)


async def _ask_once(app: FastAPI) -> None:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    body = {"model": MODEL, "prompt": "hello", "max_tokens": 30, "temperature": 0}
    async with httpx.AsyncClient(transport=transport, base_url="http://tiny") as client:
        await client.post("/v1/completions", json=body)


async def _fuzz(app: FastAPI, size: int, seed: int, result: Result) -> None:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    progress = Progress("serving", size, "requests")
    async with httpx.AsyncClient(transport=transport, base_url="http://tiny") as client:

        async def one(number: int) -> None:
            problem, status = await _problem(client, seed + number)
            result.counts[f"{status // 100}xx"] += 1
            if problem:
                result.fail(problem, seed + number)
            progress.update(sum(result.counts.values()))

        await _side_by_side(one, size)
    progress.close()


async def _problem(client: httpx.AsyncClient, seed: int) -> tuple[str, int]:
    """(what is wrong with the response to a fuzzed request, its status); "": nothing is."""
    drawn = draw_request(random.Random(seed))
    response = await client.request(drawn.method, drawn.path, content=drawn.body)
    status, about = response.status_code, f"{drawn.method} {drawn.path}"
    if status >= 500:
        return f"{about}: status {status}", status
    if "internal_error" in response.text:
        return f"{about}: a stream has failed", status
    if status >= 400 and drawn.method != "HEAD" and not _is_error(response.text):
        return f"{about}: status {status} without an error in OpenAI's form", status
    return "", status


def _is_error(text: str) -> bool:
    try:
        error = json.loads(text)["error"]
    except (ValueError, KeyError, TypeError):
        return False
    return set(error) == {"message", "type", "param", "code"} and bool(error["message"])


async def _leave(address: tuple[str, int], count: int, seed: int, result: Result) -> None:
    progress = Progress("serving", count, "clients that leave")

    async def one(number: int) -> None:
        await leave(address, random.Random(seed + number))
        result.counts["clients that left"] += 1
        progress.update(result.counts["clients that left"])

    await _side_by_side(one, count)
    progress.close()


async def _side_by_side(one: Callable[[int], Awaitable[None]], count: int) -> None:
    """Calls `one` with the numbers below `count`, a few at a time."""
    numbers = iter(range(count))

    async def some() -> None:
        for number in numbers:
            await one(number)

    await asyncio.gather(*(some() for _ in range(min(_AT_ONCE, count))))
