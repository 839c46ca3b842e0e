"""The process of chat templates is kept, and replaced when it fails or is lost."""

import json
import os
import signal
import threading

import pytest

from stair_jax.text.template_worker import TemplateWorker, WorkerError

LIMITS = {"seconds": 1, "megabytes": 512, "characters": 1000}
ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


def request(template, **variables):
    return {"template": template, "variables": [json.dumps(variables)], **LIMITS}


@pytest.fixture
def worker():
    worker = TemplateWorker()
    yield worker
    worker.close()


def pid(worker):
    return worker._process.pid


def test_one_process_answers_many_requests_and_remembers_none(worker):
    first = "{% set a = 1 %}{% macro m() %}x{% endmacro %}{{ m() }}{{ b }}"
    assert worker.ask(request(first, b="\n\U0001f600"), 60) == {"texts": ["x\n\U0001f600"]}
    kept = pid(worker)
    assert worker.ask(request("{{ a }}{{ m }}{{ b }}|"), 60) == {"texts": ["|"]}
    long = "\n".join(map(str, range(200))) * 1000
    assert worker.ask(request("{{ b | length }}", b=long), 60) == {"texts": [str(len(long))]}
    assert pid(worker) == kept


def test_a_template_that_fails_gets_no_successor_in_its_process(worker):
    worker.ask(request("a"), 60)
    before = pid(worker)
    assert "error" in worker.ask(request("{{ 'a' * 3000000000 }}"), 60)
    assert worker.ask(request("a"), 60) == {"texts": ["a"]}
    assert pid(worker) != before


def test_each_request_has_its_own_seconds(worker):
    busy = "{% for a in range(300) %}{% for b in range(9999) %}{% endfor %}{% endfor %}"
    for _ in range(10):
        worker.ask(request("a"), 60)
        worker.ask(request(busy), 60)
    with pytest.raises(WorkerError) as caught:
        worker.ask(request(ENDLESS), 60)
    assert caught.value.signal == signal.SIGXCPU
    assert worker.ask(request("a"), 60) == {"texts": ["a"]}


def test_a_process_that_was_killed_is_replaced(worker):
    worker.ask(request("a"), 60)
    os.kill(pid(worker), signal.SIGKILL)
    os.waitid(os.P_PID, pid(worker), os.WEXITED | os.WNOWAIT)
    assert worker.ask(request("b"), 60) == {"texts": ["b"]}


def test_an_answer_that_does_not_come_is_not_waited_for(worker):
    with pytest.raises(WorkerError) as caught:
        worker.ask(request(ENDLESS), 0.0)
    assert caught.value.signal is None
    assert worker.ask(request("a"), 60) == {"texts": ["a"]}


def test_threads_get_their_own_answers(worker):
    found = {}

    def ask(number):
        found[number] = worker.ask(request("{{ b }}", b=number), 60)["texts"]

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {n: [str(n)] for n in range(8)}


def test_ctrl_c_of_a_terminal_does_not_end_it(worker):
    worker.ask(request("a"), 60)
    kept = pid(worker)
    os.kill(kept, signal.SIGINT)
    assert worker.ask(request("b"), 60) == {"texts": ["b"]} and pid(worker) == kept
