"""Training steps beside what the device could do, and beside plain torch on the same device.

    python -m benchmarks.train [--parts sft,dpo,torch] [--layers 8] [--rows 8] [--length 2048]
    python -m benchmarks.train --parts sft --remat none,attention,dots,full --attention cudnn,xla
    python -m benchmarks.train --parts dpo --layers 0 --fsdp 2 --param-dtype float32
    python -m benchmarks.train --parts sft,dpo --remat attention_mlp --unroll 0,1 \
        --row-sequences 0,1 --compiler ";xla_gpu_enable_dynamic_slice_fusion=false"
    python -m benchmarks.train --parts sft,torch --param-dtype bfloat16 --lora-rank 0,64
    XLA_PYTHON_CLIENT_MEM_FRACTION=.143 python -m benchmarks.train --parts sft,dpo,prm --layers 0 \
        --rows 1 --passes 2 --remat attention --chunks 8 --param-dtype bfloat16 --lora-rank 64 \
        --base-weights int8         # an H200 as a GPU of 24 GB, of which JAX takes nine tenths
    python -m benchmarks.train --tiny                                # seconds, on a CPU

Weights are random, rows are full: one sequence each. Of SFT all tokens count, of DPO the second
half of each sequence; the reward model scores the last token. A line has

    step_ms, tokens_per_s    of the jitted step that the stages run, the median of several
    mfu                      FLOPs that have to be done (6 N a token, logits of tokens that count,
                             causal attention, nothing that remat repeats) by the peak of the chips
    argument_gb, temporary_gb, compile_s   of each device, as the compiler says
    peak_gb                  of JAX's allocator since the process began, of limit_gb
    split                    share of the kernels' time by kind, in a profile of one step

Flags with commas are alternatives: each combination is a line. `--row-sequences` says what
attention has to be ready for, as the rows hold one sequence each (0: one for 64 tokens).
`--compiler` holds XLA's options, the alternatives between semicolons ("": none beside its own).

With `--lora-rank` adapters of that rank are trained beside a frozen base (0: all parameters), whose
kernels `--base-weights` may quantise. The lines `torch` are of transformers on the same device:
SDPA, pure bfloat16 or autocast, with and without gradient checkpointing, fused AdamW; with a rank
those of peft, over a base in bfloat16.
"""

import argparse
import itertools
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.common import Lines, add_model_flags, model_config
from benchmarks.trace import Trace
from stair_jax.data.packing import Example
from stair_jax.models import flops, lora
from stair_jax.models.config import ModelConfig
from stair_jax.models.heads import init_score_head
from stair_jax.models.transformer import init_params, logical_axes
from stair_jax.parallel import chips, rules
from stair_jax.parallel.mesh import MeshShape, make_mesh, use_mesh
from stair_jax.stages.prm import prm_axes
from stair_jax.training.batch_sharding import put_batch
from stair_jax.training.batches import Batch, Batches, Group
from stair_jax.training.lora_settings import LoraSettings
from stair_jax.training.objectives import DpoObjective, PrmObjective, SftObjective
from stair_jax.training.optimizer import make_optimizer
from stair_jax.training.settings import TrainingSettings, configure
from stair_jax.training.step import TrainState, init_state, make_train_step

TORCH_VARIANTS = ("autocast+checkpoint", "bfloat16+checkpoint", "bfloat16")
PEFT_VARIANTS = ("peft+bfloat16+checkpoint", "peft+bfloat16")


class Way(NamedTuple):
    """How a step is computed."""

    rank: int
    remat: str
    attention: str
    unroll: bool
    row_sequences: int
    compiler: str

    @property
    def options(self) -> dict[str, Any]:
        """XLA's options."""
        pairs = (pair.partition("=") for pair in self.compiler.split(",") if pair)
        return {name.strip(): option_value(text) for name, _, text in pairs}


def option_value(text: str) -> bool | int | str:
    """The value of an option of XLA's: a truth value, a number, or text."""
    if text in ("true", "false"):
        return text == "true"
    return int(text) if re.fullmatch(r"-?\d+", text) else text


def main() -> None:
    """Prints the figures as they are found."""
    flags = parse()
    lines = Lines(vars(flags))
    parts = flags.parts.split(",")
    if "torch" in parts:
        torch_lines(flags)
    for part in ("sft", "dpo", "prm"):
        if part in parts:
            for way in ways(flags):
                train_line(flags, lines, part, way)


