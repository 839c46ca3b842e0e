"""Requests in batches, against the batch API of a fake endpoint; kills between any two calls."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

import stair_jax
from stair_jax.endpoints.batch_log import BatchLog
from stair_jax.endpoints.chat import identity
from stair_jax.endpoints.ledger import Ledger
from stair_jax.endpoints.service import EndpointService
from stair_jax.endpoints.settings import BatchSettings
from stair_jax.errors import UserError
from stair_jax.record_log import RecordLog
from stair_jax.testing.fake_endpoint import Act, FakeEndpoint

pytest.importorskip("openai", "3.0", reason="openai, of the extra endpoints, is not installed")

BATCH = BatchSettings(size=100, gather_seconds=0.02, poll_seconds=0.01)


@pytest.fixture
def ledger(tmp_path):
    return tmp_path / "replies.jsonl.gz"


@pytest.fixture
def ask(ledger, make_settings, make_requests, ask_all):
    """`ask(endpoint, count, **changes)`: completions of so many requests in batches."""

    def run(endpoint, count, **changes):
        settings = make_settings(endpoint, **{"batch": BATCH, **changes})
        return ask_all(settings, ledger, make_requests(count))

    return run


def text_of(body):
    return body["messages"][0]["content"]


def uploaded(endpoint):
    """The number of requests of each file of requests."""
    files = [data for data in endpoint.batches.files.values() if b'"method"' in data]
    return [len(data.splitlines()) for data in files]


def test_replies_are_those_of_calls_under_the_same_identities(
    ask, ledger, make_settings, make_requests, ask_all, tmp_path
):
    with FakeEndpoint() as endpoint:
        settings = make_settings(endpoint)
        live, _ = ask_all(settings, tmp_path / "live.jsonl.gz", make_requests(7))
        found, service = ask(endpoint, 7)
        assert found == {id: replace(one, from_log=False) for id, one in live.items()}
        assert uploaded(endpoint) == [7] and service.stats.replies == service.calls == 7
        count = len(endpoint.calls)
        again, _ = ask_all(settings, ledger, make_requests(7))  # by calls, and all are there
        assert {one.from_log for one in again.values()} == {True}
        ask(endpoint, 7)
        assert len(endpoint.calls) == count == 14
    lines = endpoint.batches.files["file-0"].splitlines()
    for line, body in zip(lines, endpoint.calls[7:], strict=True):
        row = json.loads(line)
        key = identity(body, endpoint.base_url, 0)
        assert row == {
            "custom_id": key,
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": body,
        }
        assert key in Ledger(ledger)


def test_a_full_batch_is_sent_at_once_and_the_rest_when_nothing_comes(ask):
    with FakeEndpoint() as endpoint:
        found, _ = ask(endpoint, 25, batch=replace(BATCH, size=10))
    assert len(found) == 25 and uploaded(endpoint) == [10, 10, 5]


def test_a_batch_is_sent_in_files_of_a_limited_size(ask, monkeypatch):
    monkeypatch.setattr("stair_jax.endpoints.batch_dispatcher._MOST_BYTES", 700)
    with FakeEndpoint() as endpoint:
        found, _ = ask(endpoint, 7)
    assert len(found) == 7 and len(uploaded(endpoint)) > 2
    assert all(len(data) <= 700 for data in endpoint.batches.files.values() if b'"url"' in data)


def test_equal_requests_are_one_and_cancelled_ones_are_not_sent(
    ledger, make_settings, make_requests
):
    with FakeEndpoint() as endpoint:
        settings = make_settings(endpoint, batch=replace(BATCH, gather_seconds=0.2))
        with EndpointService(settings, ledger) as service:
            service.submit([*make_requests(4), replace(make_requests(1)[0], id="same")])
            service.cancel([3])
            done = []
            while service.pending:
                done += service.step(wait=10.0)
    assert {one.id for one in done} == {0, 1, 2, "same"}
    assert uploaded(endpoint) == [3]


def test_a_batch_costs_its_share_of_the_prices_and_says_how_far_it_is(ask, capsys):
    prices = {"input_price": 0.0, "output_price": 1e6, "budget": 1000.0}
    with FakeEndpoint() as endpoint:
        endpoint.batches.polls = 3
        _, service = ask(endpoint, 5, **prices)
    assert service.cost == 5 * 4 / 2
    said = capsys.readouterr().err
    assert "at most about 25 in money" not in said  # the first request alone is known to be coming
    assert "in batches, at 0.5 of the prices" in said
    for done in (0, 1, 2):
        assert f"batch batch-0 is in_progress: {done} of 5 requests done" in said
    assert "batch batch-0 is completed: 5 of 5 requests done" in said


def test_the_cap_is_exact_when_a_batch_is_sent(ask):
    """A reply costs 2 and may cost 5: two are sent of 12, one of the 8 that are left, one of 6."""
    prices = {"input_price": 0.0, "output_price": 1e6, "budget": 12.0, "max_requests": None}
    with FakeEndpoint() as endpoint:
        with pytest.raises(UserError, match="the cap of the endpoint is reached: 12") as error:
            ask(endpoint, 20, **prices)
        assert "\n" not in str(error.value)
        assert uploaded(endpoint) == [2, 1, 1]
        ask(endpoint, 20, **{**prices, "budget": 200.0})
        assert len(endpoint.calls) == 20


def test_no_more_requests_are_sent_than_may_be_paid(ask):
    with FakeEndpoint() as endpoint, pytest.raises(UserError, match="17 requests"):
        ask(endpoint, 50, max_requests=17)
    assert uploaded(endpoint) == [17]


def test_what_expired_or_failed_goes_into_another_batch(ask):
    def script(number, body):
        return Act(500, {}) if text_of(body) == "text 1" and number < 3 else Act()

    with FakeEndpoint(script) as endpoint:
        endpoint.batches.most_rows = 4
        found, service = ask(endpoint, 6)
    assert {one.finish for one in found.values()} == {"stop"}
    assert uploaded(endpoint) == [6, 3] and max(endpoint.paid.values()) == 1
    assert (service.calls, service.stats.lost) == (6, 0)


def test_a_cut_line_is_a_lost_call_and_asked_again(ask):
    with FakeEndpoint(lambda number, body: Act(cut=40 if number == 2 else None)) as endpoint:
        found, service = ask(endpoint, 4)
    assert {one.finish for one in found.values()} == {"stop"}
    assert uploaded(endpoint) == [4, 1] and (service.stats.lost, service.calls) == (1, 5)


def test_content_filter_and_context_are_told_apart_and_missing_comes_after_the_tries(ask):
    acts = {
        "text 0": Act(400, {"error": {"code": "content_filter", "message": "no"}}),
        "text 1": Act(400, {"error": {"code": "context_length_exceeded", "message": "no"}}),
        "text 2": Act(503, {}),
        "text 3": Act(429, {}),
    }
    with FakeEndpoint(lambda number, body: acts.get(text_of(body), Act())) as endpoint:
        found, service = ask(endpoint, 5, tries=2)
    finishes = [found[id].finish for id in range(5)]
    assert finishes == ["content_filter", "too_long", "missing", "missing", "stop"]
    assert (service.stats.filtered, service.stats.too_long, service.stats.missing) == (1, 1, 2)
    assert uploaded(endpoint) == [5, 2]


def test_what_no_retry_mends_stops_with_one_line_and_the_other_replies_are_kept(ask, ledger):
    acts = {"text 1": Act(400, {"error": {"code": "c", "message": "bad \x1b body"}})}
    with FakeEndpoint(lambda number, body: acts.get(text_of(body), Act())) as endpoint:
        with pytest.raises(UserError, match=r"refuses the call \(400: bad body\)") as error:
            ask(endpoint, 3)
        assert "\n" not in str(error.value)
        assert len(Ledger(ledger)) == 2 and not BatchLog(ledger).open


@pytest.mark.parametrize(
    ("status", "message"),
    [("failed", "refuses the batch"), ("cancelled", "was cancelled at .*: its replies are kept")],
)
def test_a_batch_that_did_not_run_stops_and_the_same_command_asks_for_the_rest(
    status, message, ask
):
    with FakeEndpoint() as endpoint:
        endpoint.batches.status, endpoint.batches.most_rows = status, 0
        with pytest.raises(UserError, match=message) as error:
            ask(endpoint, 3)
        assert "\n" not in str(error.value)
        assert not endpoint.calls
        endpoint.batches.status, endpoint.batches.most_rows = "", None
        found, _ = ask(endpoint, 4)
    assert len(found) == 4 and max(endpoint.paid.values()) == 1


@pytest.mark.parametrize("name", ["POST files", "POST batches", "GET batch", "GET content"])
@pytest.mark.parametrize("fault", [Act(500, {}), Act(429, {}), Act(body=b"{"), Act(cut=3)])
def test_calls_that_fail_are_made_again_and_nothing_is_sent_twice(name, fault, ask):
    if name == "GET content" and fault.body == b"{":
        fault = Act(cut=0)  # any text is a file
    with FakeEndpoint() as endpoint:
        endpoint.batches.script = lambda called, number: (
            fault if called == name and number < 2 else None
        )
        found, _ = ask(endpoint, 3)
    assert len(found) == len(endpoint.calls) == 3
    assert endpoint.batches.calls.count(name) >= 3 or name == "POST batches"


@pytest.mark.parametrize(
    "state",
    [
        {"status": "in_progress", "request_counts": [1], "errors": "none"},
        {"status": "validating", "request_counts": {"completed": "two"}, "errors": {"data": [5]}},
        {"status": "in_progress", "output_file_id": 5, "error_file_id": ""},
        {"status": 5},
        {},
    ],
)
def test_what_makes_no_sense_of_a_batch_is_looked_at_again(state, ask):
    with FakeEndpoint() as endpoint:
        endpoint.batches.script = lambda name, number: (
            Act(body=state) if name == "GET batch" and number < 2 else None
        )
        found, _ = ask(endpoint, 2)
    assert len(found) == len(endpoint.calls) == 2


def test_results_that_make_no_sense_are_passed_over(ask, monkeypatch):
    """Of the wrong form, of unknown requests, or a request's second one."""
    with FakeEndpoint() as endpoint:
        make = endpoint.batches._row

        def strange(asked):
            line, is_done = make(asked)
            other = line.replace(asked["custom_id"].encode(), b"0" * 64)
            noise = [b"[]\n", b"5\n", b"{}\n", b'{"custom_id": 5}\n', b"\xff\n", other, line, line]
            return b"".join(noise), is_done

        monkeypatch.setattr(endpoint.batches, "_row", strange)
        found, service = ask(endpoint, 3)
    assert {one.finish for one in found.values()} == {"stop"}
    assert (service.calls, service.stats.lost, len(endpoint.calls)) == (3, 0, 3)


