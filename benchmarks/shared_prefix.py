"""What reading shared prefixes once a group saves in decoding, counted on real page tables.

    python -m benchmarks.shared_prefix                         # the estimate, on a CPU, minutes
    python -m benchmarks.shared_prefix --parts kernels         # the calls of cuDNN, on a GPU
    python -m benchmarks.shared_prefix --tiny

The estimate runs the engine's own scheduler over simulated devices (host.py), so that slots, page
tables and groups are those of a real run, and counts for each decode step the keys and values that
are read, as tokens. Lines of the part `shaped` (the workload of search.py) and `search` (a complete
scripted search), one for each least size of a group in --least:

    shared_share     of the keys and values that are read now, those that groups save
    possible_share   those that would be saved if any number of slots shared any page
    grouped_share    sampled tokens of slots that were in a group
    floor_iterations_per_s, shared_floor_iterations_per_s     at --slots, of shaped; see roofline.py
    gain             of that floor: 1 - how much shorter the time is, before what merging costs
    merge_ms         of a step: bytes of stacked queries and results at the copy bandwidth, and the
                     launches of the kernels that are added
    net_gain         with that
    host_ms          to find the groups of a call

`kernels` times, for a layer of the shaped workload at --slots, the attention call of today, the one
of the rests (with log-sum-exps, heads as queries), and the one of the stacked prefixes: it pays if
`rest_ms + common_ms` are well below `whole_ms`. `whole_sums_ms` is today's call that also returns
log-sum-exps, if cuDNN has it (`failed` says why not).
"""

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import shaped
from benchmarks.common import Lines, median_seconds
from benchmarks.host import simulated_engine
from benchmarks.roofline import Ceilings, Floor, measure_ceilings
from benchmarks.script import Script
from benchmarks.scripted import OverlayEngine
from benchmarks.scripted_search import SIZES, scripted_search
from stair_jax import pocket
from stair_jax.decoding.engine import Engine
from stair_jax.decoding.prefix_groups import find_groups, most_members
from stair_jax.decoding.requests import EngineStats
from stair_jax.decoding.slots import _STARTS, NO_TOKEN
from stair_jax.models.config import ModelConfig
from stair_jax.models.huggingface.known_configs import KNOWN
from stair_jax.models.paged import cudnn
from stair_jax.models.paged.kv_pages import empty_pages
from stair_jax.models.paged.view import View
from stair_jax.search.search_report import since
from stair_jax.search.tree import SearchConfig
from stair_jax.testing.device_programs import wrapped_program
from stair_jax.text.chat import prepare_tokenizer

# As measured on the H200 of the present figures (docs/benchmarks.md).
_H200 = Ceilings(4.3e12, 788e12)
# Kernels that a layer has more with groups, as compiled for an H200: the stacking of queries, the
# second attention call, log-sum-exps and results brought together.
_KERNELS = 4
_LAUNCH = 2e-6  # seconds of one between others of a CUDA graph; an assumption
_PAGE_SIZE, _WIDTH = 16, 128  # tokens, and pages of the longest sequence, of the part `kernels`