def parse() -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_model_flags(parser)
    parser.set_defaults(layers=8)
    parser.add_argument("--parts", default="sft,dpo,torch", help="comma-separated")
    parser.add_argument("--rows", type=int, default=8, help="of a micro-batch")
    parser.add_argument("--length", type=int, default=2048, help="tokens a row")
    parser.add_argument("--passes", type=int, default=1, help="micro-batches a step")
    parser.add_argument("--remat", default="none,full", help="policies, comma-separated")
    parser.add_argument("--unroll", default="0", help="0, 1 or 0,1: layers unrolled")
    parser.add_argument("--row-sequences", default="0", help="comma-separated")
    parser.add_argument("--compiler", default="", help="options NAME=VALUE, alternatives after ;")
    parser.add_argument("--chunks", type=int, default=4, help="logps_chunks")
    parser.add_argument("--param-dtype", default="float32", help="of parameters in training")
    parser.add_argument("--mu-dtype", default="float32", help="of Adam's first moment")
    parser.add_argument("--lora-rank", default="0", help="ranks of adapters, comma-separated")
    parser.add_argument("--base-weights", default="none", help="of the base of adapters")
    parser.add_argument("--fsdp", type=int, default=1, help="devices")
    parser.add_argument("--steps", type=int, default=6, help="of a figure")
    flags = parser.parse_args()
    if flags.tiny:
        flags.layers, flags.rows, flags.length, flags.steps = 2, 2, 64, 2
    return flags


def ranks_of(flags: argparse.Namespace) -> list[int]:
    """The ranks of adapters."""
    return [int(rank) for rank in flags.lora_rank.split(",")]


def ways(flags: argparse.Namespace) -> Iterator[Way]:
    """All combinations of the alternatives."""
    return itertools.starmap(
        Way,
        itertools.product(
            ranks_of(flags),
            flags.remat.split(","),
            flags.attention.split(","),
            [bool(int(value)) for value in flags.unroll.split(",")],
            [int(value) for value in flags.row_sequences.split(",")],
            flags.compiler.split(";"),
        ),
    )


def train_line(flags: argparse.Namespace, lines: Lines, part: str, way: Way) -> None:
    """The step of one part with one way of computing it; rank 0: of all parameters."""
    mesh = make_mesh(MeshShape(fsdp=flags.fsdp))
    adapters = LoraSettings()
    if way.rank:
        adapters = LoraSettings(way.rank, base_weights=flags.base_weights)
    settings = TrainingSettings(
        learning_rate=1e-6,
        mu_dtype=flags.mu_dtype,
        param_dtype=flags.param_dtype,
        dtype=model_config(flags).dtype,
        remat=way.remat,
        unroll=way.unroll,
        row_sequences=way.row_sequences,
        attention=way.attention,
        lora=adapters,
    )
    config = configure(model_config(flags), settings, mesh)
    optimizer = make_optimizer(settings, 100)
    objectives: dict[str, Any] = {
        "sft": SftObjective(config, flags.chunks),
        "dpo": DpoObjective(config, beta=0.1, sft_weight=0.2, num_chunks=flags.chunks),
        "prm": PrmObjective(config),
    }
    objective = objectives[part]
    batch = make_batch(flags, config, pairs=part != "sft")
    what: dict[str, Any] = {
        name: value for name, value in way._asdict().items() if value and name != "rank"
    }
    what["devices"] = mesh.size
    if way.rank:
        what |= {"lora_rank": way.rank, "base_weights": flags.base_weights}
    try:
        with use_mesh(mesh):
            state, frozen = random_state(config, optimizer.tx, mesh, is_prm=part == "prm")
            jitted = make_train_step(objective, optimizer.tx, state)
            values = measure(flags, jitted, way.options, state, frozen, batch, mesh)
    except jax.errors.JaxRuntimeError as error:  # no room, most likely
        lines(part, **what, skipped=str(error).splitlines()[0])
        return
    needed = flops.micro_training_flops(config, batch.arrays["micro"], head=part != "prm")
    rate = needed / values["step_ms"] * 1e3 / mesh.size
    peak = chips.device_chip(jax.devices()[0]).flops
    lines(
        part,
        **what,
        **values,
        tokens_per_s=batch.num_tokens / values["step_ms"] * 1e3,
        tflops_per_s=rate / 1e12,
        mfu=rate / peak if peak else None,
    )