def test_a_file_of_batches_of_another_version_is_one_line(ledger, ask):
    log = BatchLog(ledger)
    RecordLog(log.path).append({"schema": 2, "begun": "x"})
    with FakeEndpoint() as endpoint:
        with pytest.raises(UserError, match="is no file of batches that this version reads"):
            ask(endpoint, 1)
        assert not endpoint.calls


def test_an_endpoint_without_batches_or_answers_is_one_line(ask):
    with FakeEndpoint() as endpoint:
        endpoint.batches.script = lambda name, number: Act(404, {"error": {"message": "no such"}})
        with pytest.raises(UserError, match=r"\(404: no such\): see base_url and model"):
            ask(endpoint, 1)
        endpoint.batches.script = lambda name, number: Act(503, {})
        with pytest.raises(UserError, match=r"does not answer for its batches \(503\)"):
            ask(endpoint, 1, tries=2)
        assert not endpoint.calls


def test_batches_that_are_under_way_are_not_forgotten_by_other_settings(
    ask, ledger, make_settings, capsys
):
    hold = threading.Event()
    with FakeEndpoint() as endpoint:
        endpoint.batches.script = lambda name, number: (
            Act(503, {}) if name == "GET batch" and not hold.is_set() else None
        )
        with pytest.raises(UserError, match="does not answer"):
            ask(endpoint, 3, tries=1)
        with pytest.raises(UserError, match=r"endpoint.batch.size is 0, and a batch of an earlier"):
            EndpointService(make_settings(endpoint), ledger)
        hold.set()
        ask(endpoint, 5)
        assert len(endpoint.calls) == 5 and uploaded(endpoint) == [3, 2]
    assert "a batch of 3 requests of an earlier start is there" in capsys.readouterr().err


