"""A process that asks an endpoint is killed (SIGKILL) at random moments and started again.

The endpoint, on loopback, refuses some calls for the rate, fails some, and cuts some replies. What
was on the disk at a kill is never asked again: nothing is paid twice but what was in flight.
"""

import os
import random
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from soak.command import ROOT
from soak.result import Result
from stair_jax.endpoints.chat import identity
from stair_jax.endpoints.ledger import Ledger
from stair_jax.monitoring import Progress
from stair_jax.testing.fake_endpoint import Act, FakeEndpoint, Script, reply_of

CONCURRENCY = 8  # calls that a client has in flight
_POLL = 0.002  # seconds between two looks at the calls
_PATIENCE = 300.0  # seconds for one start
_REFUSAL = Act(429, {}, {"Retry-After": "0.01"})
_FAULTS = (_REFUSAL, _REFUSAL, Act(500, {}), Act(cut=30), Act(body=b"{"))
_LARGEST_DELAY = 0.02  # seconds from the call at which a process is killed to the kill


@dataclass
class Attacked(ABC):
    """Starts of one command, until its results are there.

    Attributes:
        endpoint: that is asked; by its settings a sample has its number as its seed.
        folder: of what the command makes.
        count: calls of a run that nothing disturbs.
        kept: for each kill, the number of calls so far, and the ledger as it was then.
    """

    LEDGER: ClassVar[str]
    IN_FLIGHT: ClassVar[int] = CONCURRENCY  # what a kill may have paid again

    endpoint: FakeEndpoint
    folder: Path
    count: int
    kept: list[tuple[int, Ledger]] = field(default_factory=list, kw_only=True)

    @abstractmethod
    def command(self) -> list[str]:
        """The module that is run, and its arguments."""

    @abstractmethod
    def differences(self) -> list[str]:
        """What is not as it should be in what the command made."""

    @property
    def num_calls(self) -> int:
        """Calls so far, by which the moment of a kill is chosen."""
        return len(self.endpoint.calls)

    def kill(self, rng: random.Random) -> bool:
        """Starts a process and kills it after some calls; False: it was done before."""
        process = self._start()
        until = self.num_calls + rng.randrange(1, self.count // 2)
        deadline = time.monotonic() + _PATIENCE
        while process.poll() is None and self.num_calls < until:
            assert time.monotonic() < deadline, "a start makes no calls"
            time.sleep(_POLL)
        time.sleep(rng.uniform(0.0, _LARGEST_DELAY))
        process.send_signal(signal.SIGKILL)
        if process.wait() != -signal.SIGKILL:
            return False
        self.kept.append((len(self.endpoint.calls), Ledger(self.folder / self.LEDGER)))
        return True

    def finish(self) -> None:
        """Starts a process and waits for its end."""
        status = self._start().wait(_PATIENCE)
        assert status == 0, f"a start ended with {status}: see {self.folder}.log"

    @property
    def paid_twice(self) -> int:
        """Complete replies beyond the first to each request."""
        return sum(self.endpoint.paid.values()) - len(self.endpoint.paid)

    def problems(self) -> list[str]:
        """What is not as it should be at the end."""
        found, address = self.differences(), self.endpoint.base_url
        for number, ledger in self.kept:
            later = self.endpoint.calls[number:]
            if any(identity(body, address, body["seed"]) in ledger for body in later):
                found.append("a reply that was on the disk was asked for again")
        if self.paid_twice > self.IN_FLIGHT * len(self.kept):
            found.append("more was paid twice than was in flight")
        return found

    def _start(self) -> "subprocess.Popen[bytes]":
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.folder.with_suffix(".log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", *self.command()],
                cwd=ROOT,
                env=os.environ | {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )


def attack(
    name: str,
    size: int,
    seed: int,
    folder: Path,
    make: Callable[[FakeEndpoint, Path], Attacked],
    reply: Callable[[Mapping[str, Any]], Any] = reply_of,
    faults: Sequence[Act] = _FAULTS,
) -> Result:
    """Kills `size` processes, each after a random number of calls.

    Args:
        name: of the soak test.
        size: number of kills.
        seed: of the moments, and of what the endpoint does.
        folder: of the folders of the runs.
        make: a run, from its endpoint and its folder.
        reply: the body of a complete reply, by that of its call.
        faults: what comes in the place of a reply.
    """
    result, rng = Result(name), random.Random(seed)
    progress = Progress(name, size, "kills")
    while result.counts["kills"] < size:
        place = folder / f"run{result.counts['runs']}"
        attacked = make(FakeEndpoint(_script(rng.randrange(2**32), reply, faults)), place)
        with attacked.endpoint:
            while result.counts["kills"] < size and attacked.kill(rng):
                result.counts["kills"] += 1
            attacked.finish()
        result.counts["runs"] += 1
        result.counts["calls"] += len(attacked.endpoint.calls)
        result.counts["paid twice"] += attacked.paid_twice
        for what in attacked.problems():
            result.fail(what, seed, place.name, size)
        progress.update(result.counts["kills"], failures=len(result.failures))
    progress.close()
    return result


def _script(seed: int, reply: Callable[[Mapping[str, Any]], Any], faults: Sequence[Act]) -> Script:
    """What the endpoint does: about one call in four gets no reply."""

    def act(number: int, body: Mapping[str, Any]) -> Act:
        rng = random.Random(f"{seed} {number}")
        good = Act(body=reply(body), seconds=rng.uniform(0.0, 0.02))
        return rng.choice(faults) if rng.random() < 0.25 else good

    return act
