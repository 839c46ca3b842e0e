"""A way to put one question to a source."""

import pytest

from stair_jax.decoding.requests import request_key
from stair_jax.search.judging.sources.source import Asking, Case


@pytest.fixture
def ask():
    """`ask(source, question, complete, **case)`: the scoring at its end, and all its requests."""

    def put(source, question, complete, **case):
        case = Case(**({"prompt": "Why?", "kind": "safety", "answer": "Because."} | case))
        asking = Asking(("id",), lambda attempt: request_key(0, question, attempt))
        scoring = source.ask(question, case, asking)
        requests, waiting = [], scoring.start()
        while waiting:
            requests += waiting
            waiting = scoring.receive(complete(waiting[0]))
        assert scoring.done
        return scoring, requests

    return put