SCRIPT = """
import json, sys
from stair_jax.endpoints.chat import ChatRequest
from stair_jax.endpoints.service import EndpointService
from stair_jax.endpoints.settings import EndpointSettings
from stair_jax.settings import build

settings = build(EndpointSettings, json.loads(sys.argv[1]), "endpoint")
texts = [f"text {number}" for number in range(6)]
requests = [ChatRequest(t, ({"role": "user", "content": t},)) for t in texts]
with EndpointService(settings, sys.argv[2]) as service:
    service.submit(requests)
    while service.pending:
        service.step(wait=10.0)
"""


@pytest.mark.parametrize("name", ["POST files", "POST batches", "GET batch", "GET content"])
def test_after_a_kill_the_batch_is_found_and_nothing_is_paid_twice(name, ask, ledger):
    """The process is killed while the endpoint has done what was asked, and has not said so."""
    reached, hold = threading.Event(), threading.Event()

    def script(called, number):
        if called != name or hold.is_set():
            return None
        reached.set()
        return Act(hold=hold)

    with FakeEndpoint() as endpoint:
        endpoint.batches.script, endpoint.batches.page = script, 1
        settings = {
            "base_url": endpoint.base_url,
            "model": "fake",
            "max_requests": 6,  # of which none is left for another one
            "sampling": {"max_tokens": 10},
            "batch": {"size": 100, "gather_seconds": 0.02, "poll_seconds": 0.01},
        }
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, json.dumps(settings), str(ledger)],
            env=os.environ | {"PYTHONPATH": str(Path(stair_jax.__file__).parents[1])},
        )
        assert reached.wait(60)
        time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        hold.set()
        found, service = ask(endpoint, 6, max_requests=6)
        assert {one.finish for one in found.values()} == {"stop"} and service.calls == 6
        assert len(endpoint.calls) == 6 and set(endpoint.paid.values()) == {1}
        assert len(endpoint.batches.batches) == 1
    assert not BatchLog(ledger).open
