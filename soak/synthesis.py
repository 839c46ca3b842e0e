"""A stage `synthesize` with a teacher is killed (SIGKILL) at random moments and started again.

The teacher, on loopback, refuses some calls for the rate, fails some, cuts some replies, and writes
some answers that break the grammar, which go back once. What the stage makes equals byte for byte
what it makes undisturbed with a teacher without faults; a reply that was on the disk at a kill is
never asked for again.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from soak.command import ROOT
from soak.result import Result
from soak.synthesis_client import CONCURRENCY
from stair_jax.endpoints.chat import identity
from stair_jax.endpoints.ledger import Ledger
from stair_jax.monitoring import Progress
from stair_jax.storage import write_jsonl
from stair_jax.testing.fake_endpoint import Act, FakeEndpoint, Script, reply_of
from stair_jax.text.steps import format_answer

_PROMPTS = 40
_POLL = 0.002  # seconds between two looks at the calls
_PATIENCE = 300.0  # seconds for one start
_LARGEST_DELAY = 0.02  # seconds from the call at which a process is killed to the kill
_FILES = ("answers.jsonl", "sft.jsonl", "rejected.jsonl", "counts.json", "metrics.jsonl")
_REPLIES = "teacher_replies.jsonl.gz"
_REFUSAL = "I'm sorry, but I can't help with that."


def run(size: int, seed: int, folder: Path, count: int = _PROMPTS) -> Result:
    """Kills `size` processes, each after a random number of calls.

    Args:
        size: number of kills.
        seed: of the moments, and of what the teacher does.
        folder: for prompts and stages.
        count: prompts of a run.
    """
    result, rng = Result("synthesis"), random.Random(seed)
    prompts = folder / "prompts"
    rows = [{"id": f"p{i}", "prompt": f"Request {i}?", "kind": "safety"} for i in range(count)]
    write_jsonl(prompts / "prompts1.jsonl", rows)
    with FakeEndpoint(lambda number, body: Act(body=_answer(body))) as endpoint:
        undisturbed = Attacked(endpoint, prompts, folder / "undisturbed")
        undisturbed.finish()
    expected, calls = undisturbed.made(), len(endpoint.calls)
    progress = Progress("synthesis", size, "kills")
    while result.counts["kills"] < size:
        place = folder / f"run{result.counts['runs']}"
        attacked = Attacked(FakeEndpoint(_script(rng.randrange(2**32))), prompts, place)
        with attacked.endpoint:
            while result.counts["kills"] < size and attacked.kill(rng, calls):
                result.counts["kills"] += 1
            attacked.finish()
        result.counts["runs"] += 1
        result.counts["calls"] += len(attacked.endpoint.calls)
        result.counts["paid twice"] += attacked.paid_twice
        for what in attacked.problems(expected):
            result.fail(what, seed, place.name, size)
        progress.update(result.counts["kills"], failures=len(result.failures))
    progress.close()
    return result


def _answer(body: Mapping[str, Any]) -> dict[str, Any]:
    """What the teacher writes; a third of the first answers break the grammar."""
    reply = reply_of(body)
    said = reply["choices"][0]["message"]
    is_sound = len(body["messages"]) > 1 or body["seed"] % 3
    steps = [("What is asked", f"It is {said['content']}.")]
    said["content"] = format_answer(steps, _REFUSAL) if is_sound else f"No tags: {_REFUSAL}"
    return reply


def _script(seed: int) -> Script:
    """What the teacher does: about one call in four gets no reply."""

    def act(number: int, body: Mapping[str, Any]) -> Act:
        rng = random.Random(f"{seed} {number}")
        refusal = Act(429, {}, {"Retry-After": "0.01"})
        faults = (refusal, refusal, Act(500, {}), Act(cut=30), Act(body=b"{"))
        good = Act(body=_answer(body), seconds=rng.uniform(0.0, 0.02))
        return rng.choice(faults) if rng.random() < 0.25 else good

    return act


@dataclass
class Attacked:
    """Starts of one stage, until it is finished.

    Attributes:
        endpoint: of the teacher.
        prompts: folder of the prompts.
        folder: of the stage.
        kept: for each kill, the number of calls so far, and the ledger as it was then.
    """

    endpoint: FakeEndpoint
    prompts: Path
    folder: Path
    kept: list[tuple[int, Ledger]] = field(default_factory=list)

    def kill(self, rng: random.Random, calls: int) -> bool:
        """Starts a process and kills it after some calls; False: it was done before."""
        process = self._start()
        until = len(self.endpoint.calls) + rng.randrange(1, calls // 2)
        _wait(lambda: process.poll() is not None or len(self.endpoint.calls) >= until)
        time.sleep(rng.uniform(0.0, _LARGEST_DELAY))
        process.send_signal(signal.SIGKILL)
        if process.wait() != -signal.SIGKILL:
            return False
        self.kept.append((len(self.endpoint.calls), Ledger(self.folder / _REPLIES)))
        return True

    def finish(self) -> None:
        """Starts a process and waits for its end."""
        status = self._start().wait(_PATIENCE)
        assert status == 0, f"a start ended with {status}: see {self.folder}.log"

    def made(self) -> dict[str, bytes]:
        """What the stage made."""
        return {name: (self.folder / name).read_bytes() for name in _FILES}

    @property
    def paid_twice(self) -> int:
        """Complete replies beyond the first to each request."""
        return sum(self.endpoint.paid.values()) - len(self.endpoint.paid)

    def problems(self, expected: Mapping[str, bytes]) -> list[str]:
        """What is not as it should be at the end."""
        found = [name for name, data in self.made().items() if data != expected[name]]
        problems = [f"{', '.join(found)} differ from those of an undisturbed stage"] * bool(found)
        address = self.endpoint.base_url
        for number, ledger in self.kept:
            later = self.endpoint.calls[number:]
            if any(identity(body, address, body["seed"]) in ledger for body in later):
                problems.append("a reply that was on the disk was asked for again")
        if self.paid_twice > CONCURRENCY * len(self.kept):
            problems.append("more was paid twice than was in flight")
        return problems

    def _start(self) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "soak.synthesis_client", self.endpoint.base_url]
        with self.folder.with_suffix(".log").open("ab") as log:
            return subprocess.Popen(
                [*command, str(self.prompts), str(self.folder)],
                cwd=ROOT,
                env=os.environ | {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "a start makes no calls"
        time.sleep(_POLL)
