"""The host's share of a search: scheduler, cache, trees and texts, with the devices simulated.

    python -m benchmarks.host                       # what the host costs, with devices of no cost
    python -m benchmarks.host --step-ms 4.9 --prefill-us 2.5       # and how it fills real devices

The engine is the real one, but its device programs are replaced by a few lines of NumPy that take
what a round was sent and bring each sequence as many tokens as its limit allows, on a timeline of
their own: a program begins when the one before it is done, and takes as long as the flags say. So
a CPU shows what the host does to the devices: how often they wait for it, how many slots are busy,
and how long the last trees take. Lines:

    trees   run_search over an engine that answers at once: trees, texts and records alone
    engine  requests in the shape of a search (shaped.py), drawn lengths: the engine alone
    search  both together, the scripted search of search.py

`host_us_tokens` are the host's microseconds a sampled token, and likewise a request, an iteration
and a round, in the processor's time of the thread that runs the search, so that other work on the
machine does not count; `share_of_budget` is the share of the 13.3 us that a token has at 75,000
tokens/s.
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import shaped
from benchmarks.common import Lines
from benchmarks.sampling_profile import SamplingProfile
from benchmarks.script import Script
from benchmarks.scripted import OverlayEngine, instant_engine
from benchmarks.scripted_search import SIZES, Watch, scripted_search
from stair_jax import pocket
from stair_jax.decoding.engine import Engine
from stair_jax.decoding.engine_config import EngineConfig
from stair_jax.decoding.programs import Programs
from stair_jax.decoding.requests import EngineStats
from stair_jax.decoding.slots import _STARTS, NO_TOKEN
from stair_jax.models.config import ModelConfig
from stair_jax.models.transformer import init_params
from stair_jax.search.search_report import since
from stair_jax.search.tree import SearchConfig
from stair_jax.text.chat import prepare_tokenizer

# Tokens/s of the search that the figures are compared with.
TARGET = 75_000
# So small that the cache of millions of tokens fits beside it.
_MODEL = ModelConfig(
    vocab_size=1024,
    hidden_size=16,
    intermediate_size=16,
    num_hidden_layers=1,
    num_attention_heads=1,
    num_key_value_heads=1,
    head_dim=8,
    max_position_embeddings=8192,
)


class SimulatedResults:
    """Results of a decode call as the engine reads them: there once their time has come."""

    def __init__(self, values: np.ndarray, ready_at: float):
        """`ready_at` is of `time.perf_counter`, or 0."""
        self._values, self._ready_at = values, ready_at

    def is_ready(self) -> bool:
        """Whether the call has run; without a time of its own, not before it is asked for."""
        return 0 < self._ready_at <= time.perf_counter()

    def copy_to_host_async(self) -> None:
        """Costs nothing."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        """Waits until the call has run."""
        if (seconds := self._ready_at - time.perf_counter()) > 0:
            time.sleep(seconds)
        return self._values


class SimulatedPrograms:
    """The device programs of one shard without a device: no model, and tokens up to each limit.

    Attributes:
        busy_seconds: of the simulated device.
        own_seconds: of the host for the simulation itself, which a real device does not cost.
    """

    def __init__(self, num_slots: int, step_seconds: float, prefill_seconds: float):
        """Idle slots; the time of a decode step, and of a prefilled token, padding included."""
        self.busy_seconds = self.own_seconds = 0.0
        self._step, self._token = step_seconds, prefill_seconds
        self._remaining = np.zeros(num_slots, np.int32)
        self._drawn = np.random.default_rng(0).integers(3, 1024, (num_slots, 64), np.int32)
        self._free_at = 0.0

    def prefill(self, config, backend, fused, state, tokens, spans, table):
        """Takes its time."""
        self._take(self._token * tokens.size)
        return state

    def copy_pages(self, config, backend, num_pages, state, source, target):
        """Takes none."""
        return state

    def decode(
        self,
        config,
        backend,
        num_steps,
        mode,
        fused,
        state,
        changes,
        table,
        line,
        line_table,
    ):
        """Each slot samples `num_steps` tokens, or as many as its sequence has left."""
        start = time.thread_time()
        replace, remaining = _STARTS["replace"], _STARTS["remaining"]
        changed = changes[:, replace] > 0
        left = np.where(changed, changes[:, remaining], self._remaining)
        # The device gives its idle slots to the line, in ascending order of both.
        waiting = line[line[:, replace] > 0, remaining]
        idle = np.flatnonzero(left == 0)[: len(waiting)]
        left[idle] = waiting[: len(idle)]
        sampled = np.minimum(left, num_steps)
        results = np.zeros((len(left), 2 * num_steps + 8), np.int32)
        is_there = np.arange(num_steps) < sampled[:, None]
        results[:, :num_steps] = np.where(is_there, self._drawn[:, :num_steps], NO_TOKEN)
        self._remaining = left - sampled
        self.own_seconds += time.thread_time() - start
        return state, SimulatedResults(results, self._take(self._step * num_steps))

    def _take(self, seconds: float) -> float:
        """Puts a program on the timeline; returns when it is done, or 0 without a timeline."""
        if not self._step:
            return 0.0
        self._free_at = max(self._free_at, time.perf_counter()) + seconds
        self.busy_seconds += seconds
        return self._free_at


@dataclass(frozen=True)
class GpuSizes(EngineConfig):
    """Sizes with the prefill calls of a GPU, on any device."""

    @property
    def prefill_sizes(self) -> tuple[int, ...]:
        """Rows of the prefill programs, in descending order."""
        return self.prefill_rows, self.prefill_rows // 2, self.prefill_rows // 4


def simulated_engine(flags: argparse.Namespace) -> tuple[Engine, SimulatedPrograms]:
    """The engine of a GPU as far as the host goes, and the simulated programs that it calls."""
    params = jax.jit(lambda key: init_params(_MODEL, key))(jax.random.key(0))
    sizes = GpuSizes(
        num_slots=flags.slots,
        max_length=SIZES[flags.sizes].max_length,
        cache_tokens=flags.cache_tokens,
        prefill_rows=16,
        prefill_width=128,
        steps_per_call=flags.steps_per_call,
    )
    engine = Engine(_MODEL, params, sizes)
    simulated = SimulatedPrograms(flags.slots, flags.step_ms / 1e3, flags.prefill_us / 1e6)
    engine.device.programs = Programs(simulated.prefill, simulated.copy_pages, simulated.decode)
    return engine, simulated


def main() -> None:
    """Prints a line a part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", default="trees,engine,search", help="comma-separated")
    parser.add_argument("--slots", type=int, default=512)
    parser.add_argument("--prompts", type=int, default=384)
    parser.add_argument("--trees-in-flight", type=int, default=0, help="0: slots * 3 / 4")
    parser.add_argument("--num-iterations", type=int, default=32)
    parser.add_argument("--in-flight", type=int, default=1, help="iterations of a tree at once")
    parser.add_argument("--sizes", default="short", choices=sorted(SIZES), help="of all texts")
    parser.add_argument("--rewards", default="both", help="of sign, paper, both")
    parser.add_argument("--seconds", type=float, default=15.0, help="of the engine alone")
    parser.add_argument("--steps-per-call", type=int, default=8)
    parser.add_argument("--cache-tokens", type=int, default=4_000_000)
    parser.add_argument("--step-ms", type=float, default=0.0, help="of a simulated decode step")
    parser.add_argument("--prefill-us", type=float, default=0.0, help="of a prefilled token")
    parser.add_argument("--profile", type=int, default=0, help="print so many costly functions")
    flags = parser.parse_args()
    lines = Lines(vars(flags))
    _search(flags, instant_engine(), prompts=4, profile=0)  # compiles the round of the trees
    for part in flags.parts.split(","):
        _PARTS[part](flags, lines)


