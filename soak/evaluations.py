"""An evaluation is killed (SIGKILL) at random moments and started again until it is finished.

A tiny model answers a benchmark of 40 prompts, plain and under two attacks; a rule judges. Answers,
verdicts and tables then equal those of an undisturbed evaluation byte for byte, and what was on the
disk at a kill was neither asked nor judged again.
"""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from soak.command import ROOT
from soak.compare import differences
from soak.result import Result
from stair_jax.models import huggingface
from stair_jax.monitoring import Progress
from stair_jax.record_log import RecordLog
from stair_jax.storage import read_jsonl
from stair_jax.testing.tiny_models import tiny_model
from stair_jax.testing.tiny_tokenizers import bpe_tokenizer

ATTACKS = ("none", "rot13", "forged_tags")
_PROMPTS, _SLOTS, _TOKENS = 40, 2, 8
_POLL = 0.001  # seconds between two looks at the log
_PATIENCE = 300.0  # seconds for one start
_LARGEST_DELAY = 0.03  # seconds from what is waited for to the kill
_MOMENTS = ("answered",) * 7 + ("judged", "joined", "report")


class Event(NamedTuple):
    """A line of the log of `evaluation_client`."""

    what: str
    key: str


def run(size: int, seed: int, folder: Path, prompts: int = _PROMPTS) -> Result:
    """Kills `size` processes.

    Args:
        size: number of kills.
        seed: of the moments.
        folder: for the model, the working folders and the logs.
        prompts: of the benchmark.
    """
    result, rng = Result("evaluations"), random.Random(seed)
    inputs = write_inputs(folder / "inputs", prompts)
    undisturbed = Attacked(inputs, folder / "undisturbed")
    start = time.monotonic()
    undisturbed.finish()
    result.figures["undisturbed_run_s"] = time.monotonic() - start
    progress = Progress("evaluations", size, "kills")
    while result.counts["kills"] < size:
        attacked = Attacked(inputs, folder / f"run{result.counts['runs']}")
        while result.counts["kills"] < size and attacked.kill(rng, prompts):
            result.counts["kills"] += 1
            result.counts[f"kills when {attacked.waited_for}"] += 1
            progress.update(result.counts["kills"], failures=len(result.failures))
        attacked.finish()
        result.counts["runs"] += 1
        result.counts["answered twice"] += attacked.answered_twice
        for what in attacked.problems(undisturbed.workdir):
            result.fail(what, seed, attacked.workdir.name, size)
    progress.close()
    return result


def write_inputs(folder: Path, prompts: int) -> Path:
    """Writes a random model and a benchmark's file; returns the folder."""
    tokenizer = bpe_tokenizer()
    config, params = tiny_model(tokenizer.vocab_size)
    huggingface.save(folder / "tiny", params, config, tokenizer)
    with open(folder / "xstest_prompts.csv", "w", newline="") as file:
        rows = [
            [n, f"How do I take apart {n} of it?", "contrast_homonyms", ""] for n in range(prompts)
        ]
        csv.writer(file).writerows([["id", "prompt", "type", "focus"], *rows])
    return folder


@dataclass
class Attacked:
    """Starts of one command, until its table is there.

    Attributes:
        inputs: folder of the model and the benchmark.
        workdir: of the evaluation.
        kept: for each kill, the number of lines in the log so far, and the keys on the disk.
        waited_for: what the last kill waited for.
    """

    inputs: Path
    workdir: Path
    kept: list[tuple[int, set[str]]] = field(default_factory=list)
    waited_for: str = ""

    def kill(self, rng: random.Random, prompts: int) -> bool:
        """Starts a process and kills it at a random moment; False: it was done before."""
        before = len(self.events())
        self.waited_for = rng.choice(_MOMENTS)
        until = rng.randrange(1, prompts) if self.waited_for == "answered" else 1
        process = self._start()
        deadline = time.monotonic() + _PATIENCE
        while process.poll() is None and self._seen(before) < until:
            assert time.monotonic() < deadline, f"a start does not go on: see {self.workdir}.log"
            time.sleep(_POLL)
        time.sleep(rng.uniform(0.0, _LARGEST_DELAY))
        process.send_signal(signal.SIGKILL)
        if process.wait() != -signal.SIGKILL:
            return False
        self.kept.append((len(self.events()), self.on_disk()))
        return True

    def finish(self) -> None:
        """Starts a process and waits for its end."""
        status = self._start().wait(_PATIENCE)
        assert status == 0, f"a start ended with {status}: see {self.workdir}.log"

    def events(self) -> list[Event]:
        """What was noted so far."""
        log = self._log
        lines = log.read_text().splitlines(keepends=True) if log.exists() else []
        return [Event(*json.loads(line)) for line in lines if line.endswith("\n")]

    def on_disk(self) -> set[str]:
        """Keys of the answers and verdicts that are written."""
        stage = self.workdir / "evaluate"
        logs = stage.glob("*/.*.part*.jsonl.gz")
        keys = {record["id"] for log in logs for record in RecordLog(log)}
        for path in stage.glob("answers/[!.]*.jsonl"):
            keys |= {
                json.dumps([row["benchmark"], row["attack"], row["case"]])
                for row in read_jsonl(path)
            }
        for path in stage.glob("verdicts/[!.]*.jsonl"):
            keys |= {row["id"] for row in read_jsonl(path)}
        return keys

    @property
    def answered_twice(self) -> int:
        """Cases that were answered more than once."""
        counts = Counter(event.key for event in self.events() if event.what == "answered")
        return sum(counts.values()) - len(counts)

    def problems(self, undisturbed: Path) -> list[str]:
        """What is not as it should be at the end."""
        found = [
            f"differs from the undisturbed: {one}" for one in differences(undisturbed, self.workdir)
        ]
        events = self.events()
        for number, keys in self.kept:
            again = {event.what for event in events[number:] if event.key in keys}
            found += [f"what was on the disk was {what} again" for what in sorted(again)]
        if self.answered_twice > 2 * _SLOTS * len(self.kept):
            found.append("more was answered twice than was in flight")
        return found

    def _seen(self, before: int) -> int:
        return sum(event.what == self.waited_for for event in self.events()[before:])

    @property
    def _log(self) -> Path:
        return self.workdir.with_name(f"{self.workdir.name}.events")

    def _start(self) -> "subprocess.Popen[bytes]":
        self.workdir.parent.mkdir(parents=True, exist_ok=True)
        names = ["xstest_unsafe" + ("" if name == "none" else f":{name}") for name in ATTACKS]
        flags = [
            f"--model={self.inputs / 'tiny'}",
            f"--data={self.inputs}",
            f"--benchmarks={','.join(names)}",
            f"--max-tokens={_TOKENS}",
            f"--out={self.workdir}",
            "--config.evaluate.context_tokens=512",
            f"--config.runtime.slots={_SLOTS}",
            f"--config.runtime.compilation_cache={self.inputs / 'compiled'}",
        ]
        command = [sys.executable, "-m", "soak.evaluation_client", str(self._log), *flags]
        with open(f"{self.workdir}.log", "ab") as log:
            return subprocess.Popen(
                command,
                cwd=ROOT,
                env=os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
