"""`stair-jax serve` as a process: what it says, what it answers, how it ends."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from stair_jax import launch

ROOT = Path(launch.__file__).parents[1]
KEY = "sk-0123456789abcdef"


class Process:
    """A server of the tiny model, once it listens.

    Attributes:
      address: (host, port).
      lines: what it has said so far.
    """

    def __init__(self, model, *flags):
        command = [sys.executable, "-m", "stair_jax.launch", "serve", model, "--port=0", *flags]
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"HOME": "/nowhere"},
        )
        self.lines = []
        for line in self.process.stderr:
            self.lines.append(line)
            if found := re.search(r"ready at http://([\d.]+):(\d+)/v1", line):
                self.address = found[1], int(found[2])
                return
        raise AssertionError("".join(self.lines))

    def request(self, method, path, body=None, headers=None):
        """A connection with a request that is not answered yet."""
        connection = http.client.HTTPConnection(*self.address, timeout=60)
        connection.request(method, path, json.dumps(body) if body else None, headers or {})
        return connection

    def read(self, *arguments, **named):
        """(status, text) of a request."""
        response = self.request(*arguments, **named).getresponse()
        return response.status, response.read().decode()

    def end(self):
        """(exit status, all that it said)."""
        rest = self.process.communicate(timeout=60)[1]
        return self.process.returncode, "".join(self.lines) + rest


@pytest.fixture
def start(tiny_models):
    """`start(*flags)`: a running server, killed at the end of the test."""
    started = []

    def make(*flags):
        started.append(Process(tiny_models.model, "--served-name=tiny", *flags))
        return started[-1]

    yield make
    for each in started:
        each.process.kill()
        each.process.communicate()


def body(**fields):
    return {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], **fields}


def test_a_server_finishes_what_is_under_way_and_takes_nothing_new(start, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text(f"{KEY}\n")
    server = start(
        f"--api-key-file={keys}", "--config.runtime.slots=2", "--config.runtime.steps_per_call=1"
    )
    allowed = {"authorization": f"Bearer {KEY}"}
    assert server.read("GET", "/health") == (200, '{"status":"ready"}')
    assert server.read("GET", "/v1/models")[0] == 401
    status, text = server.read("POST", "/v1/chat/completions", body(max_tokens=2), allowed)
    assert status == 200 and json.loads(text)["usage"]["completion_tokens"] == 2
    searched = body(max_tokens=4) | {"model": "tiny:best-of-2-self-reward"}
    status, text = server.read("POST", "/v1/chat/completions", searched, allowed)
    assert status == 200 and json.loads(text)["model"] == "tiny:best-of-2-self-reward"

    # 40 answers in 2 slots: long enough.
    many = body(n=40, stream=True, temperature=1, max_tokens=100)
    stream = server.request("POST", "/v1/chat/completions", many, allowed).getresponse()
    first = stream.readline()
    server.process.send_signal(signal.SIGTERM)
    for _ in range(100):
        status, text = server.read("GET", "/health")
        if status == 503:
            break
    assert (status, text) == (503, '{"status":"draining"}')
    assert server.read("POST", "/v1/chat/completions", body(), allowed)[0] == 503
    rest = stream.read().decode()
    assert first.startswith(b"data: ") and rest.endswith("data: [DONE]\n\n")
    assert rest.count('"finish_reason":"') == 40
    code, said = server.end()
    assert code == 0 and "ended" in said and "Traceback" not in said


def test_a_reward_model_brings_searches_and_scores(start, tiny_models):
    server = start(f"--prm={tiny_models.prm}")
    names = [entry["id"] for entry in json.loads(server.read("GET", "/v1/models")[1])["data"]]
    assert "tiny:best-of-8" in names
    asked = {"model": "tiny", "prompt": "hello", "answer": ["<|Output|>yes<|/Output|>", "no"]}
    status, text = server.read("POST", "/v1/score", asked)
    assert status == 200 and len(json.loads(text)["data"]) == 2
    server.process.send_signal(signal.SIGINT)
    code, said = server.end()
    assert code == 0 and "Traceback" not in said


def test_what_takes_too_long_is_cut_off_and_the_exit_status_says_so(start):
    server = start("--drain-seconds=0", "--config.runtime.steps_per_call=1")
    many = body(n=100, stream=True, temperature=1, max_tokens=100)
    stream = server.request("POST", "/v1/chat/completions", many).getresponse()
    stream.readline()
    server.process.send_signal(signal.SIGTERM)
    *_, last = stream.read().decode().split("\n\n")[:-1]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "shutting_down"
    code, said = server.end()
    assert code == 128 + signal.SIGTERM and "1 requests were not finished" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--port=70000"], "--port is 70000: it must be at least 0 and at most 65535"),
        (["--reasoning=loud"], "--reasoning is 'loud'"),
        (["--method=best_of_n"], "--method is 'best_of_n'"),
        (["--api-key-file=/nowhere/keys"], "cannot read --api-key-file"),
        (["--config.runtime.slot=3"], "has no field slot"),
        (["--config.seed=3"], "has no field seed"),
        (["--host=256.1.1.1"], "cannot listen at --host=256.1.1.1"),
        (["--prm=/nowhere/prm"], "/nowhere/prm"),
    ],
)
def test_mistakes_are_told_in_one_line_before_weights_are_read(tiny_models, capsys, flags, message):
    assert launch.main(["stair-jax", "serve", tiny_models.model, *flags]) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_port_that_is_taken_is_told(tiny_models, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert launch.main(["stair-jax", "serve", tiny_models.model, f"--port={port}"]) == 2
    assert f"--port={port}: Address already in use" in capsys.readouterr().err


def test_a_missing_extra_is_told(tiny_models, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert launch.main(["stair-jax", "serve", tiny_models.model]) == 2
    assert "pip install 'stair_jax[serve]'" in capsys.readouterr().err
