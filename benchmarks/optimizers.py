"""What each way of frugal full fine-tuning saves, costs, and does to the loss.

    python -m benchmarks.optimizers [--layers=8] [--rows=8] [--length=2048] [--steps=20]
    python -m benchmarks.optimizers --only="float32;int8;offload"
    python -m benchmarks.optimizers --checkpoint=FOLDER --data=sft.jsonl --learning-rate=1e-5
    python -m benchmarks.optimizers --tiny                          # a minute, on a CPU

SFT steps of two micro-batches, by default of 8 layers of the shape of Llama-3.1-8B, with random
weights and rows of a random bigram model that there is something to learn of. With --checkpoint and
--data a model (a Hugging Face folder) and rows {prompt, answer} of your own. Each option runs in a
process of its own, on the same batches. Prints a Markdown table, in GiB of one device:

    state       parameters and moments; of these, what is in host memory
    compiled    what the step needs, by the compiler
    peak        of JAX's allocator (not on CPUs)
    step        median milliseconds
    loss        mean of the last quarter of the steps; its difference to float32
"""

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from benchmarks.common import add_model_flags, model_config
from stair_jax.data.examples import answer_example
from stair_jax.data.packing import Example
from stair_jax.data.records import SftRow
from stair_jax.models import huggingface
from stair_jax.models.config import ModelConfig
from stair_jax.models.transformer import Params, init_params, logical_axes
from stair_jax.parallel import rules
from stair_jax.parallel.chips import GIB
from stair_jax.parallel.mesh import make_mesh, use_mesh
from stair_jax.planning.cost import host_bytes, local_bytes
from stair_jax.storage import read_jsonl
from stair_jax.text.tokenizer import Tokenizer
from stair_jax.training.batch_sharding import put_batch
from stair_jax.training.batches import Batch, Batches, Group
from stair_jax.training.objectives import SftObjective
from stair_jax.training.optimizer import make_optimizer
from stair_jax.training.settings import TrainingSettings
from stair_jax.training.step import init_state, make_train_step

_BF16 = {"param_dtype": "bfloat16", "mu_dtype": "bfloat16"}
_STOCHASTIC = {**_BF16, "rounding": "stochastic"}
_INT8 = {**_STOCHASTIC, "mu_dtype": "int8", "second_moment": "int8"}
OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "float32": {},
    "bfloat16, nearest": _BF16,
    "stochastic": _STOCHASTIC,
    "kahan": {**_BF16, "rounding": "kahan"},
    "int8": _INT8,
    "factored": {**_STOCHASTIC, "second_moment": "factored"},
    "accumulate": {**_STOCHASTIC, "accumulate_dtype": "bfloat16"},
    "offload": {**_STOCHASTIC, "offload": True},
    "int8, accumulate": {**_INT8, "accumulate_dtype": "bfloat16"},
    "int8, accumulate, offload": {**_INT8, "accumulate_dtype": "bfloat16", "offload": True},
}
_PASSES = 2
_COLUMNS = ("option", "state", "host", "compiled", "peak", "step", "loss", "difference")


def main() -> None:
    """Prints the table, or with --one the line of one option."""
    flags = parse()
    if flags.one:
        print(json.dumps(measure(flags, flags.one)), flush=True)
        return
    names = flags.only.split(";") if flags.only else list(OPTIONS)
    print(table([in_process(name) for name in names]), flush=True)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_model_flags(parser)
    parser.set_defaults(layers=8)
    parser.add_argument("--rows", type=int, default=8, help="of a micro-batch")
    parser.add_argument("--length", type=int, default=2048, help="tokens a row")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--remat", default="full")
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--checkpoint", default="", help="a Hugging Face folder")
    parser.add_argument("--data", default="", help="JSON lines with prompt and answer")
    parser.add_argument("--only", default="", help="options, with ; between them")
    parser.add_argument("--one", default="", help=argparse.SUPPRESS)
    flags = parser.parse_args(arguments)
    if bool(flags.checkpoint) != bool(flags.data):
        parser.error("--checkpoint and --data go together")
    if flags.tiny:
        flags.layers, flags.rows, flags.length = 2, 4, 64
    return flags


