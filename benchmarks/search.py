"""SI-MCTS over the rollout engine: a workload of its shape, and complete searches.

    python -m benchmarks.search [--parts shaped,drawn,search] [--rewards sign,paper] [--prompts 256]
    python -m benchmarks.search --devices 2 --parts shaped,search     # two against one, as a ratio
    python -m benchmarks.search --model Qwen/Qwen2.5-0.5B-Instruct --parts search --slots 512 \
        --sizes short --rewards both --prompts 384 --trees-in-flight 384 --num-iterations 32 \
        --steps-per-call 8              # a small model, which the host must not keep waiting
    python -m benchmarks.search --tiny                                # a minute, on a CPU

Weights are random, lengths and texts are scripted (shaped.py, scripted.py). Lines:

    shaped  iterations/s of 128 trees whose iterations are 4 steps of 120 tokens after one path, a
            rollout of 300, and a judgement of 100 on 500 fresh tokens; trees never wait
    drawn   the same with drawn lengths of these means, and the ratio to the same in lockstep
    search  run_search with 200 iterations and 4 children: seconds a prompt, tokens a tree, what the
            cache saved, and how the time was spent; `full_occupancy` is that of the slots while as
            many requests were pending as there are slots, `tail` the share of the time that the
            last tenth of the trees took after the others
    scaling what several devices reach against one

iterations/s are sampled tokens/s by the 880 of an iteration, as those that are under way at the
ends of the window count too. A search that does not end in --search-seconds is stopped: its
seconds a prompt are then those of as many sampled tokens as a whole tree takes (`extrapolated`),
without the end of a run, where few trees are left.
"""

import argparse
import gc
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from benchmarks import shaped
from benchmarks.common import (
    Lines,
    add_model_flags,
    is_vllm_setup,
    make_engine,
    model_config,
    random_model,
    warm_up,
)
from benchmarks.roofline import Floor, measure_ceilings
from benchmarks.sampling_profile import SamplingProfile
from benchmarks.script import Script
from benchmarks.scripted import OutOfTime, OverlayEngine, instant_engine
from benchmarks.scripted_search import SIZES, Watch, WorkloadSizes, scripted_search
from benchmarks.trace import Clock
from stair_jax import pocket
from stair_jax.decoding.driver import run_all
from stair_jax.decoding.engine import Engine
from stair_jax.decoding.requests import EngineStats, Request
from stair_jax.search.search_report import since
from stair_jax.search.tree import SearchConfig
from stair_jax.search.tree_records import TreeRecord
from stair_jax.text.chat import prepare_tokenizer

# iterations/s of vLLM 0.26.0 in the shaped workload on one H200 (2026-11-29), by --weights: the
# highest that was measured. There, too, each tree is a task of its own and waits for no other.
# bfloat16: 1,024 seats, 600 trees; fp8: 512 seats, 384 trees, the only setting on record.
VLLM_ITERATIONS = {"none": 19.2, "fp8": 19.6}
_PLAYED = 32  # trees that are grown without a model, to know what a tree comes to


@dataclass(frozen=True)
class SearchSetup:
    """An engine, and what it is measured with.

    Attributes:
        engine: idle.
        devices: of the engine.
        floor: of these.
        lines: prints.
        sizes: of the work.
        flags: of the command line.
    """

    engine: Engine
    devices: int
    floor: Floor
    lines: Lines
    sizes: WorkloadSizes
    flags: argparse.Namespace


def main() -> None:
    """Prints the figures as they are found."""
    flags = parse()
    lines = Lines(vars(flags))
    sizes = SIZES["tiny" if flags.tiny else flags.sizes]
    ceilings = measure_ceilings(small=flags.tiny)
    copied, product = ceilings.bytes_per_s / 1e12, ceilings.flops_per_s / 1e12
    lines("ceilings", copy_tb_per_s=copied, matmul_tflops_per_s=product)
    rates: list[dict[str, float]] = []
    for devices in sorted({1, flags.devices}):
        start = time.perf_counter()
        model = random_model(flags, devices)
        engine = make_engine(model, flags, flags.slots * devices, sizes.max_length)
        floor = Floor(model_config(flags), ceilings, devices)
        setting = SearchSetup(engine, devices, floor, lines, sizes, flags)
        warm_up(engine)
        shaped.drive(engine, 1, shaped.fixed_length, warm=0, seconds=0, scale=sizes.scale)
        seconds = time.perf_counter() - start
        lines("engine", devices=devices, seconds_with_compile=seconds, capacity=engine.capacity)
        rates.append(measure(setting))
        del model, engine, setting
        gc.collect()  # the cache of this engine, before that of the next
    if len(rates) > 1:
        ratios = {name: rate / rates[0][name] for name, rate in rates[1].items()}
        lines("scaling", devices=flags.devices, **ratios)


