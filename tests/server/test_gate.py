"""What a request passes before it is answered: keys, limits, the end of a server."""

import asyncio
import json

import httpx
import pytest

from stair_jax.errors import UserError
from stair_jax.server.app import make_app
from stair_jax.server.keys import Keys, read_keys

FIRST, SECOND = "sk-first-0123456789", "sk-second-0123456789"
CHAT = "/v1/chat/completions"


@pytest.fixture
def guarded(serve):
    """`run(use, **settings)`: what `use(client, serving)` returns, of an app with two keys."""

    def run(use, **settings):
        async def inner():
            async with serve(**settings) as (_, serving):
                transport = httpx.ASGITransport(make_app(serving, Keys([FIRST, SECOND])))
                async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
                    return await use(client, serving)

        return asyncio.run(inner())

    return run


def bearing(key):
    return {"authorization": f"Bearer {key}"}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        bearing(""),
        bearing("sk-wrong-0123456789"),
        bearing(FIRST[:-1]),
        bearing(FIRST + "x"),
        {"authorization": FIRST},
        {"authorization": f"Basic {FIRST}"},
        {"x-api-key": FIRST},
    ],
)
def test_a_request_without_a_known_key_is_refused(guarded, chat_body, headers):
    async def use(client, serving):
        return await client.post(CHAT, json=chat_body(), headers=headers)

    response = guarded(use)
    assert response.status_code == 401
    error = response.json()["error"]
    assert error["code"] == "invalid_api_key" and error["type"] == "authentication_error"
    assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("key", [FIRST, SECOND])
def test_each_key_opens(guarded, chat_body, key):
    async def use(client, serving):
        return await client.post(CHAT, json=chat_body(max_tokens=1), headers=bearing(key))

    assert guarded(use).status_code == 200


def test_probes_and_the_page_need_no_key_and_all_else_does(guarded):
    async def use(client, serving):
        paths = ("/health", "/", "/page/page.css", "/v1/models", "/metrics", "/nothing")
        return [(await client.get(path)).status_code for path in paths]

    assert guarded(use) == [200, 200, 200, 401, 401, 401]


@pytest.mark.parametrize(
    ("origin", "status"),
    [(None, 200), ("http://tiny", 200), ("https://evil.example", 403), ("null", 403)],
)
def test_pages_of_other_sites_ask_nothing(ask, chat_body, origin, status):
    headers = {} if origin is None else {"origin": origin}
    assert ask(chat_body(max_tokens=1), headers=headers).status_code == status


def test_a_key_file_may_have_comments_and_blank_lines(tmp_path):
    path = tmp_path / "keys"
    path.write_text(f"# of the team\n{FIRST}\n\n  {SECOND}  \n")
    keys = read_keys(str(path))
    assert keys.find(bearing(FIRST)) == 0 and keys.find(bearing(SECOND)) == 1
    assert read_keys("") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no keys"),
        ("# nothing\n", "has no keys"),
        (f"{FIRST}\nshort\n", "line 2 is no key"),
        ("sk-with a space 0123\n", "line 1 is no key"),
        (
            "sk-\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9",
            "line 1 is no key",
        ),
    ],
)
def test_a_key_file_that_guards_nothing_is_refused(tmp_path, text, message):
    path = tmp_path / "keys"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_keys(str(path))


def test_a_key_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="cannot read --api-key-file"):
        read_keys(str(tmp_path / "keys"))


def test_a_body_that_is_too_large_is_refused(ask, chat_body):
    response = ask(chat_body("x" * 400), max_body_bytes=300)
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "body_too_large"


def test_a_body_of_unknown_length_is_read_no_further_than_the_limit(serve, chat_body):
    sent = []

    async def pieces():
        for _ in range(100):
            sent.append(1)
            yield b" " * 100

    async def run():
        async with serve(max_body_bytes=250) as (client, _):
            return await client.post(CHAT, content=pieces())

    response = asyncio.run(run())
    assert response.status_code == 413 and len(sent) <= 4


