"""Roofline and trace against numbers worked out by hand."""

import pytest

from benchmarks.roofline import Ceilings, Floor
from benchmarks.trace import busy_seconds, covered, kernel_seconds, program_seconds
from stair_jax.models.config import ModelConfig
from stair_jax.models.huggingface.known_configs import KNOWN

LLAMA = ModelConfig.from_huggingface(KNOWN["meta-llama/Llama-3.1-8B-Instruct"].config)


@pytest.mark.parametrize(
    ("slots", "milliseconds"),
    # Weights (15.0 GB) or their FLOPs, 131,072 B a token of the context, 8 B a logit.
    [(64, 3.49 + 1.17 + 0.02), (256, 4.88 + 4.68 + 0.06)],
)
def test_floor_of_a_decode_step_of_an_8b_model(slots, milliseconds):
    import dataclasses

    config = dataclasses.replace(LLAMA, dtype="bfloat16")
    floor = Floor(config, Ceilings(4.3e12, 788e12))
    assert 1e3 * floor.decode_step(slots, 600) == pytest.approx(milliseconds, abs=0.02)
    both = Floor(config, Ceilings(4.3e12, 788e12), devices=2)
    assert both.decode_step(2 * slots, 600) == pytest.approx(floor.decode_step(slots, 600))


def test_floor_of_a_workload_is_the_sum_of_its_parts():
    floor = Floor(LLAMA, Ceilings(1e12, 1e14))
    steps = 7 * floor.decode_step(32, 100)
    assert floor.workload(32, 7 * 32, 0, 7 * 32 * 100) == pytest.approx(steps)
    both = floor.workload(32, 7 * 32, 500, 7 * 32 * 100)
    assert both == pytest.approx(steps + floor.prefill(500))
    # 2 FLOPs a weight of the layers, of which there are 6.98 billion.
    assert floor.prefill(1000) == pytest.approx(2 * 6.98e9 * 1000 / 1e14, rel=1e-3)


def test_overlapping_spans_count_once():
    assert covered([(5, 6), (0, 2), (1, 3), (2, 2.5)]) == 4
    assert covered([]) == 0


def test_only_kernels_on_devices_are_busy():
    def name(kind, pid, tid, text):
        return {"ph": "M", "name": kind, "pid": pid, "tid": tid, "args": {"name": text}}

    def span(pid, tid, start, length):
        return {"ph": "X", "pid": pid, "tid": tid, "ts": start, "dur": length}

    events = [
        name("process_name", 1, 0, "/device:GPU:0"),
        name("process_name", 2, 0, "/device:GPU:1"),
        name("process_name", 9, 0, "/host:CPU"),
        name("thread_name", 1, 1, "Stream #7(Compute)"),
        name("thread_name", 1, 2, "Stream #8(MemcpyD2H)"),
        name("thread_name", 1, 3, "XLA Modules"),
        name("thread_name", 2, 1, "Stream #7(Compute)"),
        name("thread_name", 9, 1, "Stream of the host"),
        span(1, 1, 0, 1e6),
        span(1, 2, 5e5, 1e6),  # half of it beside the kernel
        span(1, 3, 0, 9e6),  # the same work, seen from further away
        span(2, 1, 3e6, 2.5e5),
        span(9, 1, 0, 9e6),
    ]
    assert busy_seconds(events) == [1.5, 0.25]


def test_kernels_are_added_up_by_program():
    kernel = {"ph": "X", "pid": 1, "tid": 2, "ts": 0, "dur": 250_000.0}
    events = [
        kernel | {"args": {"hlo_module": "jit_decode"}},
        kernel | {"args": {"hlo_module": "jit_prefill"}, "dur": 1e6},
        kernel | {"args": {"hlo_module": "jit_decode"}, "ts": 9},
        kernel,
        {"ph": "M", "args": {"hlo_module": "jit_decode"}},
    ]
    assert program_seconds(events) == {"jit_decode": 0.5, "jit_prefill": 1.0}


def test_kernels_are_added_up_by_kind():
    def kernel(name, seconds):
        args = {"hlo_module": "jit_step"}
        return {"ph": "X", "name": name, "dur": 1e6 * seconds, "args": args}

    events = [
        kernel("nvjet_hsh_256x128", 2.0),
        kernel("cudnn_generated_fort_native_sdpa_sm90_flash_bprop", 1.0),
        kernel("loop_add_fusion", 0.25),
        kernel("ncclDevKernel_AllGather_RING_LL", 0.5),
        kernel("sm90_xmma_gemm_bf16", 0.5),
        {"ph": "X", "name": "python", "dur": 1e6},
    ]
    expected = {"products": 2.5, "attention": 1.0, "other": 0.25, "communication": 0.5}
    assert kernel_seconds(events) == expected
