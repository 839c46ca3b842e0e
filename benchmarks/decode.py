"""Decoding and prefill of the rollout engine beside what the device could do.

    python -m benchmarks.decode [--slots 64,256,512] [--contexts 600,1500] [--layers 0]
    python -m benchmarks.decode --tiny                     # seconds, on a CPU

Weights are random. Each slot has a sequence of its own tokens, and so pages of its own. A line
`decode` has, for one new token in each slot with sampling (temperature 1.2, top-k 50, top-p 0.9):

    program_ms, program_tokens_per_s   of the device program alone, each call waited for
    engine_ms, engine_tokens_per_s     through Engine.step, what a user gets
    host_share                         of the latter: 1 - program_ms / engine_ms
    floor_ms, ratio_to_floor           see roofline.py; the ratio is that of engine_ms
    vllm_ms, speedup_over_vllm         where they were measured on such a device

and a line `prefill` the tokens/s of prompts that come whole, and of tokens that follow on cached
ones. What does not fit into the device's memory has a line with the reason under `skipped`.
"""

import argparse
import gc
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from benchmarks.common import (
    Lines,
    add_model_flags,
    is_vllm_setup,
    make_engine,
    model_config,
    random_model,
)
from benchmarks.roofline import Floor, measure_ceilings
from stair_jax.decoding.driver import run_all
from stair_jax.decoding.engine import Engine
from stair_jax.decoding.requests import Handle, Request, Sampling, request_key
from stair_jax.errors import UserError
from stair_jax.testing.device_programs import noted_prefills, wrapped_program

# vLLM 0.20.2 (paged cache, CUDA graphs, prefix caching) on one H200, Llama-3.1-8B shapes, bf16,
# random weights, the same sampling: ms a step by (slots, context), and tokens/s of prefill.
VLLM_MS = {(64, 600): 7.17, (256, 600): 15.06, (512, 600): 27.9}
VLLM_PREFILL = 43.5e3

_SAMPLING = Sampling(temperature=1.2, top_k=50, top_p=0.9)


@dataclass(frozen=True)
class DecodeSetup:
    """What all measurements share.

    Attributes:
        floor: of the device, for the model.
        lines: prints.
        calls: of the decode program in one measurement.
        flags: of the command line.
        comparable: whether vLLM's figures are of this model and device.
    """

    floor: Floor
    lines: Lines
    calls: int
    flags: argparse.Namespace
    comparable: bool