def test_more_requests_of_a_key_than_may_be_are_refused(guarded, chat_body):
    async def use(client, serving):
        first = asyncio.create_task(
            client.post(CHAT, json=chat_body(temperature=1, top_k=2), headers=bearing(FIRST))
        )
        while not serving.thread.num_open:
            await asyncio.sleep(0)
        refused = await client.post(CHAT, json=chat_body(), headers=bearing(FIRST))
        other = await client.post(CHAT, json=chat_body(max_tokens=1), headers=bearing(SECOND))
        assert (await first).status_code == 200
        again = await client.post(CHAT, json=chat_body(max_tokens=1), headers=bearing(FIRST))
        return refused, other, again

    refused, other, again = guarded(use, max_requests_per_key=1)
    assert refused.status_code == 429 and int(refused.headers["retry-after"]) >= 1
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert other.status_code == again.status_code == 200


def test_a_full_queue_is_told_with_when_to_come_back(ask, chat_body):
    """The tiny model has 4 slots."""
    response = ask(chat_body(n=8, max_tokens=1), max_queue=3)
    assert response.status_code == 429 and int(response.headers["retry-after"]) >= 1
    assert response.json()["error"]["code"] == "queue_full"
    assert ask(chat_body(n=7, max_tokens=1), max_queue=3).status_code == 200


def test_more_answers_than_may_be_are_refused(ask, chat_body):
    response = ask(chat_body(n=3), max_choices=2)
    assert response.status_code == 400 and response.json()["error"]["param"] == "n"


def test_a_server_that_drains_finishes_and_takes_nothing_new(serve, chat_body):
    async def run():
        async with serve() as (client, serving):
            first = asyncio.create_task(client.post(CHAT, json=chat_body(seed=1)))
            while not serving.thread.num_open:
                await asyncio.sleep(0)
            serving.is_draining = True
            health = await client.get("/health")
            refused = await client.post(CHAT, json=chat_body())
            return await first, health, refused

    first, health, refused = asyncio.run(run())
    assert first.status_code == 200 and first.json()["choices"][0]["finish_reason"]
    assert health.status_code == 503 and health.json() == {"status": "draining"}
    assert refused.status_code == 503 and refused.headers["retry-after"]


def test_an_engine_that_fails_is_told_and_is_not_healthy(serve, chat_body, answerer, monkeypatch):
    def fail():
        raise MemoryError("secret of the device")

    monkeypatch.setattr(answerer.driver, "step", fail)

    async def run():
        async with serve() as (client, serving):
            found = [await client.post(CHAT, json=chat_body()) for _ in range(2)]
            found.append(await client.get("/health"))
            await asyncio.to_thread(serving.close)
            answerer.driver.close()
            return found

    first, second, health = asyncio.run(run())
    assert [first.status_code, second.status_code, health.status_code] == [500, 503, 503]
    assert "secret" not in first.text and json.loads(health.text) == {"status": "failed"}


def test_metrics_count_requests_and_tokens(serve, chat_body):
    async def run():
        async with serve() as (client, _):
            for seed in range(3):
                await client.post(CHAT, json=chat_body(seed=seed, max_tokens=2))
            await client.post(CHAT, json={})
            await client.get("/v1/nothing/1")
            return (await client.get("/metrics")).text

    lines = dict(line.rsplit(" ", 1) for line in asyncio.run(run()).splitlines())
    requests = "stair_jax_requests_total"
    assert lines[f'{requests}{{path="{CHAT}",status="200"}}'] == "3.0"
    assert lines[f'{requests}{{path="{CHAT}",status="400"}}'] == "1.0"
    assert lines[f'{requests}{{path="none",status="404"}}'] == "1.0"
    assert lines['stair_jax_tokens_total{kind="generated"}'] == "6.0"
    assert lines["stair_jax_pages_in_use"] == "0.0"
    assert float(lines["stair_jax_pages"]) > 0
    assert lines["stair_jax_requests_under_way"] == "0.0"
