"""The service against a real server on loopback that refuses, fails, hangs and lies."""

import importlib
import json
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

import stair_jax
from stair_jax.decoding.driver import Driver
from stair_jax.decoding.task import Task
from stair_jax.endpoints.chat import ChatRequest, Usage
from stair_jax.endpoints.ledger import Ledger
from stair_jax.endpoints.service import EndpointService
from stair_jax.endpoints.settings import ChatSampling
from stair_jax.errors import UserError
from stair_jax.record_log import RecordLog
from stair_jax.testing.fake_endpoint import Act, FakeEndpoint, reply_of
from stair_jax.testing.scripted_engine import ScriptedEngine

pytest.importorskip("openai", "3.0", reason="openai, of the extra endpoints, is not installed")

ROOT = Path(stair_jax.__file__).parents[1]


@pytest.fixture
def ledger(tmp_path):
    return tmp_path / "replies.jsonl.gz"


def error(status, code="", message="", **headers):
    return Act(status, {"error": {"code": code, "message": message}}, headers)


def one_line(call):
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def wait_until(condition):
    """For what another thread does; gives up after a minute."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_every_request_gets_its_reply_and_a_restart_asks_nothing(
    ledger, make_settings, make_requests, ask_all
):
    prices = {"input_price": 5e5, "output_price": 1e6, "budget": 1e9}
    with FakeEndpoint() as endpoint:
        settings = make_settings(endpoint, **prices)
        first, service = ask_all(settings, ledger, make_requests(40, top_logprobs=2))
        assert set(first) == set(range(40))
        for body in endpoint.calls:
            number = int(body["messages"][0]["content"].split()[1])
            expected = reply_of(body)
            assert first[number].text == expected["choices"][0]["message"]["content"]
            usage = Usage(expected["usage"]["prompt_tokens"], 4)
            assert first[number].usage == usage
            assert first[number].cost == usage.input_tokens / 2 + 4
            assert first[number].top_logprobs == ({"t0": -1.0, "t1": -2.0},)
        assert service.cost == sum(one.cost for one in first.values()) == service.stats.cost
        again, service = ask_all(settings, ledger, make_requests(40, top_logprobs=2))
        assert len(endpoint.calls) == 40
    assert service.stats.from_log == 40 and service.calls == 40
    assert again == {id: replace(one, from_log=True) for id, one in first.items()}


def test_a_call_has_the_body_and_headers_that_the_settings_say(
    ledger, make_settings, ask_all, monkeypatch
):
    monkeypatch.setenv("SOME_KEY", "sk-very-secret")
    monkeypatch.setenv("OPENAI_ADMIN_KEY", "sk-of-someone-else")
    request = ChatRequest(
        "r",
        ({"role": "system", "content": "s"}, {"role": "user", "content": "lone \ud800"}),
        sampling=ChatSampling(temperature=0.5, max_tokens=7, stop=("\n",), seed=3),
        sample=2,
        top_logprobs=5,
    )
    with FakeEndpoint() as endpoint:
        extra = {"extra_body": {"top_k": 20}, "max_tokens_field": "max_tokens"}
        settings = make_settings(endpoint, key_variable="SOME_KEY", **extra)
        ask_all(settings, ledger, [request])
        ask_all(make_settings(endpoint), ledger, [request])
    assert endpoint.calls[0] == {
        "model": "fake",
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": "lone \ufffd"},
        ],
        "temperature": 0.5,
        "max_tokens": 7,
        "stop": ["\n"],
        "seed": 5,
        "logprobs": True,
        "top_logprobs": 5,
        "top_k": 20,
    }
    with_key, without = (
        {name.lower(): value for name, value in headers.items()} for headers in endpoint.headers
    )
    assert with_key["authorization"] == "Bearer sk-very-secret"
    assert with_key["accept-encoding"] == "identity"
    assert "authorization" not in without
    assert "someone-else" not in str(endpoint.headers)
    records = json.dumps(RecordLog(ledger).read())
    assert "secret" not in records and "Bearer" not in records


def test_equal_requests_are_one_call_and_samples_are_apart(ledger, make_settings, ask_all):
    messages = ({"role": "user", "content": "hi"},)
    requests = [ChatRequest(i, messages) for i in range(5)]
    requests += [ChatRequest(5 + i, messages, sample=1 + i) for i in range(2)]
    with FakeEndpoint() as endpoint:
        completions, service = ask_all(make_settings(endpoint), ledger, requests)
    assert len(completions) == 7 and len(endpoint.calls) == 3
    assert (service.stats.replies, service.stats.from_log) == (3, 4)
    assert sum(not one.from_log for one in completions.values()) == 3


def test_a_storm_of_refusals_costs_no_try(ledger, make_settings, make_requests, ask_all):
    """With a single try, nothing is missing; calls wait as long as the endpoint asks."""

    def script(number, body):
        return error(429, "rate_limit", **{"Retry-After": "0.01"}) if number % 3 else Act()

    with FakeEndpoint(script) as endpoint:
        settings = make_settings(endpoint, tries=1, max_requests=30)
        completions, service = ask_all(settings, ledger, make_requests(30))
    assert {one.finish for one in completions.values()} == {"stop"}
    assert service.stats.refused == len(endpoint.calls) - 30 > 10
    assert (service.stats.faults, service.stats.missing, service.calls) == (0, 0, 30)


def test_a_refusal_for_the_rate_leaves_the_tries_for_faults(
    ledger, make_settings, make_requests, ask_all
):
    refusal = error(429, **{"Retry-After": "0.01"})
    acts = [refusal, refusal, error(500), refusal, Act()]
    with FakeEndpoint(lambda number, body: acts[number]) as endpoint:
        settings = make_settings(endpoint, tries=2)
        completions, _ = ask_all(settings, ledger, make_requests(1))
    assert completions[0].finish == "stop" and len(endpoint.calls) == 5


def test_an_endless_refusal_ends_with_one_line(ledger, make_settings, make_requests, ask_all):
    with FakeEndpoint(lambda number, body: error(429, **{"retry-after-ms": "5000"})) as endpoint:
        settings = make_settings(endpoint, patience=4.0)
        said = one_line(lambda: ask_all(settings, ledger, make_requests(3)))
    assert "refuses all calls for its rate (429)" in said and "patience=4" in said


def test_no_credit_is_no_refusal_for_the_rate(ledger, make_settings, make_requests, ask_all):
    with FakeEndpoint(lambda number, body: error(429, "insufficient_quota", "Pay.")) as endpoint:
        said = one_line(lambda: ask_all(make_settings(endpoint), ledger, make_requests(1)))
    assert "no credit left (429: Pay.)" in said


FAULTS = {
    "server": error(500, message="oops"),
    "busy": error(503, **{"Retry-After": "0.001"}),
    "timeout_of_the_server": error(408),
    "cut": Act(cut=25),
    "nothing": Act(cut=0),
    "not_json": Act(body=b"<html>hello</html>"),
    "cut_json": Act(body=b'{"choices": [{"mess'),
    "no_choice": Act(body={"choices": []}),
    "wrong_types": Act(body={"choices": [{"message": {"content": 5}, "finish_reason": "stop"}]}),
    "giant": Act(body=b'{"choices": "' + b"x" * 70_000 + b'"}'),
    "giant_error": Act(500, body=b"x" * 70_000),
    "compressed": Act(headers={"Content-Encoding": "gzip"}),
}
UNPAID = {"server", "busy", "timeout_of_the_server"}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_tried_again(name, ledger, make_settings, make_requests, ask_all):
    with FakeEndpoint(lambda number, body: FAULTS[name] if number < 2 else Act()) as endpoint:
        settings = make_settings(endpoint, max_reply_bytes=65_536, tries=3)
        completions, service = ask_all(settings, ledger, make_requests(1))
    assert completions[0].finish == "stop" and completions[0].text
    assert (service.stats.faults, len(endpoint.calls)) == (2, 3)
    assert service.stats.lost == (0 if name in UNPAID else 2)
    assert service.calls == 1 + service.stats.lost


def test_after_the_last_try_the_completion_is_missing_and_asked_again_after_a_restart(
    ledger, make_settings, make_requests, ask_all
):
    bad = {"text 1", "text 4"}

    def script(number, body):
        return Act(body=b"?") if body["messages"][0]["content"] in bad else Act()

    with FakeEndpoint(script) as endpoint:
        settings = make_settings(endpoint, tries=3)
        completions, service = ask_all(settings, ledger, make_requests(6))
        assert [id for id in range(6) if completions[id].finish == "missing"] == [1, 4]
        assert completions[1].text == "" and completions[1].usage == Usage()
        assert (len(endpoint.calls), service.stats.missing, service.calls) == (10, 2, 10)
        bad.clear()
        completions, service = ask_all(settings, ledger, make_requests(6))
        assert {one.finish for one in completions.values()} == {"stop"}
    assert (len(endpoint.calls), service.calls) == (12, 12)


def test_a_reply_that_hangs_is_lost_and_counted_as_paid(
    ledger, make_settings, make_requests, ask_all
):
    hold = threading.Event()
    with FakeEndpoint(lambda number, body: Act(hold=None if number else hold)) as endpoint:
        prices = {"input_price": 0.0, "output_price": 1e6, "budget": 1000.0}
        settings = make_settings(endpoint, timeout=0.5, **prices)
        completions, service = ask_all(settings, ledger, make_requests(1))
        hold.set()
    assert completions[0].finish == "stop"
    assert (service.stats.lost, service.calls) == (1, 2)
    assert service.cost == 10 + 4  # the most that the lost call can cost, and the reply
    assert Ledger(ledger).lost == 1


def test_a_reply_that_drips_is_lost_too(ledger, make_settings, make_requests, ask_all):
    """Each byte comes in time, the whole reply does not."""
    with FakeEndpoint(lambda number, body: Act(drip=0.0 if number else 0.1)) as endpoint:
        settings = make_settings(endpoint, timeout=1.0)
        completions, service = ask_all(settings, ledger, make_requests(1))
    assert (completions[0].finish, service.stats.lost) == ("stop", 1)


def test_an_endpoint_that_is_not_there_ends_with_one_line(
    ledger, make_settings, make_requests, ask_all
):
    with FakeEndpoint() as endpoint:
        settings = make_settings(endpoint, tries=2, give_up_after=4)
    said = one_line(lambda: ask_all(settings, ledger, make_requests(20)))
    assert "gave no reply to 4 requests in a row, 2 calls each (the last: no connection" in said
    assert Ledger(ledger).calls == 0


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (400, "see model, sampling"),
        (401, "see the key in SOME_KEY"),
        (403, "see the key in SOME_KEY"),
        (404, "see base_url and model"),
        (422, "see model, sampling"),
        (307, "see base_url and model"),
    ],
)
def test_what_no_retry_mends_stops_with_one_line_without_the_key(
    status, said, ledger, make_settings, make_requests, ask_all, monkeypatch
):
    monkeypatch.setenv("SOME_KEY", "sk-very-secret")
    message = "bad:\x1b[2J\nsk-very-secret " + "x" * 500
    with FakeEndpoint(lambda number, body: error(status, "c", message)) as endpoint:
        settings = make_settings(endpoint, key_variable="SOME_KEY", concurrency=1)
        text = one_line(lambda: ask_all(settings, ledger, make_requests(3)))
        assert len(endpoint.calls) == 1
    assert said in text and f"({status}: bad: [2J *** xxx" in text
    assert "secret" not in text and "\x1b" not in text and len(text) < 500


def test_refusals_of_the_content_filter_are_replies_counted_apart(
    ledger, make_settings, make_requests, ask_all
):
    acts = [
        error(400, "content_filter", "no"),
        Act(body={"choices": [{"message": {}, "finish_reason": "content_filter"}]}),
        error(400, "context_length_exceeded", "too long"),
        error(400, "", "This model's maximum context length is 10 tokens."),
        Act(),
    ]

    def script(number, body):
        return acts[int(body["messages"][0]["content"].split()[1])]

    with FakeEndpoint(script) as endpoint:
        completions, service = ask_all(make_settings(endpoint), ledger, make_requests(5))
        finishes = [completions[id].finish for id in range(5)]
        assert finishes == ["content_filter", "content_filter", "too_long", "too_long", "stop"]
        assert (service.stats.filtered, service.stats.too_long) == (2, 2)
        ask_all(make_settings(endpoint), ledger, make_requests(5))
        assert len(endpoint.calls) == 5


def test_replies_without_usage_count_as_the_most_that_they_can_cost(
    ledger, make_settings, make_requests, ask_all
):
    body = {"choices": [{"message": {"content": "a"}, "finish_reason": "stop"}]}
    with FakeEndpoint(lambda number, _: Act(body=body)) as endpoint:
        prices = {"input_price": 0.0, "output_price": 1e6}
        settings = make_settings(endpoint, **prices)
        completions, service = ask_all(settings, ledger, make_requests(1, top_logprobs=3))
    assert completions[0].usage.output_tokens == 10 and service.cost == 10.0
    assert (service.stats.without_usage, service.stats.without_logprobs) == (1, 1)


def drain(service):
    completions = []
    while service.pending:
        completions += service.step(wait=10.0)
    return completions


def test_the_cap_on_requests_is_exact_and_the_same_command_goes_on(
    ledger, make_settings, make_requests, ask_all
):
    with FakeEndpoint() as endpoint:
        settings = make_settings(endpoint, max_requests=17)
        with EndpointService(settings, ledger) as service:
            service.submit(make_requests(50))
            done = []
            said = one_line(lambda: [done.extend(service.step(10.0)) for _ in range(1000)])
            assert one_line(service.step) == said
        assert "the cap of the endpoint is reached: 17 requests (max_requests)" in said
        assert len(done) == len(endpoint.calls) == sum(endpoint.paid.values()) == 17
        completions, _ = ask_all(
            make_settings(endpoint, max_requests=50), ledger, make_requests(50)
        )
        assert len(completions) == len(endpoint.calls) == 50


def test_the_budget_is_never_passed_and_used_up_but_for_one_request(
    ledger, make_settings, make_requests
):
    """A reply costs 4 and may cost 10, so that 90 are spent before a call does not fit."""
    with FakeEndpoint() as endpoint:
        prices = {"input_price": 0.0, "output_price": 1e6, "budget": 99.0}
        settings = make_settings(endpoint, max_requests=None, **prices)
        with EndpointService(settings, ledger) as service:
            service.submit(make_requests(100))
            said = one_line(lambda: drain(service))
        assert "99 (budget)" in said
        assert service.cost == 4 * len(endpoint.calls) == 92


def test_a_cancelled_request_is_not_handed_out_and_its_call_is_kept(
    ledger, make_settings, make_requests
):
    hold = threading.Event()
    with FakeEndpoint(lambda number, body: Act(hold=hold)) as endpoint:
        settings = make_settings(endpoint, concurrency=2)
        with EndpointService(settings, ledger) as service:
            service.submit(make_requests(4))
            wait_until(lambda: len(endpoint.calls) == 2)
            service.cancel([0, 3, "unknown"])
            service.submit(make_requests(1, first=3))  # the id may be used again
            assert service.pending == 3
            service.cancel([3])
            hold.set()
            assert {one.id for one in drain(service)} == {1, 2}
            wait_until(lambda: len(Ledger(ledger)) == 3)
        assert len(endpoint.calls) == 3


def test_a_step_returns_while_calls_hang(ledger, make_settings, make_requests):
    hold = threading.Event()
    with (
        FakeEndpoint(lambda number, body: Act(hold=hold)) as endpoint,
        EndpointService(make_settings(endpoint), ledger) as service,
    ):
        service.submit(make_requests(2))
        assert service.step() == service.step(wait=0.01) == []
        assert service.pending == 2
        hold.set()
        assert len(drain(service)) == 2
        assert service.step(wait=10.0) == []  # nothing is pending: no wait


def test_a_reply_is_on_the_disk_before_it_is_handed_out(ledger, make_settings, make_requests):
    with FakeEndpoint() as endpoint, EndpointService(make_settings(endpoint), ledger) as service:
        service.submit(make_requests(12))
        done = 0
        while service.pending:
            done += len(service.step(wait=10.0))
            assert len(Ledger(ledger)) >= done


def test_the_lowest_priority_goes_first(ledger, make_settings, make_requests, ask_all):
    requests = [replace(one, priority=-one.id) for one in make_requests(6)]
    with FakeEndpoint() as endpoint:
        ask_all(make_settings(endpoint, concurrency=1), ledger, requests)
    numbers = [int(body["messages"][0]["content"].split()[1]) for body in endpoint.calls]
    assert numbers[1:] == [5, 4, 3, 2, 1]  # the first was sent before the others were known


def test_what_is_about_to_be_spent_is_said_before_the_first_call(
    ledger, make_settings, make_requests, capsys
):
    with FakeEndpoint() as endpoint:
        prices = {"input_price": 1000.0, "output_price": 1e6, "budget": 1000.0}
        settings = make_settings(endpoint, max_requests=50, **prices)
        with EndpointService(settings, ledger, expected=80) as service:
            assert capsys.readouterr().err == ""
            service.submit(make_requests(4))
            (line,) = capsys.readouterr().err.splitlines()
            drain(service)
        # A text of six bytes: 2 tokens, and 4 for the message.
        for words in (
            f"fake at {endpoint.base_url}: 80 requests",
            "about 480 tokens in, at most 800 out",
            "at most about 800.5 in money",
            "cap is 50 requests (max_requests) and 1000 (budget)",
            "stops before the end if so much is needed",
        ):
            assert words in line
        with EndpointService(settings, ledger, expected=14) as service:
            service.submit(make_requests(1))
            drain(service)
        line = capsys.readouterr().err
        assert "10 requests: about" in line and "4 are answered already" in line
        assert "of which 4 requests and" in line and "stops before" not in line
        assert "0 replies, 1 from the log" in service.report()


def test_closing_writes_down_what_was_under_way(ledger, make_settings, make_requests, monkeypatch):
    monkeypatch.setattr("stair_jax.endpoints.service._GRACE", 0.01)
    hold = threading.Event()
    with FakeEndpoint(lambda number, body: Act(hold=hold)) as endpoint:
        service = EndpointService(make_settings(endpoint), ledger)
        service.submit(make_requests(3))
        wait_until(lambda: len(endpoint.calls) == 3)
        service.close()
        service.close()
        names = {thread.name for thread in threading.enumerate()}
        assert not any(name.startswith(("endpoint", "asyncio")) for name in names)
        hold.set()
    assert Ledger(ledger).lost == 3
    with pytest.raises(ValueError, match="closed"):
        service.submit(make_requests(1))


def test_two_pending_requests_have_different_ids(ledger, make_settings, make_requests):
    with (
        FakeEndpoint() as endpoint,
        EndpointService(make_settings(endpoint), ledger) as service,
        pytest.raises(ValueError, match="request 1 is pending already"),
    ):
        service.submit([*make_requests(2), *make_requests(2, first=1)])


def test_a_ledger_that_cannot_be_written_stops_the_run(
    tmp_path, make_settings, make_requests, ask_all
):
    (tmp_path / "file").write_text("")
    with FakeEndpoint() as endpoint:
        path = tmp_path / "file" / "replies.gz"
        said = one_line(lambda: ask_all(make_settings(endpoint), path, make_requests(1)))
    assert f"cannot write {path.parent}: a part of the path is a file, not a folder" in said


def test_a_missing_or_old_package_is_one_line_that_tells_what_to_install(
    ledger, make_settings, monkeypatch
):
    def no_openai(name, *arguments):
        raise ImportError(name)

    with FakeEndpoint() as endpoint:
        settings = make_settings(endpoint)
    monkeypatch.setattr("openai.__version__", "1.99.0")
    assert "openai 1.99.0 is installed" in one_line(lambda: EndpointService(settings, ledger))
    monkeypatch.setattr(importlib, "import_module", no_openai)
    said = one_line(lambda: EndpointService(settings, ledger))
    assert "install the extra endpoints (pip install -e '.[endpoints]'" in said


def test_the_package_is_imported_only_when_a_service_is_made():
    code = "import sys, stair_jax.endpoints.service; print('openai' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout == "False\n"


def test_an_environment_that_no_client_can_use_is_one_line(
    ledger, make_settings, make_requests, ask_all, monkeypatch
):
    monkeypatch.setenv("HTTP_PROXY", "carrier-pigeon://loft")
    monkeypatch.setenv("http_proxy", "carrier-pigeon://loft")
    with FakeEndpoint() as endpoint:
        said = one_line(lambda: ask_all(make_settings(endpoint), ledger, make_requests(1)))
    assert "cannot be called" in said and "proxies" in said


@pytest.mark.parametrize(
    ("messages", "changes", "said"),
    [
        ((), {}, "has no messages"),
        (({"role": "user"},), {}, "needs a role and a content"),
        (({"role": "user", "content": None},), {}, "needs a role and a content"),
        (({"role": "user", "content": "a"},), {"top_logprobs": 21}, "from 0 to 20, not 21"),
    ],
)
def test_requests_that_cannot_be_are_refused(messages, changes, said):
    assert said in one_line(lambda: ChatRequest("r", messages, **changes))


class TwoTurns(Task):
    """Asks for a reply, then for a reply to it."""

    def __init__(self, text):
        self.text = text

    def start(self):
        return [ChatRequest(("first",), ({"role": "user", "content": self.text},))]

    def receive(self, completion):
        if completion.id == ("first",):
            messages = ({"role": "user", "content": completion.text},)
            return [ChatRequest(("second",), messages)]
        self.result = completion.text
        return []


def test_the_driver_runs_tasks_over_it(ledger, make_settings):
    with FakeEndpoint() as endpoint, EndpointService(make_settings(endpoint), ledger) as service:
        driver = Driver(ScriptedEngine(lambda request: None), {"endpoint": service})
        tickets = {driver.add(TwoTurns(f"t{i}")): f"t{i}" for i in range(5)}
        driver.cancel(driver.add(TwoTurns("cancelled")))
        results = {}
        while driver.pending:
            results |= {tickets[done.ticket]: done.result for done in driver.step()}
    assert len(set(results.values())) == len(results) == 5