def main() -> None:
    """Prints the figures as they are found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_model_flags(parser)
    parser.add_argument("--slots", default="64,256,512", help="comma-separated")
    parser.add_argument("--contexts", default="600,1500", help="comma-separated")
    parser.add_argument("--calls", type=int, default=12, help="decode calls of a figure")
    parser.add_argument("--seconds", type=float, default=420.0, help="no measurement after these")
    flags = parser.parse_args()
    if flags.tiny:
        flags.slots, flags.contexts, flags.calls = "4,8", "120,200", 2
    start = time.perf_counter()
    lines = Lines(vars(flags))
    setting = prepare(flags, lines)
    for slots in _numbers(flags.slots):
        if time.perf_counter() - start > flags.seconds:
            lines("decode", slots=slots, skipped=f"--seconds {flags.seconds:g} are over")
            continue
        try:
            measure(setting, slots, _numbers(flags.contexts))
        except (UserError, jax.errors.JaxRuntimeError) as error:  # no room, most likely
            lines("decode", slots=slots, skipped=str(error).splitlines()[0])
        gc.collect()  # the pages of this engine, before those of the next


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def prepare(flags: argparse.Namespace, lines: Lines) -> DecodeSetup:
    """Measures the ceilings."""
    ceilings = measure_ceilings(small=flags.tiny)
    copied, product = ceilings.bytes_per_s / 1e12, ceilings.flops_per_s / 1e12
    lines("ceilings", copy_tb_per_s=copied, matmul_tflops_per_s=product)
    comparable = is_vllm_setup(flags, jax.devices()[0].device_kind)
    return DecodeSetup(Floor(model_config(flags), ceilings), lines, flags.calls, flags, comparable)


def measure(setting: DecodeSetup, slots: int, contexts: Sequence[int]) -> None:
    """All figures of one number of slots, in one engine."""
    flags, lines = setting.flags, setting.lines
    start = time.perf_counter()
    room = _decoded(setting)
    longest = max(max(contexts) + room, sum(_follow_sizes(flags.tiny)) + 1)
    engine = make_engine(random_model(flags), flags, slots, longest)
    run_all(engine, [_scored("warm", (1, 2, 3)), _sampled("up", (1, 2, 3), 2)])
    seconds = time.perf_counter() - start
    lines("engine", slots=slots, seconds_with_compile=seconds, capacity=engine.capacity)
    for context in contexts:
        need = slots * (context + room // 2 + 2 * flags.page_size)
        if need > engine.capacity:
            reason = f"needs {need} tokens of cache, {engine.capacity} fit beside the weights"
            lines("decode", slots=slots, context=context, skipped=reason)
            continue
        handles = fill(setting, engine, slots, context)
        decode(setting, engine, handles)
        for handle in handles:
            engine.release(handle)
    follow(setting, engine, slots)


def _decoded(setting: DecodeSetup) -> int:
    """Tokens that each slot decodes for one line: as the calls need, and some before and after."""
    return (2 * setting.calls + 10) * setting.flags.steps_per_call


def _random(vocab_size: int, count: int, length: int, seed: int) -> list[tuple[int, ...]]:
    rng = np.random.default_rng(seed)
    return [tuple(row) for row in rng.integers(0, vocab_size, (count, length)).tolist()]


def _scored(id: Any, tokens: tuple[int, ...], parent: Handle | None = None) -> Request:
    """Puts tokens through the model and keeps them; decodes nothing."""
    return Request(id, tokens, parent, score_ids=(0,), keep=True)


def _sampled(id: Any, tokens: tuple[int, ...], count: int, parent: Handle | None = None) -> Request:
    sampling = replace(_SAMPLING, max_tokens=count)
    return Request(id, tokens, parent, sampling=sampling, key=request_key(0, id))


def fill(setting: DecodeSetup, engine: Engine, slots: int, context: int) -> list[Handle]:
    """Kept sequences, one a slot, and the line of their prefill.

    They are shorter than `context` by half of what is decoded then, so that this is the mean.
    """
    length = max(2, context - _decoded(setting) // 2)
    prompts = _random(setting.floor.config.vocab_size, slots, length, seed=context)
    requests = [_scored(index, prompt) for index, prompt in enumerate(prompts)]
    return _prefill(setting, engine, requests, cached=0, slots=slots)


def _follow_sizes(tiny: bool) -> tuple[int, int]:
    """Tokens that are cached, and that follow."""
    return (32, 16) if tiny else (512, 512)


def follow(setting: DecodeSetup, engine: Engine, slots: int) -> None:
    """The line of a prefill of tokens that follow on cached ones."""
    cached, fresh = _follow_sizes(setting.flags.tiny)
    count = min(slots, 64, engine.capacity // (cached + fresh + 2 * setting.flags.page_size))
    prompts = _random(setting.floor.config.vocab_size, count, cached + fresh, seed=1)
    before = run_all(engine, [_scored(i, tokens[:cached]) for i, tokens in enumerate(prompts)])
    parents = [before[index].handle for index in range(count)]
    requests = [_scored(i, prompts[i][cached:], parents[i]) for i in range(count)]
    for handle in (*_prefill(setting, engine, requests, cached, slots), *parents):
        assert handle is not None
        engine.release(handle)


def _prefill(
    setting: DecodeSetup, engine: Engine, requests: Sequence[Request], cached: int, slots: int
) -> list[Handle]:
    """Runs the requests, and then one of their full prefill calls again and again."""
    with noted_prefills(engine) as calls:
        completions = run_all(engine, requests)
    fullest = max(calls, key=lambda arrays: int(arrays[1][:, 1].sum()))
    tokens = int(fullest[1][:, 1].sum())
    seconds = _repeated(engine, fullest)
    floor = setting.floor.prefill(tokens)
    compared = {"vllm_tokens_per_s": VLLM_PREFILL} if setting.comparable else {}
    setting.lines(
        "prefill",
        slots=slots,
        prompts=len(requests),
        cached=cached,
        tokens_a_call=tokens,
        tokens_per_s=tokens / seconds,
        floor_tokens_per_s=tokens / floor,
        ratio_to_floor=seconds / floor,
        **compared,
    )
    handles = [completions[request.id].handle for request in requests]
    return [handle for handle in handles if handle is not None]


def _repeated(engine: Engine, arrays: tuple[np.ndarray, ...], calls: int = 6) -> float:
    """Seconds of a prefill call; it writes what is in the cache already."""
    for index in range(calls + 1):
        engine.device.prefill(*arrays)
        if index == 0:
            jax.block_until_ready(engine.device.state)
            start = time.perf_counter()
    jax.block_until_ready(engine.device.state)
    return (time.perf_counter() - start) / calls


def decode(setting: DecodeSetup, engine: Engine, handles: Sequence[Handle]) -> None:
    """The line of decoding from the handles, all slots in use."""
    slots, length, limit = len(handles), len(handles[0].tokens), _decoded(setting)
    context = length + limit // 2
    engine.submit([_sampled(i, (), limit, handle) for i, handle in enumerate(handles)])
    first = engine.stats.busy_steps
    while engine.stats.busy_steps - first < slots:  # the copies of last pages, the first tokens
        engine.step()
    # With the program's own time in the middle, both have the same context in the mean.
    half = _window(engine, setting.calls // 2)
    with timed_decode(engine) as calls:
        _window(engine, setting.calls)
    windows = (half, _window(engine, setting.calls // 2))
    while engine.pending:
        engine.step()
    seconds, tokens, slot_steps = map(sum, zip(*windows, strict=True))
    program = sum(seconds for _, seconds in calls) / sum(steps for steps, _ in calls)
    per_step = seconds / (slot_steps / slots)
    floor = setting.floor.decode_step(slots, context)
    compared = {}
    if setting.comparable and (slots, context) in VLLM_MS:
        vllm = VLLM_MS[slots, context]
        compared = {"vllm_ms": vllm, "speedup_over_vllm": vllm / 1e3 / per_step}
    setting.lines(
        "decode",
        slots=slots,
        context=context,
        program_ms=1e3 * program,
        program_tokens_per_s=slots / program,
        engine_ms=1e3 * per_step,
        engine_tokens_per_s=tokens / seconds,
        host_share=1 - program / per_step,
        occupancy=tokens / slot_steps,
        floor_ms=1e3 * floor,
        floor_tokens_per_s=slots / floor,
        ratio_to_floor=per_step / floor,
        program_ratio_to_floor=program / floor,
        **compared,
    )


def _window(engine: Engine, calls: int) -> tuple[float, int, int]:
    """Seconds, sampled tokens, and slots times steps, of so many looks at results."""
    engine.step()  # from here on, there is always a call under way
    tokens, slot_steps = engine.stats.busy_steps, engine.stats.slot_steps
    start = time.perf_counter()
    for _ in range(calls):
        engine.step()
    seconds = time.perf_counter() - start
    return seconds, engine.stats.busy_steps - tokens, engine.stats.slot_steps - slot_steps


@contextmanager
def timed_decode(engine: Engine) -> Iterator[list[tuple[int, float]]]:
    """Within, each call of the decode program is waited for; gives (steps, seconds) of each."""
    calls: list[tuple[int, float]] = []

    def timed(program: Any, *arguments: Any) -> Any:
        jax.block_until_ready(arguments)
        start = time.perf_counter()
        result = jax.block_until_ready(program(*arguments))
        calls.append((arguments[2], time.perf_counter() - start))
        return result

    with wrapped_program(engine, "decode", timed):
        yield calls


if __name__ == "__main__":
    main()