def make_batch(flags: argparse.Namespace, config: ModelConfig, pairs: bool) -> Batch:
    """Random sequences that fill the rows."""
    count, length = flags.rows * flags.passes, flags.length
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, config.vocab_size, (count, length)).tolist()
    masks = [0] * (length // 2) + [1] * (length - length // 2) if pairs else [1] * length
    examples = [Example(row, masks, str(number)) for number, row in enumerate(tokens)]
    if pairs:
        values = {"ref_chosen": -1.0, "ref_rejected": -1.0}  # of DPO
        groups = [
            Group(str(number), (examples[2 * number], examples[2 * number + 1]), values)
            for number in range(count // 2)
        ]
    else:
        groups = [Group(str(number), (example,)) for number, example in enumerate(examples)]
    return Batches(groups, len(groups), length, flags.rows)[0]  # a row is filled by one sequence


def random_state(
    config: ModelConfig, tx: Any, mesh: Any, is_prm: bool = False
) -> tuple[TrainState, Any]:
    """Parameters and moments, made where they belong; and what is frozen."""
    axes = prm_axes(config) if is_prm else logical_axes(config)

    def make(key: jax.Array) -> Any:
        params = init_params(config, key)
        if not is_prm:
            return params
        model = {name: params[name] for name in axes["model"]}
        return {"model": model, "score": init_score_head(config, key)}

    params = jax.jit(make, out_shardings=rules.shardings(axes, mesh))(jax.random.key(0))
    if config.lora is None:
        return init_state(params, axes, tx, mesh), {}
    (frozen, trained), (_, trained_axes) = lora.split(params), lora.split(axes)
    return init_state(trained, trained_axes, tx, mesh), frozen


def measure(
    flags: argparse.Namespace,
    jitted: Any,
    options: dict[str, Any],
    state: TrainState,
    frozen: Any,
    batch: Batch,
    mesh: Any,
) -> dict[str, Any]:
    """Compiles the step, runs it, and profiles it once."""
    arrays = put_batch(batch.arrays, mesh, flags.rows)
    rate = jax.device_put(np.float32(1e-6), rules.replicated(mesh))
    start = time.perf_counter()
    step = jitted.lower(state, arrays, rate, frozen).compile(compiler_options=options or None)
    compiled = time.perf_counter() - start
    memory = step.memory_analysis()
    state, metrics = jax.block_until_ready(step(state, arrays, rate, frozen))
    seconds = []
    for _ in range(flags.steps):
        start = time.perf_counter()
        state, metrics = jax.block_until_ready(step(state, arrays, rate, frozen))
        seconds.append(time.perf_counter() - start)
    trace = Trace()
    trace.start()
    state, metrics = jax.block_until_ready(step(state, arrays, rate, frozen))
    kernels = trace.kernels()
    total = sum(kernels.values())
    used = jax.devices()[0].memory_stats() or {}
    return {
        "step_ms": 1e3 * statistics.median(seconds),
        "peak_gb": used.get("peak_bytes_in_use", 0) / 1e9,
        "limit_gb": used.get("bytes_limit", 0) / 1e9,
        "compile_s": compiled,
        "argument_gb": memory.argument_size_in_bytes / 1e9,
        "temporary_gb": memory.temp_size_in_bytes / 1e9,
        "loss": float(metrics["loss"]),
        "split": {kind: round(spent / total, 3) for kind, spent in kernels.items()},
    }


def torch_lines(flags: argparse.Namespace) -> None:
    """Transformers, in processes of their own, before JAX takes the memory and keeps it."""
    parts = [part for part in ("sft", "dpo") if part in flags.parts.split(",")]
    wanted_variants = [(variant, 0) for variant in TORCH_VARIANTS if 0 in ranks_of(flags)]
    wanted_variants += [(name, rank) for rank in ranks_of(flags) if rank for name in PEFT_VARIANTS]
    for variant, rank in wanted_variants:
        for part in parts or ("sft", "dpo"):
            values = model_config(flags).to_huggingface()
            sizes = [flags.rows, flags.length, flags.steps, rank]
            wanted = json.dumps([part, variant, values, *sizes])
            run = subprocess.run(
                [sys.executable, "-m", "benchmarks.train_torch", wanted],
                capture_output=True,
                text=True,
                check=False,
            )
            error = {"name": f"torch_{part}", "variant": variant, "failed": run.stderr[-300:]}
            print(run.stdout.strip() or json.dumps(error), flush=True)


if __name__ == "__main__":
    main()