def parse() -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_model_flags(parser)
    parser.add_argument("--parts", default="shaped,drawn,search", help="comma-separated")
    parser.add_argument("--slots", type=int, default=256, help="of each device")
    parser.add_argument("--devices", type=int, default=1, help="compared with one, if more")
    parser.add_argument("--trees", type=int, default=128, help="of shaped and drawn, a device")
    parser.add_argument("--seconds", type=float, default=40.0, help="of each drive of shaped trees")
    parser.add_argument("--rewards", default="sign,paper", help="of sign, paper, both")
    parser.add_argument("--prompts", default="256", help="of each search, comma-separated")
    parser.add_argument(
        "--trees-in-flight", type=int, default=0, help="most, a device; 0: slots / 2"
    )
    parser.add_argument("--sizes", default="long", choices=sorted(SIZES), help="of all texts")
    parser.add_argument("--num-iterations", type=int, default=200)
    parser.add_argument("--in-flight", type=int, default=1, help="iterations of a tree at once")
    parser.add_argument("--search-seconds", type=float, default=150.0, help="of each search")
    parser.add_argument("--trace-seconds", type=float, default=0.0, help="profiled after them")
    parser.add_argument("--profile", type=int, default=0, help="functions of the host to print")
    flags = parser.parse_args()
    if flags.tiny:
        flags.slots, flags.trees, flags.seconds = 8, 4, min(flags.seconds, 2.0)
        flags.num_iterations, flags.prompts = min(flags.num_iterations, 12), "6"
        flags.search_seconds = min(flags.search_seconds, 5.0)
    return flags


def measure(setting: SearchSetup) -> dict[str, float]:
    """All parts on one engine; rates by name, for ratios."""
    parts = setting.flags.parts.split(",")
    rates = {}
    if "shaped" in parts:
        rates["shaped"] = shaped_line(setting)
    if "drawn" in parts:
        rates["drawn"] = drawn_line(setting)
    if "search" in parts:
        for rewards in setting.flags.rewards.split(","):
            for count in map(int, setting.flags.prompts.split(",")):
                rates[f"search_{rewards}_{count}"] = search_line(setting, rewards, count)
    return rates


def _drive(setting: SearchSetup, length: shaped.Length, lockstep: bool = False) -> shaped.Measured:
    seconds = setting.flags.seconds
    return shaped.drive(
        setting.engine,
        setting.flags.trees * setting.devices,
        length,
        warm=0.25 * seconds,
        seconds=0.75 * seconds,
        lockstep=lockstep,
        scale=setting.sizes.scale,
        trace_seconds=setting.flags.trace_seconds,
    )


def _shaped_values(setting: SearchSetup, measured: shaped.Measured) -> dict[str, Any]:
    stats, seconds = measured.stats, measured.seconds
    tokens, rate = stats.busy_steps, stats.busy_steps / seconds
    floor = setting.floor.workload(
        setting.flags.slots * setting.devices,
        tokens,
        stats.prefilled,
        tokens * measured.mean_seen,
    )
    an_iteration = shaped.ITERATION * setting.sizes.scale
    return {
        "devices": setting.devices,
        "trees": setting.flags.trees * setting.devices,
        "iterations_per_s": rate / an_iteration,
        "tokens_per_s": rate,
        "prefilled_tokens_per_s": stats.prefilled / seconds,
        "floor_iterations_per_s": tokens / an_iteration / floor,
        "ratio_to_floor": seconds / floor,
        "mean_context": measured.mean_seen,
        "occupancy": stats.occupancy,
        "idle_share": stats.starved_seconds / seconds,
        "host_share": 1 - stats.wait_seconds / seconds,
        "judgements": measured.iterations,
        "program_seconds_in_trace": measured.programs,
        "seconds": seconds,
    }


def vllm_iterations(flags: argparse.Namespace, devices: int, device_kind: str) -> float | None:
    """iterations/s of vLLM with such weights; None where it was not measured like this."""
    if devices > 1 or flags.kv_dtype or not is_vllm_setup(flags, device_kind):
        return None
    return VLLM_ITERATIONS.get(flags.weights)


def shaped_line(setting: SearchSetup) -> float:
    """Fixed lengths; iterations/s."""
    values = _shaped_values(setting, _drive(setting, shaped.fixed_length))
    rate = values["iterations_per_s"]
    vllm = vllm_iterations(setting.flags, setting.devices, jax.devices()[0].device_kind)
    compared = {"vllm_iterations_per_s": vllm, "ratio_to_vllm": rate / vllm} if vllm else {}
    setting.lines("shaped", **values, **compared)
    return rate