@dataclass
class Reads:
    """Tokens whose keys and values decode calls read, from what the calls were sent.

    Attributes:
        engine: idle when this is made.
        least: of groups, each size counted for itself.
        until: a time of `time.perf_counter`, after which nothing is counted.
        since: the time from which on it is.
        first: the engine's counts at the first call that is counted; None before.
        last: those after the last one.
        sampled: tokens.
        seen: tokens read for these, by each slot alone.
        distinct: the same with each page counted once a step, whoever shares it.
        saved: by `least`, tokens that groups save.
        grouped: by `least`, sampled tokens of slots in groups.
        host_seconds: by `least`, to find the groups.
        calls: of the decode program.
    """

    engine: Engine
    least: tuple[int, ...]
    since: float = 0.0
    until: float = math.inf
    first: EngineStats | None = None
    last: EngineStats | None = None
    sampled: int = 0
    seen: float = 0.0
    distinct: float = 0.0
    saved: dict[int, float] = field(default_factory=dict)
    grouped: dict[int, int] = field(default_factory=dict)
    host_seconds: dict[int, float] = field(default_factory=dict)
    calls: int = 0

    def __post_init__(self) -> None:
        """All slots are idle."""
        for counts in (self.saved, self.grouped, self.host_seconds):
            counts.update(dict.fromkeys(self.least, 0))
        sizes = self.engine.device.engine_config
        self.page_size = sizes.page_size
        self._position = np.zeros(sizes.num_slots, np.int64)
        self._remaining = np.zeros(sizes.num_slots, np.int64)

    def __call__(self, program: Callable[..., Any], *arguments: Any) -> Any:
        """Runs a decode call, and counts what it reads."""
        num_steps = arguments[2]
        changes, sent, line, line_table = arguments[6:10]
        table = self._taken_over(changes, sent, line, line_table)
        state, results = program(*arguments)
        counts = np.sum(np.asarray(results)[:, :num_steps] != NO_TOKEN, axis=1)
        if self.since <= time.perf_counter() < self.until:
            self._count(counts, sent, table, num_steps)
        self._position += counts
        self._remaining -= counts
        return state, results

    def _taken_over(
        self, changes: np.ndarray, sent: np.ndarray, line: np.ndarray, line_table: np.ndarray
    ) -> np.ndarray:
        """Follows which sequence each slot has, as the device does; the page tables after that."""
        replace, position, remaining = map(_STARTS.get, ("replace", "position", "remaining"))
        changed = changes[:, replace] > 0
        self._position = np.where(changed, changes[:, position], self._position)
        self._remaining = np.where(changed, changes[:, remaining], self._remaining)
        waiting = np.flatnonzero(line[:, replace] > 0)
        idle = np.flatnonzero(self._remaining == 0)[: len(waiting)]
        waiting = waiting[: len(idle)]
        self._position[idle] = line[waiting, position]
        self._remaining[idle] = line[waiting, remaining]
        table = sent.copy()
        table[idle] = line_table[waiting]
        return table

    def _count(
        self, counts: np.ndarray, sent: np.ndarray, table: np.ndarray, num_steps: int
    ) -> None:
        self.last = EngineStats(**vars(self.engine.stats))
        self.first = self.first or self.last
        self.calls += 1
        # A slot's token t of a call sees its position and all before it.
        whole = counts * (self._position + 1) + counts * (counts - 1) / 2
        self.sampled += int(counts.sum())
        self.seen += float(whole.sum())
        self.distinct += float(whole.sum()) - self._again(counts, table)
        for least in self.least:
            start = time.perf_counter()
            groups = find_groups(sent, least)
            self.host_seconds[least] += time.perf_counter() - start
            for group in groups:
                slots = np.array(group.slots)
                prefix = sent[slots[0], : group.pages]
                slots = slots[(table[slots, : group.pages] == prefix).all(axis=1)]
                tokens = group.pages * self.page_size
                # The group is read in each step, whoever of it is still there.
                self.saved[least] += tokens * (int(counts[slots].sum()) - num_steps)
                self.grouped[least] += int(counts[slots].sum())

    def _again(self, counts: np.ndarray, table: np.ndarray) -> float:
        """Tokens of full pages that are read in a step although another slot reads them too."""
        full = (self._position + 1) // self.page_size
        slots, columns = np.nonzero(np.arange(table.shape[1]) < full[:, None])
        pages, times = table[slots, columns], counts[slots]
        once = np.zeros(pages.max(initial=0) + 1, np.int64)
        np.maximum.at(once, pages, times)
        return float(times.sum() - once.sum()) * self.page_size


def main() -> None:
    """Prints a line for each part and least size."""
    flags = parse()
    lines = Lines(vars(flags))
    config = model_config(flags.model)
    if "kernels" in flags.parts:
        kernels_line(flags, config, lines)
    for part in ("shaped", "search"):
        if part in flags.parts:
            estimate_lines(flags, config, lines, part)


