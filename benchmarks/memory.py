"""Memory of programs on a GPU: predicted without it, compiled for it, and measured on it.

    python -m benchmarks.memory [--out=FOLDER] [--seconds=340] [--only=PATTERN] [--gpu=h200]
    python -m benchmarks.memory --predict-only --gpu=h200     # on any machine with the compiler

Writes FOLDER/memory.md and FOLDER/memory.json (lines as they are printed, too). A case is a program
of a recipe with overrides. In GiB:

    predicted   what `stair-jax plan --topology=GPU` says, in a process that sees no GPU
    compiled    what the compiler says beside the GPU; `workspaces` are those that cuDNN asked for
    measured    peak of JAX's allocator in a process that ran the program once, on zeros and ones
    outside     memory of the GPU in use beside what JAX had taken

Each case is measured in a process of its own; cases that no time is left for are not.
"""

import argparse
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from stair_jax.commands.config_file import load_config
from stair_jax.commands.flags import take_overrides
from stair_jax.errors import UserError
from stair_jax.parallel.chips import GIB
from stair_jax.parallel.gpus import gpu_of_kind
from stair_jax.planning.program import Program, compile_program
from stair_jax.planning.topology import Topology, get_topology
from stair_jax.run.planner import collect
from stair_jax.run.run_config import read_config
from stair_jax.stages import STAGES

_WORKSPACE = re.compile(r"u8\[(\d+)\][^=]*custom-call\(.*custom_call_target=\"(__cudnn[^\"]*)\"")
_COLUMNS = ("case", "program", "predicted", "compiled", "measured", "predicted / measured")


class Case(NamedTuple):
    """A program of a recipe.

    Attributes:
      name: of the case.
      recipe: name of the config.
      program: how the name of the program starts.
      overrides: of the config, FIELD=VALUE.
    """

    name: str
    recipe: str
    program: str
    overrides: tuple[str, ...]


def _training(name: str, recipe: str, stage: str, program: str, **values: Any) -> Case:
    model = values.pop("model", "")
    overrides = [f"{stage}.{field.replace('__', '.')}={value}" for field, value in values.items()]
    if model:
        overrides += ["model.init=none", f"model.architecture={model}"]
    return Case(name, recipe, program, tuple(overrides))


_B16: dict[str, Any] = {"param_dtype": "bfloat16", "mu_dtype": "bfloat16"}
_SMALL: dict[str, Any] = {"model": "Qwen/Qwen2.5-0.5B-Instruct"}
_ONE: dict[str, Any] = {"model": "meta-llama/Llama-3.2-1B-Instruct"}
_LORA: dict[str, Any] = {"param_dtype": "bfloat16", "lora__rank": 16}
_ENGINE = ("runtime.slots=128", "runtime.cache_tokens=262144")

CASES = (
    _training("8B bf16, 4 rows", "llama8b_sft", "sft", "SFT", microbatch_rows=4, **_B16),
    _training("8B LoRA, 4 rows", "llama8b_sft", "sft", "SFT", microbatch_rows=4, **_LORA),
    _training("0.5B, 16 rows", "llama8b_sft", "sft", "SFT", microbatch_rows=16, **_SMALL),
    _training(
        "0.5B, no remat", "llama8b_sft", "sft", "SFT", microbatch_rows=8, remat="none", **_SMALL
    ),
    _training(
        "1B, attention_mlp", "llama8b_sft", "sft", "SFT", microbatch_rows=8,
        remat="attention_mlp", **_ONE
    ),
    _training("8B bf16, pairs", "llama8b_iter1", "dpo", "DPO step", microbatch_rows=4, **_B16),
    _training("8B bf16, PRM", "llama8b_prm", "prm", "PRM step", microbatch_rows=4, **_B16),
    Case("8B engine", "llama8b_iter1", "decode", _ENGINE),
    Case("8B engine", "llama8b_iter1", "prefill", _ENGINE),
    _training(
        "8B LoRA, 8 rows of 1024", "llama8b_sft", "sft", "SFT", microbatch_rows=8,
        max_length=1024, remat="attention", **_LORA
    ),
    _training("8B bf16, reference", "llama8b_iter1", "dpo", "DPO ref", microbatch_rows=4, **_B16),
    _training(
        "0.5B, 4 rows of 4096", "llama8b_sft", "sft", "SFT", microbatch_rows=4, max_length=4096,
        remat="dots", **_SMALL
    ),
    _training(
        "0.5B float32, xla", "llama8b_sft", "sft", "SFT", microbatch_rows=2, dtype="float32",
        max_length=1024, **_SMALL
    ),
    _training("1B LoRA, 8 rows", "llama8b_sft", "sft", "SFT", microbatch_rows=8, **_LORA, **_ONE),
)  # fmt: skip


