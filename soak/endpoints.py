"""A process that asks an endpoint is killed (SIGKILL) at random moments and started again.

The endpoint, on loopback, refuses some calls for the rate, fails some, and cuts some replies. The
results are, byte for byte, the replies that the endpoint has for these requests; what was on the
disk at a kill is never asked again, so that nothing is paid twice but what was in flight.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from soak.command import ROOT
from soak.endpoint_client import CONCURRENCY, requests, settings
from soak.result import Result
from stair_jax.endpoints.chat import identity, request_body
from stair_jax.endpoints.ledger import Ledger
from stair_jax.monitoring import Progress
from stair_jax.testing.fake_endpoint import Act, FakeEndpoint, reply_of

_REQUESTS = 80
_POLL = 0.002  # seconds between two looks at the calls
_PATIENCE = 300.0  # seconds for one start
_LARGEST_DELAY = 0.02  # seconds from the call at which a process is killed to the kill
_CLIENT = ("-m", "soak.endpoint_client")
LEDGER, RESULTS = "replies.jsonl.gz", "results.jsonl"


def run(size: int, seed: int, folder: Path, count: int = _REQUESTS) -> Result:
    """Kills `size` processes, each after a random number of calls.

    Args:
        size: number of kills.
        seed: of the moments, and of what the endpoint does.
        folder: for ledgers and results.
        count: requests of a run.
    """
    result, rng = Result("endpoints"), random.Random(seed)
    progress = Progress("endpoints", size, "kills")
    while result.counts["kills"] < size:
        folder_of_run = folder / f"run{result.counts['runs']}"
        attacked = Attacked(FakeEndpoint(_script(rng.randrange(2**32))), folder_of_run, count)
        with attacked.endpoint:
            while result.counts["kills"] < size and attacked.kill(rng):
                result.counts["kills"] += 1
            attacked.finish()
        result.counts["runs"] += 1
        result.counts["calls"] += len(attacked.endpoint.calls)
        result.counts["paid twice"] += attacked.paid_twice
        for what in attacked.problems():
            result.fail(what, seed, folder_of_run.name, size)
        progress.update(result.counts["kills"], failures=len(result.failures))
    progress.close()
    return result


def _script(seed: int) -> Any:
    """What the endpoint does: about one call in four gets no reply."""

    def act(number: int, body: Mapping[str, Any]) -> Act:
        rng = random.Random(f"{seed} {number}")
        refusal = Act(429, {}, {"Retry-After": "0.01"})
        faults = (refusal, refusal, Act(500, {}), Act(cut=30), Act(body=b"{"))
        seconds = rng.uniform(0.0, 0.02)
        return rng.choice(faults) if rng.random() < 0.25 else Act(seconds=seconds)

    return act


@dataclass
class Attacked:
    """Starts of one command, until its results are there.

    Attributes:
        endpoint: that is asked.
        folder: of ledger and results.
        count: requests.
        kept: for each kill, the number of calls so far, and the ledger as it was then.
    """

    endpoint: FakeEndpoint
    folder: Path
    count: int
    kept: list[tuple[int, Ledger]] = field(default_factory=list)

    def kill(self, rng: random.Random) -> bool:
        """Starts a process and kills it after some calls; False: it was done before."""
        process = self._start()
        until = len(self.endpoint.calls) + rng.randrange(1, self.count // 2)
        deadline = time.monotonic() + _PATIENCE
        while process.poll() is None and len(self.endpoint.calls) < until:
            assert time.monotonic() < deadline, "a start makes no calls"
            time.sleep(_POLL)
        time.sleep(rng.uniform(0.0, _LARGEST_DELAY))
        process.send_signal(signal.SIGKILL)
        if process.wait() != -signal.SIGKILL:
            return False
        self.kept.append((len(self.endpoint.calls), Ledger(self.folder / LEDGER)))
        return True

    def finish(self) -> None:
        """Starts a process and waits for its end."""
        status = self._start().wait(_PATIENCE)
        assert status == 0, f"a start ended with {status}: see {self.folder}/log"

    @property
    def paid_twice(self) -> int:
        """Complete replies beyond the first to each request."""
        return sum(self.endpoint.paid.values()) - len(self.endpoint.paid)

    def problems(self) -> list[str]:
        """What is not as it should be at the end."""
        found = []
        if (self.folder / RESULTS).read_text() != self.expected():
            found.append("the results are not the endpoint's replies to the requests")
        ids = self._identities()
        for number_of_calls, ledger in self.kept:
            later = {ids[_canonical(body)] for body in self.endpoint.calls[number_of_calls:]}
            if any(identity in ledger for identity in later):
                found.append("a reply that was on the disk was asked for again")
        if self.paid_twice > CONCURRENCY * len(self.kept):
            found.append("more was paid twice than was in flight")
        return found

    def expected(self) -> str:
        """The results that are right."""
        own = settings(self.endpoint.base_url)
        texts = [
            reply_of(request_body(one, own))["choices"][0]["message"]["content"]
            for one in requests(self.count)
        ]
        rows = [{"id": id, "text": text, "finish": "stop"} for id, text in enumerate(texts)]
        return "".join(f"{json.dumps(row)}\n" for row in rows)

    def _identities(self) -> dict[str, str]:
        """The identity of each call by its body."""
        own = settings(self.endpoint.base_url)
        bodies = [(request_body(one, own), one.sample) for one in requests(self.count)]
        return {_canonical(body): identity(body, own.endpoint, number) for body, number in bodies}

    def _start(self) -> "subprocess.Popen[bytes]":
        self.folder.mkdir(parents=True, exist_ok=True)
        files = [str(self.folder / LEDGER), str(self.folder / RESULTS)]
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, *_CLIENT, self.endpoint.base_url, *files, str(self.count)],
                cwd=ROOT,
                env=os.environ | {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )


def _canonical(body: Mapping[str, Any]) -> str:
    return json.dumps(body, sort_keys=True)