def parse() -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="meta-llama/Llama-3.1-8B-Instruct")
    parser.add_argument("--parts", default="shaped,search", help="of shaped, search, kernels")
    parser.add_argument("--least", default="2,3,4", help="sizes of the smallest groups")
    parser.add_argument("--slots", type=int, default=512)
    parser.add_argument("--trees", type=int, default=480)
    parser.add_argument("--seconds", type=float, default=60.0, help="of the shaped workload")
    parser.add_argument("--prompts", type=int, default=96, help="of the search")
    parser.add_argument("--num-iterations", type=int, default=100)
    parser.add_argument("--rewards", default="sign", help="of sign, paper, both")
    parser.add_argument("--sizes", default="long", choices=sorted(SIZES), help="of all texts")
    parser.add_argument("--steps-per-call", type=int, default=4)
    parser.add_argument("--cache-tokens", type=int, default=904_000)
    parser.add_argument("--tiny", action="store_true", help="seconds, on a CPU")
    flags = parser.parse_args()
    # What `simulated_engine` reads beside these: devices of no cost.
    flags.step_ms = flags.prefill_us = 0.0
    if flags.tiny:
        flags.slots, flags.trees, flags.seconds, flags.sizes = 16, 12, 2.0, "tiny"
        flags.prompts, flags.num_iterations = 2, 4
    return flags


def model_config(name: str) -> ModelConfig:
    """The model whose keys and values are counted, in bfloat16."""
    config = ModelConfig.from_huggingface(KNOWN[name].config)
    return replace(config, dtype="bfloat16", param_dtype="bfloat16")


def estimate_lines(flags: argparse.Namespace, config: ModelConfig, lines: Lines, part: str) -> None:
    """Runs a workload over simulated devices, and prints what groups save in it."""
    engine, _ = simulated_engine(flags)
    least = tuple(map(int, flags.least.split(",")))
    reads = Reads(engine, least)
    with wrapped_program(engine, "decode", reads):
        _RUN[part](flags, reads)
    assert reads.first is not None and reads.last is not None
    stats = since(reads.first, reads.last)
    floor = Floor(config, _H200)
    before = floor.workload(flags.slots, reads.sampled, stats.prefilled, reads.seen)
    iterations = reads.sampled / (shaped.ITERATION * SIZES[flags.sizes].scale)
    steps = reads.sampled / flags.slots
    for size in least:
        seen = reads.seen - reads.saved[size]
        after = floor.workload(flags.slots, reads.sampled, stats.prefilled, seen)
        merging = merge_seconds(config, flags.slots, size, _H200)
        lines(
            part,
            least=size,
            most=most_members(size),
            mean_context=reads.seen / reads.sampled,
            prefilled_a_token=stats.prefilled / reads.sampled,
            occupancy=stats.occupancy,
            steps=reads.calls * flags.steps_per_call,
            shared_share=reads.saved[size] / reads.seen,
            possible_share=1 - reads.distinct / reads.seen,
            grouped_share=reads.grouped[size] / reads.sampled,
            floor_iterations_per_s=iterations / before,
            shared_floor_iterations_per_s=iterations / after,
            gain=before / after - 1,
            merge_ms=1e3 * merging,
            net_gain=before / (after + steps * merging) - 1,
            host_ms=1e3 * reads.host_seconds[size] / reads.calls,
        )


def _run_shaped(flags: argparse.Namespace, reads: Reads) -> None:
    warm, seconds = 0.25 * flags.seconds, 0.75 * flags.seconds
    reads.since = time.perf_counter() + warm
    reads.until = reads.since + seconds
    scale, length = SIZES[flags.sizes].scale, shaped.fixed_length
    shaped.drive(reads.engine, flags.trees, length, warm=warm, seconds=seconds, scale=scale)


def _run_search(flags: argparse.Namespace, reads: Reads) -> None:
    script = Script(prepare_tokenizer(Path(*pocket.__path__) / "base"), SIZES[flags.sizes].lengths)
    scripted_search(
        OverlayEngine(reads.engine, script),
        SIZES[flags.sizes],
        SearchConfig(num_iterations=flags.num_iterations),
        flags.rewards,
        flags.prompts,
        flags.slots // 2,
        lambda tree: None,
    )


_RUN = {"shaped": _run_shaped, "search": _run_search}


