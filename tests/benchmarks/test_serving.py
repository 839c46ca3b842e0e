"""The client of the serving benchmark counts what comes, and its prompts have so many tokens."""

import asyncio
import json

import numpy as np
import pytest

from benchmarks import serving_client
from benchmarks.wide_tokenizer import random_words, wide_tokenizer

EVENTS = (
    {"choices": [{"delta": {"content": ""}}]},
    {"choices": [{"delta": {"content": "a word"}}]},
    {"choices": [{"delta": {"content": " more"}}]},
    {"choices": [], "usage": {"completion_tokens": 5}},
)


def response(*events):
    """A response as uvicorn sends it: each event is a chunk."""
    lines = [f"data: {json.dumps(event, separators=(',', ':'))}\n\n" for event in events]
    chunks = [f"{len(line):x}\r\n{line}\r\n" for line in [*lines, "data: [DONE]\n\n"]]
    head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    return (head + "".join(chunks) + "0\r\n\r\n").encode()


def ask_all(answer, bodies, streams):
    """(what the client has seen, bodies of each connection) where all get the same answer."""
    connections = []

    async def serve(reader, writer):
        connections.append(asked := [])
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = int(head.partition(b"Content-Length: ")[2].split()[0])
            asked.append(await reader.readexactly(length))
            writer.write(answer)

    async def run():
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        seen = await serving_client.ask_all(f"127.0.0.1:{port}", bodies, streams)
        server.close()
        return seen

    return asyncio.run(run()), connections


def test_all_bodies_are_asked_over_as_many_connections_as_streams():
    bodies = [b"%d" % number for number in range(7)]
    seen, connections = ask_all(response(*EVENTS), bodies, 3)
    assert len(connections) == 3
    assert sorted(body for asked in connections for body in asked) == bodies
    assert (seen.tokens, seen.pieces) == (7 * 5, 7 * 2)
    assert len(seen.firsts) == len(seen.gaps) == 7


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 429 Too Many Requests\r\n\r\n", "429"),
        (response({"error": {"message": "the engine stopped"}}), "engine stopped"),
    ],
)
def test_an_error_ends_the_client(answer, words):
    with pytest.raises(ExceptionGroup) as caught:
        ask_all(answer, [b"1"], 1)
    assert words in str(caught.value.exceptions[0])


def test_quantiles_are_values_that_were_seen():
    values = [4.0, 1.0, 3.0, 2.0]
    assert [serving_client.quantile(values, share) for share in (0, 0.5, 0.95)] == [1, 3, 4]
    assert serving_client.quantile([], 0.5) == 0


def test_random_prompts_have_so_many_tokens_and_all_ids_are_text():
    tokenizer = wide_tokenizer(2000)
    assert tokenizer.vocab_size == 2000
    text = random_words(tokenizer, np.random.default_rng(0), 50)
    assert len(tokenizer.encode_text(" " + text)) == 50
    words = tokenizer.decode(range(256, 1990)).split()
    assert len(words) == len(set(words)) == 1990 - 256