def _trees_line(flags: argparse.Namespace, lines: Lines) -> None:
    values = _search(flags, instant_engine(), flags.prompts, flags.profile)
    lines("trees", **values, **_costs(values["thread_seconds"], values))


def _engine_line(flags: argparse.Namespace, lines: Lines) -> None:
    engine, programs = simulated_engine(flags)
    warm, seconds = 0.25 * flags.seconds, 0.75 * flags.seconds
    length = shaped.drawn_length
    scale = SIZES[flags.sizes].scale
    start = time.thread_time()
    with SamplingProfile(flags.profile):
        measured = shaped.drive(
            engine, flags.slots, length, warm=warm, seconds=seconds, scale=scale
        )
    # As if the drive had gone on alike before and after its window.
    share = measured.stats.calls / engine.stats.calls
    host = (time.thread_time() - start - programs.own_seconds) * share
    stats = measured.stats
    values = {
        "tokens": stats.busy_steps,
        "seconds": measured.seconds,
        "rounds": stats.slot_steps / flags.slots / flags.steps_per_call,
        "occupancy": stats.occupancy,
    }
    lines("engine", **values, **_costs(host, values))


def _search_line(flags: argparse.Namespace, lines: Lines) -> None:
    engine, programs = simulated_engine(flags)
    values = _search(flags, engine, flags.prompts, flags.profile)
    host = values["thread_seconds"] - programs.own_seconds
    busy = programs.busy_seconds / values["seconds"]
    lines("search", **values, **_costs(host, values), device_busy=busy)