def merge_seconds(config: ModelConfig, slots: int, least: int, ceilings: Ceilings) -> float:
    """What groups cost in a decode step beside reading keys and values."""
    row = 2 * config.num_attention_heads * config.head_dim  # bytes of a slot's queries or results
    stacked = slots // least * most_members(least)
    # Queries of the slots read, stacked, read again; results of both calls written and read.
    moved = row * (slots + 2 * stacked + 2 * stacked + slots)
    return config.num_hidden_layers * (moved / ceilings.bytes_per_s + _KERNELS * _LAUNCH)


def kernels_line(flags: argparse.Namespace, config: ModelConfig, lines: Lines) -> None:
    """Times a layer's attention calls, of pages as in the shaped workload.

    Half of the slots are groups of four on a prefix of 288 tokens, and have 64 of their own; the
    others have 528.
    """
    copied = measure_ceilings(small=flags.tiny).bytes_per_s
    kv_heads, head_dim = config.num_key_value_heads, config.head_dim
    each = config.num_attention_heads // kv_heads
    pages_of, num_pages = _drawn_pages(flags)
    groups, slots = flags.slots // 8, flags.slots
    prefixes = [pages_of(18) for _ in range(groups)]
    rests = [pages_of(4) for _ in range(4 * groups)]
    alone = [pages_of(33) for _ in range(slots - 4 * groups)]
    whole = [prefixes[index // 4] + rest for index, rest in enumerate(rests)] + alone
    unused: list[list[int]] = [[] for _ in range(slots // 4 - groups)]
    one, queries = (1, config.num_attention_heads), (each, kv_heads)
    calls = {
        "whole": (whole, one, False),
        "whole_sums": (whole, one, True),
        "rest": (rests + alone, queries, True),
        "common": (prefixes + unused, (4 * each, kv_heads), True),
    }
    pages = jax.jit(partial(empty_pages, config, num_pages, _PAGE_SIZE, "bfloat16"))()
    values: dict[str, Any] = {}
    for name, (tables, shape, with_sums) in calls.items():
        view, seen = _rows(tables)
        query = jnp.ones((len(tables), *shape, head_dim), jnp.bfloat16)
        run = jax.jit(partial(cudnn._paged, with_sums=with_sums))
        read = 2 * int(seen.sum()) * 2 * kv_heads * head_dim  # bytes
        values[f"{name}_floor_ms"] = 1e3 * read / copied
        try:
            values[f"{name}_ms"] = 1e3 * _seconds(run, query, pages, view, seen)
        except Exception as error:  # what cuDNN says of a call that it does not have
            values[f"{name}_failed"] = str(error).splitlines()[0][:200]
    lines("kernels", slots=slots, copy_tb_per_s=copied / 1e12, **values)


def _drawn_pages(flags: argparse.Namespace) -> tuple[Callable[[int], list[int]], int]:
    """A function that hands out pages anywhere in a cache, and how many pages that has."""
    num_pages = flags.cache_tokens // _PAGE_SIZE + 1
    ids = iter((1 + np.random.default_rng(0).permutation(num_pages - 1)).tolist())
    return lambda count: [next(ids) for _ in range(count)], num_pages


def _rows(tables: list[list[int]]) -> tuple[View, jax.Array]:
    """A view of rows with these pages, all of them full, and the tokens that each row sees."""
    table = np.zeros((len(tables), _WIDTH), np.int32)
    for row, pages in zip(table, tables, strict=True):
        row[: len(pages)] = pages
    seen = np.array([max(1, len(pages) * _PAGE_SIZE) for pages in tables], np.int32)
    view = View(jnp.asarray(table), jnp.asarray(seen - 1), jnp.ones(len(tables), jnp.int32))
    return view, jnp.asarray(seen)


def _seconds(run: Callable[..., Any], *arguments: Any) -> float:
    """Seconds of a call among many."""
    count = 20

    def repeated(nothing: None) -> Any:
        for _ in range(count):
            result = run(*arguments)
        return result

    return median_seconds(repeated) / count


if __name__ == "__main__":
    main()
