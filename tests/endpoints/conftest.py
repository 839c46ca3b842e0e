"""Settings of a fake endpoint, and requests to it."""

import pytest

from stair_jax.endpoints.chat import ChatRequest
from stair_jax.endpoints.service import EndpointService
from stair_jax.endpoints.settings import ChatSampling, EndpointSettings


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    """Loopback is reached directly, whatever the environment says."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")


@pytest.fixture(scope="session")
def make_settings():
    """`make(endpoint, **changes)`: settings of a `FakeEndpoint`, with short waits."""

    def make(endpoint, **changes):
        base = {
            "base_url": endpoint.base_url,
            "model": "fake",
            "max_requests": 1000,
            "retry_seconds": 0.001,
            "timeout": 30.0,
            "sampling": ChatSampling(max_tokens=10),
        }
        return EndpointSettings(**{**base, **changes})

    return make


@pytest.fixture(scope="session")
def make_requests():
    """`make(count, **changes)`: requests with the ids 0, 1, ... and a text each."""

    def make(count, first=0, **changes):
        return [
            ChatRequest(number, ({"role": "user", "content": f"text {number}"},), **changes)
            for number in range(first, first + count)
        ]

    return make


@pytest.fixture(scope="session")
def ask_all():
    """`ask(settings, ledger, requests)`: (completions by id, the service that was used)."""

    def ask(settings, ledger, requests):
        with EndpointService(settings, ledger) as service:
            service.submit(requests)
            completions = {}
            while service.pending:
                completions |= {one.id: one for one in service.step(wait=10.0)}
            return completions, service

    return ask
