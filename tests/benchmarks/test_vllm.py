"""Which figure of vLLM the shaped workload is compared with, and when with none."""

import argparse

import pytest

from benchmarks import common, search


def flags(*arguments):
    parser = argparse.ArgumentParser()
    common.add_model_flags(parser)
    return parser.parse_args(arguments)


@pytest.mark.parametrize(("weights", "iterations"), [("none", 19.2), ("fp8", 19.6)])
def test_one_h200_is_compared_with_vllm_with_the_same_weights(weights, iterations):
    found = search.vllm_iterations(flags("--weights", weights), 1, "NVIDIA H200")
    assert found == iterations


@pytest.mark.parametrize(
    ("arguments", "devices", "kind"),
    [
        (["--weights", "int8"], 1, "NVIDIA H200"),
        (["--kv-dtype", "float8_e4m3fn"], 1, "NVIDIA H200"),
        (["--layers", "8"], 1, "NVIDIA H200"),
        (["--tiny"], 1, "NVIDIA H200"),
        (["--model", "Qwen/Qwen2-7B-Instruct"], 1, "NVIDIA H200"),
        ([], 2, "NVIDIA H200"),
        ([], 1, "NVIDIA A100-SXM4-80GB"),
    ],
)
def test_nothing_is_compared_with_vllm_where_it_was_not_measured(arguments, devices, kind):
    assert search.vllm_iterations(flags(*arguments), devices, kind) is None
