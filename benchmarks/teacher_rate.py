"""How much of an endpoint's rate a teacher's replies reach through the stage `synthesize`.

    python -m benchmarks.teacher_rate

An endpoint on loopback, in this process, lets --rates calls a second begin (a token bucket that
holds those of one second), replies after .5 to 1.5 of a latency, and refuses other calls after
50 ms (429). The stage, in a process of its own, has a prompt a call, knows nothing of the rate, and
is stopped after --seconds. For each rate there is a JSON line:

    first    replies of the first 60 s, as a share of what the rate allows
    share    the same of the time behind them
    refused  calls that were refused, of all

The bars: a share of .9, and .02 refused.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from stair_jax.run.context import StageContext
from stair_jax.run.runtime import Runtime
from stair_jax.settings import build
from stair_jax.stages import Synthesize
from stair_jax.storage import write_jsonl
from stair_jax.testing.fake_endpoint import Act, FakeEndpoint, reply_of
from stair_jax.text.steps import format_answer

SHARE, REFUSED = 0.9, 0.02
WARM = 60.0  # seconds until the rate has to be reached
_REFUSAL_SECONDS = 0.05
_PATIENCE = 120.0  # seconds until the first call
_TEXT = format_answer([("What is asked", "It is a request.")], "I'm sorry, but I can't help.")


class Bucket:
    """The script of an endpoint of a limited rate.

    Attributes:
      begin: time of the first call; 0: there was none.
      ends: times at which replies are complete.
      refused: number of calls that were refused.
    """

    def __init__(self, rate: float, latency: float, seed: int = 0):
        """A full bucket; `rate` in calls a second, `latency` in seconds."""
        self._rate, self._latency, self._rng = rate, latency, random.Random(seed)
        self._tokens, self._last, self._lock = rate, 0.0, threading.Lock()
        self.begin, self.refused, self.ends = 0.0, 0, list[float]()

    def __call__(self, number: int, body: Mapping[str, Any]) -> Act:
        """What happens to a call; see `FakeEndpoint`."""
        with self._lock:
            seconds = self.take(time.monotonic())
        if seconds is None:
            return Act(429, {}, {"Retry-After": "1"}, seconds=_REFUSAL_SECONDS)
        reply = reply_of(body)
        reply["choices"][0]["message"]["content"] = _TEXT
        return Act(body=reply, seconds=seconds)

    def take(self, now: float) -> float | None:
        """Seconds that a call at the time `now` takes; None: it is refused."""
        self.begin = self.begin or now
        self._tokens = min(self._rate, self._tokens + (now - (self._last or now)) * self._rate)
        self._last = now
        if self._tokens < 1:
            self.refused += 1
            return None
        self._tokens -= 1
        seconds = self._latency * self._rng.uniform(0.5, 1.5)
        self.ends.append(now + seconds)
        return seconds

    def share(self, start: float, end: float) -> float:
        """Replies from `start` to `end`, in seconds since the first call, of what is allowed."""
        count = sum(start <= time - self.begin < end for time in self.ends)
        return count / (end - start) / self._rate


def main() -> None:
    """Measures each rate, or is the stage that is measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rates", default="20:3,50:1,100:1", help="calls a second : latency in s")
    parser.add_argument("--seconds", type=float, default=180.0, help="of each, from its first call")
    parser.add_argument("--stage", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.stage:
        taught(os.environ["BASE_URL"], Path(arguments.stage))()
        return
    for text in arguments.rates.split(","):
        rate, latency = map(float, text.split(":"))
        print(json.dumps(measure(rate, latency, arguments.seconds)), flush=True)


def measure(rate: float, latency: float, seconds: float) -> dict[str, Any]:
    """Runs the stage for so long against an endpoint of this rate."""
    bucket = Bucket(rate, latency)
    with tempfile.TemporaryDirectory() as folder, FakeEndpoint(bucket) as endpoint:
        count = round(rate * (seconds + WARM))
        rows = [{"id": f"p{i}", "prompt": f"Request {i}?", "kind": "safety"} for i in range(count)]
        write_jsonl(Path(folder) / "prompts1.jsonl", rows)
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.teacher_rate", "--stage", folder],
            env=os.environ | {"BASE_URL": endpoint.base_url, "NO_PROXY": "127.0.0.1"},
            stderr=subprocess.DEVNULL,
        )
        try:
            _wait(process, bucket, seconds)
        finally:
            process.kill()
            process.wait()
    calls = len(bucket.ends) + bucket.refused
    return {
        "rate": rate,
        "latency_s": latency,
        "seconds": seconds,
        "calls": calls,
        "first": round(bucket.share(0.0, WARM), 3),
        "share": round(bucket.share(WARM, seconds), 3),
        "refused": round(bucket.refused / calls, 4),
        "bar_share": SHARE,
        "bar_refused": REFUSED,
    }


def _wait(process: "subprocess.Popen[bytes]", bucket: Bucket, seconds: float) -> None:
    """Until so many seconds after the first call; the stage must not end before."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < (bucket.begin + seconds if bucket.begin else deadline):
        if process.poll() is not None:
            raise RuntimeError(f"the stage ended with {process.returncode}")
        time.sleep(0.05)


def taught(base_url: str, folder: Path) -> Callable[[], None]:
    """A stage whose teacher is at `base_url`, over the prompts of a folder; a rule judges."""
    values = {
        "prompts": "data",
        "template": "steps",
        "num_candidates": 1,
        "kinds": ("safety",),
        "judge": {"source": "rule:safety", "helpfulness_prompts": (), "probe": ""},
        "teacher_endpoint": {
            "base_url": base_url,
            "model": "fake",
            "max_requests": 10**7,
            "concurrency": 256,
            "sampling": {"max_tokens": 64},
        },
    }
    stage, runtime = build(Synthesize, values, "config"), build(Runtime, {}, "runtime")
    place = folder / "synthesize"
    place.mkdir()
    context = StageContext("synthesize", runtime, 0, place, {"prompts": folder})
    return partial(stage.run, context)


if __name__ == "__main__":
    main()