def drawn_line(setting: SearchSetup) -> float:
    """Drawn lengths, continuously and in lockstep; iterations/s of the former."""
    lockstep = _shaped_values(setting, _drive(setting, shaped.drawn_length, lockstep=True))
    setting.lines("drawn_lockstep", **lockstep)
    values = _shaped_values(setting, _drive(setting, shaped.drawn_length))
    rate = values["iterations_per_s"]
    setting.lines("drawn", **values, ratio_to_lockstep=rate / lockstep["iterations_per_s"])
    return rate


def search_line(setting: SearchSetup, rewards: str, num_prompts: int) -> float:
    """A complete search, as far as its time goes; prompts/s."""
    flags, sizes = setting.flags, setting.sizes
    script = Script(prepare_tokenizer(Path(*pocket.__path__) / "base"), sizes.lengths)
    in_flight = (flags.trees_in_flight or flags.slots // 2) * setting.devices
    # The same trees without a model: what they come to, and the tree kernel is compiled.
    instant = OverlayEngine(instant_engine(), script)
    few = min(num_prompts, _PLAYED)
    _search(setting, instant, rewards, few, in_flight, lambda tree: None)
    # The engine has been waiting meanwhile: its time starts anew with a request.
    run_all(setting.engine, [Request("wake", (1, 2), score_ids=(0,))])
    before = EngineStats(**vars(setting.engine.stats))
    clock = Clock(setting.engine.stats, flags.search_seconds, flags.trace_seconds)
    scripted = OverlayEngine(setting.engine, script)
    watch = Watch(scripted, flags.slots * setting.devices, clock)
    with suppress(OutOfTime), SamplingProfile(flags.profile):
        _search(setting, scripted, rewards, num_prompts, in_flight, watch.tree)
    clock.close()
    assert clock.stats is not None
    stats = since(before, clock.stats)
    finished = len(watch.seconds) == num_prompts
    tree_tokens = stats.generated / num_prompts if finished else instant.work.tokens / few
    done = num_prompts if finished else stats.busy_steps / tree_tokens
    slots = flags.slots * setting.devices
    seen = scripted.work.seen / max(scripted.work.tokens, 1) * stats.busy_steps
    floor = setting.floor.workload(slots, stats.busy_steps, stats.prefilled, seen)
    setting.lines(
        "search",
        rewards=rewards,
        devices=setting.devices,
        prompts=num_prompts,
        trees_in_flight=in_flight,
        extrapolated=not finished,
        trees_finished=len(watch.seconds),
        trees_done=done,
        seconds=clock.seconds,
        seconds_a_prompt=clock.seconds / done,
        generated_a_tree=tree_tokens,
        prefilled_a_tree=stats.prefilled / done,
        tokens_per_s=stats.busy_steps / clock.seconds,
        hit_rate=stats.hit_rate,
        occupancy=stats.occupancy,
        full_occupancy=watch.full_occupancy,
        tail=watch.tail,
        tail_steps=watch.tail_steps,
        preempted=stats.preempted,
        evicted=stats.evicted,
        idle_share=stats.starved_seconds / clock.seconds,
        host_share=1 - stats.wait_seconds / clock.seconds,
        device_busy_in_trace=clock.busy,
        program_seconds_in_trace=clock.programs,
        floor_seconds_a_prompt=floor / done,
        ratio_to_floor=clock.seconds / floor,
        mean_context=seen / max(stats.busy_steps, 1),
        **_second_half(clock, tree_tokens),
    )
    return done / clock.seconds


def _second_half(clock: Clock, tree_tokens: float) -> dict[str, float]:
    """The same for the second half of the time, when the cache has filled up."""
    if clock.halfway is None or clock.stats is None:
        return {}
    middle, before = clock.halfway
    stats, seconds = since(before, clock.stats), clock.seconds - middle
    rate = stats.busy_steps / seconds
    return {
        "late_seconds_a_prompt": tree_tokens / max(rate, 1e-9),
        "late_tokens_per_s": rate,
        "late_prefilled_a_tree": stats.prefilled / max(stats.busy_steps, 1) * tree_tokens,
        "late_hit_rate": stats.hit_rate,
        "late_occupancy": stats.occupancy,
        "late_evicted": stats.evicted,
    }


def _search(
    setting: SearchSetup,
    engine: OverlayEngine,
    rewards: str,
    num_prompts: int,
    in_flight: int,
    on_tree: Callable[[TreeRecord], None],
) -> None:
    flags = setting.flags
    tree = SearchConfig(num_iterations=flags.num_iterations, in_flight=flags.in_flight)
    scripted_search(engine, setting.sizes, tree, rewards, num_prompts, in_flight, on_tree)


if __name__ == "__main__":
    main()