def main() -> None:
    """Prints the cases as they are measured, then the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("."), help="folder of the results")
    parser.add_argument("--seconds", type=float, default=340, help="after which no case starts")
    parser.add_argument("--only", default="", help="cases and programs that match this pattern")
    parser.add_argument("--gpu", default="", help="name in plans; default: that of this machine")
    parser.add_argument("--predict-only", action="store_true")
    parser.add_argument("--part", default="", help=argparse.SUPPRESS)  # of a child process
    flags = parser.parse_args()
    cases = [case for case in CASES if re.search(flags.only, f"{case.name} {case.program}")]
    if flags.part == "predict" or flags.predict_only:
        predict(cases, flags.gpu)
    elif flags.part:
        measure(CASES[int(flags.part)])
    else:
        compare(cases, flags)


def compare(cases: Sequence[Case], flags: argparse.Namespace) -> None:
    """Predicts all cases while each is measured; writes the results."""
    end = time.monotonic() + flags.seconds
    gpu = flags.gpu or _gpu_here()
    others = ["--gpu", gpu, "--only", flags.only]
    predicting = _child("predict", others, {"JAX_PLATFORMS": "cpu"})
    measured = [_measured(case) for case in cases if time.monotonic() < end]
    predicted = [json.loads(line) for line in predicting.communicate()[0].splitlines()]
    nothing: dict[str, Any] = {}
    pairs = itertools.zip_longest(predicted, measured, fillvalue=nothing)
    lines = [each | other for each, other in pairs]
    flags.out.mkdir(parents=True, exist_ok=True)
    (flags.out / "memory.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (flags.out / "memory.md").write_text(table(lines))
    print(table(lines))


def _child(part: str, flags: Sequence[str], variables: Mapping[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.memory", "--part", part, *flags]
    environment = {"XLA_PYTHON_CLIENT_MEM_FRACTION": ".95", **os.environ, **variables}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=sys.stderr, text=True
    )


def _measured(case: Case) -> dict[str, Any]:
    child = _child(str(CASES.index(case)), (), {})
    said = child.communicate()[0].strip()
    line = json.loads(said) if said else {"failed": f"status {child.returncode}"}
    print(json.dumps({"case": case.name, "program": case.program} | line), flush=True)
    return line


def predict(cases: Sequence[Case], gpu: str) -> None:
    """Prints what a plan says of each case."""
    topology = get_topology(gpu)
    for case in cases:
        line = {"case": case.name, "program": case.program, "jax": jax.__version__, "gpu": gpu}
        print(json.dumps(line | _predicted(case, topology)), flush=True)


def _predicted(case: Case, topology: Topology) -> dict[str, Any]:
    try:
        compiled = compile_program(program_of(case, topology))
    except UserError as error:
        return {"predicted": None, "reason": str(error)}
    if compiled.footprint is None:
        return {"predicted": None, "reason": compiled.reason}
    size = compiled.footprint.total - compiled.footprint.beside
    return {"predicted": size, "predicted_arguments": compiled.footprint.arguments}


def measure(case: Case) -> None:
    """Prints what the compiler says beside the GPU, and the peak of running the program."""
    program = program_of(case, get_topology("local"))
    lowered = program.lower()
    compiled = lowered.compile()
    stats = compiled.memory_analysis()
    line = {
        "compiled": stats.argument_size_in_bytes
        + stats.temp_size_in_bytes
        + stats.output_size_in_bytes
        - stats.alias_size_in_bytes,
        "compiled_arguments": stats.argument_size_in_bytes,
        "workspaces": [
            {"call": call, "bytes": int(size)}
            for size, call in set(_WORKSPACE.findall(compiled.as_text()))
        ],
    }
    try:
        line |= _run(program, compiled)
    except jax.errors.JaxRuntimeError as error:  # no room, most likely
        line["reason"] = str(error).splitlines()[0][:200]
    print(json.dumps(line), flush=True)


def _run(program: Program, compiled: Any) -> dict[str, Any]:
    (infos, _), (shardings, _) = compiled.args_info, compiled.input_shardings
    arrays = jax.block_until_ready(jax.tree.map(_filled, infos, shardings))
    jax.block_until_ready(compiled(*arrays))
    found = program.device.memory_stats() or {}
    used = _query("memory.used")
    outside = float(used) * 2**20 - found["bytes_limit"] if used else None
    return {"measured": found.get("peak_bytes_in_use"), "outside": outside}


def _filled(info: Any, sharding: Any) -> jax.Array:
    """Zeros, or ones of whole numbers: one micro-batch in use, one segment a row."""
    if jnp.issubdtype(info.dtype, jax.dtypes.prng_key):
        return jax.random.split(jax.random.key(0), info.shape)
    value = int(jnp.issubdtype(info.dtype, jnp.integer))
    return jnp.full(info.shape, value, info.dtype, device=sharding)


def program_of(case: Case, topology: Topology) -> Program:
    """The program of a case on a topology."""
    overrides, _ = take_overrides([f"--config.{override}" for override in case.overrides])
    config = read_config(load_config(case.recipe), STAGES, overrides)
    found = collect(config, topology)
    return next(program for program, _ in found if program.name.startswith(case.program))


def _gpu_here() -> str:
    """The name in plans of the GPU of this machine, which no process has taken yet."""
    gpu = gpu_of_kind(_query("name"))
    if gpu is None:
        raise UserError("the GPU of this machine is not known: give the nearest as --gpu=NAME")
    return gpu.name


def _query(field: str) -> str:
    command = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader,nounits"]
    if shutil.which(command[0]) is None:
        return ""
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.split("\n")[0].strip()


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """The results in Markdown, in GiB."""
    rows = [_COLUMNS, ("---",) * len(_COLUMNS), *map(_row, lines)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _row(line: Mapping[str, Any]) -> tuple[str, ...]:
    sizes = [line.get(name) for name in ("predicted", "compiled", "measured")]
    cells = ["-" if size is None else f"{size / GIB:.2f}" for size in sizes]
    ratio = f"{sizes[0] / sizes[2]:.3f}" if sizes[0] and sizes[2] else "-"
    return line["case"], line["program"], *cells, ratio


if __name__ == "__main__":
    main()
