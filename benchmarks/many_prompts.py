"""Time and memory from a file of very many prompts to the first request of their search.

    python -m benchmarks.many_prompts [--prompts 1000000] [--folder /tmp] [--stage search]

Makes a file of prompts of 20 to 90 words in a temporary folder, about 500 bytes each, and does in
processes of their own what a run does before its search begins. For each there is a JSON line:

    hash    the file of the user is hashed, as at each first start of a run
    files   it is checked and copied by the stage `files`
    search  the copy is checked and indexed by the stage `search`, split among as many processes as
            --processes says, and searched up to the first request, over an engine without a model

With --stage=synthesize the last one is

    synthesize  the same by the stage `synthesize`, up to the first request to a teacher

    wall_s, cpu_s  seconds; on a busy machine those of the processor say more
    peak_mb        the most memory of the process, in MB
    above_mb       how much of that came after the start, with all modules loaded

The last line has the sums, and the bars: 60 s of the processor, and 500 MB above the start.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks.import_memory import status

SECONDS, MEGABYTES = 60.0, 500.0
_STAGES = {"search": ("safety", "helpfulness"), "synthesize": ("safety",)}  # kinds of prompts
_WORDS = [f"word{number}" for number in range(500)]


def main() -> None:
    """Makes the prompts, and takes each step in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=10**6)
    parser.add_argument("--folder", type=Path, default=None, help="where to make the file")
    parser.add_argument("--processes", type=int, default=1, help="of the search")
    parser.add_argument("--stage", default="search", choices=_STAGES, help="that has the prompts")
    parser.add_argument("--step", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        measure(arguments.step, arguments.folder, arguments.processes)
        return
    steps = ("hash", "files", arguments.stage)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        kinds = _STAGES[arguments.stage]
        make_prompts(Path(folder) / "given.jsonl", arguments.prompts, kinds)
        lines = [_take(step, folder, arguments.processes) for step in steps]
    total = {name: round(sum(line[name] for line in lines), 1) for name in ("wall_s", "cpu_s")}
    most = max(line["above_mb"] for line in lines)
    bars = {"bar_s": SECONDS, "bar_mb": MEGABYTES}
    print(
        json.dumps({"name": "all", "prompts": arguments.prompts, **total, "above_mb": most} | bars)
    )


def make_prompts(path: Path, count: int, kinds: Sequence[str]) -> None:
    """Writes so many prompts, of these kinds in turn, always the same."""
    rng = random.Random(0)
    with open(path, "w", encoding="utf-8") as file:
        for number in range(count):
            text = " ".join(rng.choices(_WORDS, k=rng.randrange(20, 90)))
            kind = kinds[number % len(kinds)]
            row = {"id": f"prompt-{number:07d}", "prompt": text, "kind": kind, "source": "made"}
            file.write(json.dumps(row) + "\n")


def _take(step: str, folder: str, processes: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.many_prompts", "--step", step]
    command += ["--folder", folder, "--processes", str(processes)]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True)
    print(done.stdout, end="", flush=True)
    line: dict[str, Any] = json.loads(done.stdout)
    return line


def measure(step: str, folder: Path, processes: int) -> None:
    """Takes a step and prints what it took."""
    steps = {"hash": _hash, "files": _copy, "search": _search, "synthesize": _synthesize}
    act = steps[step](folder, processes)
    before, start, cpu = status("VmRSS"), time.perf_counter(), time.process_time()
    act()
    line = {
        "name": step,
        "wall_s": round(time.perf_counter() - start, 1),
        "cpu_s": round(time.process_time() - cpu, 1),
        "peak_mb": round(status("VmHWM") / 1e6),
        "above_mb": round((status("VmHWM") - before) / 1e6),
    }
    print(json.dumps(line), flush=True)


def _hash(folder: Path, processes: int) -> Callable[[], Any]:
    from stair_jax.run.source_hashes import SourceHashes
    from stair_jax.stages.files import Files

    return lambda: SourceHashes(folder).of(Files(prompts=(str(folder / "given.jsonl"),)))


def _copy(folder: Path, processes: int) -> Callable[[], Any]:
    from stair_jax.stages.files import Files

    stage = Files(prompts=(str(folder / "given.jsonl"),))
    context: Any = SimpleNamespace(name="files", folder=folder)
    return lambda: stage.run(context)


class _Begun(Exception):
    """The first request was made."""


def _search(folder: Path, processes: int) -> Callable[[], Any]:
    from stair_jax import pocket
    from stair_jax.parallel.processes import collectives
    from stair_jax.search.runner import run_search
    from stair_jax.stages.search import Search
    from stair_jax.stages.search_parts import RecordShards
    from stair_jax.testing.scripted_engine import ScriptedEngine, ZeroReplies
    from stair_jax.text.chat import prepare_tokenizer

    tokenizer = prepare_tokenizer(Path(*pocket.__path__) / "base")
    stage = Search(model="base", prompts="files")
    context: Any = SimpleNamespace(name="search", seed=0, input=lambda field: folder)
    engine: Any = ScriptedEngine(ZeroReplies())
    engine.submit = lambda *requests: _begin()
    collectives.num_processes = lambda: processes  # type: ignore[method-assign]

    def act() -> None:
        parts = RecordShards(folder / "trees", stage.read_prompts(context))
        settings = stage.search_settings
        try:
            run_search(parts.prompts, engine, tokenizer, settings, 0, print, reward=stage.reward)
        except _Begun:
            print(f"{len(parts.prompts)} prompts", file=sys.stderr)

    return act


def _synthesize(folder: Path, processes: int) -> Callable[[], Any]:
    from benchmarks.teacher_rate import taught
    from stair_jax.endpoints.service import EndpointService

    stage = taught("http://127.0.0.1:9/v1", folder)
    EndpointService.submit = lambda *arguments: _begin()  # type: ignore[method-assign]

    def act() -> None:
        with suppress(_Begun):
            stage()

    return act


def _begin() -> None:
    raise _Begun


if __name__ == "__main__":
    main()