def in_process(name: str) -> dict[str, Any]:
    """The line of an option, in a process that has all of the memory."""
    command = [sys.executable, "-m", "benchmarks.optimizers", *sys.argv[1:], f"--one={name}"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    lines = run.stdout.strip().splitlines()
    if run.returncode or not lines:
        said = (run.stderr.strip() or "nothing said").splitlines()[-1][:200]
        line = {"option": name, "failed": said}
    else:
        line = json.loads(lines[-1])
    print(json.dumps(line), file=sys.stderr, flush=True)
    return line


def measure(flags: argparse.Namespace, name: str) -> dict[str, Any]:
    """Trains with one option."""
    settings = TrainingSettings(
        learning_rate=flags.learning_rate,
        batch_size=_PASSES * flags.rows,
        microbatch_rows=flags.rows,
        max_length=flags.length,
        **OPTIONS[name],
    )
    mesh, optimizer = make_mesh(), make_optimizer(settings, flags.steps)
    config, params, batches = prepared(flags, settings)
    state = init_state(params, logical_axes(config), optimizer.tx, mesh)
    del params
    line = {"option": name, "state": local_bytes(state) / GIB, "host": host_bytes(state) / GIB}
    jitted: Any = make_train_step(SftObjective(config, num_chunks=4), optimizer.tx, state)
    seconds, losses, step = [], [], None
    with use_mesh(mesh):
        for number in range(flags.steps):
            arrays = put_batch(batches[number % len(batches)].arrays, mesh, flags.rows)
            rate = jax.device_put(np.float32(optimizer.schedule(number)), rules.replicated(mesh))
            step = step or jitted.lower(state, arrays, rate).compile()
            start = time.perf_counter()
            state, metrics = jax.block_until_ready(step(state, arrays, rate))
            seconds.append(time.perf_counter() - start)
            losses.append(float(metrics["loss"]))
    stats = jax.local_devices()[0].memory_stats() or {}
    return line | {
        "compiled": _needed(step) / GIB,
        "peak": stats["peak_bytes_in_use"] / GIB if "peak_bytes_in_use" in stats else None,
        "step": 1e3 * statistics.median(seconds[1:]),
        "loss": statistics.fmean(losses[-max(1, len(losses) // 4) :]),
    }


def _needed(step: Any) -> int:
    """Bytes of a device while a compiled step runs."""
    stats = step.memory_analysis()
    outputs = stats.output_size_in_bytes - stats.alias_size_in_bytes
    return int(stats.argument_size_in_bytes + stats.temp_size_in_bytes + outputs)


def prepared(
    flags: argparse.Namespace, settings: TrainingSettings
) -> tuple[ModelConfig, Params, Sequence[Batch]]:
    """The model, its parameters, and the batches of its training."""
    changes = {"param_dtype": settings.param_dtype, "remat": flags.remat}
    if not flags.checkpoint:
        config = dataclasses.replace(model_config(flags), attention=flags.attention, **changes)
        made = jax.jit(init_params, static_argnums=0)(config, jax.random.key(0))
        examples = random_examples(config, flags.steps * settings.batch_size, flags.length)
        return config, made, _batches(settings, examples)
    config = huggingface.load_config(flags.checkpoint)
    dtype = "float32" if jax.devices()[0].platform == "cpu" else "bfloat16"
    config = dataclasses.replace(config, dtype=dtype, attention=flags.attention, **changes)
    tokenizer = Tokenizer.load(flags.checkpoint)
    examples = [
        answer_example(tokenizer, SftRow(str(number), row["prompt"], row["answer"], "helpfulness"))
        for number, row in enumerate(read_jsonl(flags.data))
    ]
    fitting = [example for example in examples if len(example) <= flags.length]
    params = huggingface.load_params(flags.checkpoint, config)
    return config, params, _batches(settings, fitting)


def random_examples(config: ModelConfig, count: int, length: int) -> list[Example]:
    """Sequences in which each of 1,024 tokens is followed by one of two others."""
    rng = np.random.default_rng(0)
    known = min(1024, config.vocab_size)
    followers = rng.integers(0, known, (known, 2))
    tokens = np.empty((count, length), np.int64)
    tokens[:, 0] = rng.integers(0, known, count)
    for place in range(1, length):
        tokens[:, place] = followers[tokens[:, place - 1], rng.integers(0, 2, count)]
    return [Example(row, [1] * length, str(number)) for number, row in enumerate(tokens.tolist())]


def _batches(settings: TrainingSettings, examples: Sequence[Example]) -> Batches:
    groups = [Group(str(number), (example,)) for number, example in enumerate(examples)]
    return Batches(groups, settings.batch_size, settings.max_length, settings.microbatch_rows)


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """The lines as Markdown; differences of the loss to the line of float32."""
    reference = next((line.get("loss") for line in lines if line["option"] == "float32"), None)
    rows = [f"| {' | '.join(_COLUMNS)} |", "| " + " | ".join(["---"] * len(_COLUMNS)) + " |"]
    for line in lines:
        if "failed" in line:
            rows.append(f"| {line['option']} | failed: {line['failed']} |")
            continue
        difference = None if reference is None else line["loss"] - reference
        values = {**line, "difference": difference}
        rows.append(f"| {' | '.join(_cell(name, values[name]) for name in _COLUMNS)} |")
    return "\n".join(rows)


def _cell(name: str, value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or "-"
    return {"step": f"{value:.0f}", "loss": f"{value:.4f}", "difference": f"{value:+.4f}"}.get(
        name, f"{value:.2f}"
    )


if __name__ == "__main__":
    main()