_PARTS = {"trees": _trees_line, "engine": _engine_line, "search": _search_line}


def _search(flags: argparse.Namespace, engine: Any, prompts: int, profile: int) -> dict[str, float]:
    """A scripted search of so many prompts, and what it came to."""
    script = Script(prepare_tokenizer(Path(*pocket.__path__) / "base"), SIZES[flags.sizes].lengths)
    overlay = OverlayEngine(engine, script)
    before = EngineStats(**vars(engine.stats))
    in_flight = flags.trees_in_flight or flags.slots * 3 // 4
    tree = SearchConfig(num_iterations=flags.num_iterations, in_flight=flags.in_flight)
    watch = Watch(overlay, flags.slots)
    sizes, start, started = SIZES[flags.sizes], time.perf_counter(), time.thread_time()
    with SamplingProfile(profile):
        scripted_search(overlay, sizes, tree, flags.rewards, prompts, in_flight, watch.tree)
    seconds, thread_seconds = time.perf_counter() - start, time.thread_time() - started
    stats = since(before, engine.stats)
    work = overlay.work
    return {
        "seconds": seconds,
        "thread_seconds": thread_seconds,
        "tokens": stats.busy_steps,
        "tokens_a_tree": stats.busy_steps / prompts,
        "tokens_per_s": stats.busy_steps / seconds,
        "requests": work.steps + work.rollouts + work.replies,
        "iterations": prompts * flags.num_iterations,
        "rounds": stats.slot_steps / flags.slots / flags.steps_per_call,
        "occupancy": stats.occupancy,
        "full_occupancy": watch.full_occupancy,
        "tail": watch.tail,
        "tail_steps": watch.tail_steps,
        "hit_rate": stats.hit_rate,
        "prefilled_a_tree": stats.prefilled / prompts,
    }


def _costs(host: float, values: dict[str, float]) -> dict[str, float]:
    """Microseconds of `host` seconds by what was done in them, and the share of the target's."""
    each = ("tokens", "requests", "iterations", "rounds")
    costs = {f"host_us_{name}": host / values[name] * 1e6 for name in each if values.get(name)}
    return costs | {"share_of_budget": host / values["tokens"] * TARGET}


if __name__ == "__main__":
    main()
