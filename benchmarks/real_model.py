"""A model of real size through every part, on one machine with an accelerator: random weights.

    python -m benchmarks.real_model --folder=/tmp/real [--model=Qwen/Qwen2-7B-Instruct] [--layers=4]

Makes a Hugging Face folder of that shape, imports it, takes one step of SFT and one of step-level
DPO, prefills and decodes, exports, and lets transformers open what came out: its logits have to be
ours. Prints one JSON line a figure. Each part is a process of its own, so that JAX and PyTorch
each have the device's memory. Needs PyTorch with the device's support.
"""

import argparse
import dataclasses
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

PARTS = ("make", "sft", "dpo", "decode", "logits", "compare")
PROMPT_TOKENS, CONTEXT = 512, 1024


def main() -> None:
    """Runs the parts in their order, or the one that is named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="a new folder, on a large disk")
    parser.add_argument(
        "--model",
        default="meta-llama/Llama-3.1-8B-Instruct",
        help="see models/huggingface/known_configs.py",
    )
    parser.add_argument("--layers", type=int, default=0, help="0: as many as the model has")
    parser.add_argument("--rows", type=int, default=4, help="rows of a training step")
    parser.add_argument("--length", type=int, default=2048, help="tokens a row")
    parser.add_argument("--fsdp", type=int, default=1, help="devices that share a training state")
    parser.add_argument("--param-dtype", default="bfloat16", help="of parameters in training")
    parser.add_argument("--slots", type=int, default=64, help="sequences that decode together")
    parser.add_argument("--part", choices=PARTS, help="this one alone")
    arguments = parser.parse_args()
    if arguments.part:
        globals()[f"_{arguments.part}"](arguments)
        return
    for part in PARTS:
        command = [sys.executable, "-m", "benchmarks.real_model", *sys.argv[1:], "--part", part]
        subprocess.run(command, check=True)


def _report(name: str, **values: Any) -> None:
    print(json.dumps({"name": name} | values), flush=True)


def _timed(run: Callable[[], Any]) -> tuple[Any, float]:
    import jax

    start = time.perf_counter()
    result = jax.block_until_ready(run())
    return result, time.perf_counter() - start


def _host_peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def _device_peak() -> float:
    import jax

    statistics = jax.devices()[0].memory_stats() or {}
    return statistics.get("peak_bytes_in_use", 0) / 1e9


def _device_limit() -> float:
    import jax

    statistics = jax.devices()[0].memory_stats() or {}
    return statistics.get("bytes_limit", 0) / 1e9


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def _make(arguments: argparse.Namespace) -> None:
    """A random checkpoint in bfloat16, with the tokenizer of the pocket world."""
    import jax

    from stair_jax import pocket
    from stair_jax.models import huggingface
    from stair_jax.models.config import ModelConfig
    from stair_jax.models.huggingface.known_configs import KNOWN
    from stair_jax.models.transformer import init_params
    from stair_jax.text.chat import prepare_tokenizer

    config = ModelConfig.from_huggingface(KNOWN[arguments.model].config)
    layers = arguments.layers or config.num_hidden_layers
    config = dataclasses.replace(config, num_hidden_layers=layers, param_dtype="bfloat16")
    tokenizer = prepare_tokenizer(Path(*pocket.__path__) / "base")
    params = jax.block_until_ready(init_params(config, jax.random.key(0)))
    start = time.perf_counter()
    huggingface.save(arguments.folder / "base", params, config, tokenizer, dtype="bfloat16")
    seconds = time.perf_counter() - start
    size = _size(arguments.folder / "base")
    _report("export", model=arguments.model, layers=layers, gigabytes=size / 1e9, seconds=seconds)


def _sft(arguments: argparse.Namespace) -> None:
    """Import, and three steps of SFT, the first of which compiles; then the export."""
    import jax

    from stair_jax.models import huggingface
    from stair_jax.text.tokenizer import Tokenizer
    from stair_jax.training.batches import Group
    from stair_jax.training.objectives import SftObjective

    folder = arguments.folder / "base"
    config, params, seconds = _load(folder, "bfloat16", arguments.param_dtype, arguments.fsdp)
    size = _size(folder)
    _report("import", gigabytes=size / 1e9, seconds=seconds, host_peak_gb=_host_peak())
    groups = [
        Group(str(seed), (_example(config, arguments.length, seed),))
        for seed in range(arguments.rows)
    ]
    state = _train("sft", SftObjective(config, 16), params, groups, arguments)
    start = time.perf_counter()
    tokenizer = Tokenizer.load(folder)
    huggingface.save(
        arguments.folder / "trained", state.params, config, tokenizer, dtype="bfloat16"
    )
    del state
    jax.clear_caches()
    _report("export of the trained model", seconds=time.perf_counter() - start)


def _dpo(arguments: argparse.Namespace) -> None:
    """The reference pass, and three steps of step-level DPO, the first of which compiles."""
    from functools import partial

    from stair_jax.parallel.mesh import MeshShape, make_mesh
    from stair_jax.training.batches import Batches, Group
    from stair_jax.training.forward_pass import for_each_group, sequence_logps
    from stair_jax.training.objectives import DpoObjective

    base = arguments.folder / "base"
    config, params, _ = _load(base, "bfloat16", arguments.param_dtype, arguments.fsdp)
    pairs = [
        tuple(_example(config, arguments.length, 2 * seed + side) for side in (0, 1))
        for seed in range(arguments.rows // 2)
    ]
    groups = [Group(str(index), pair) for index, pair in enumerate(pairs)]
    batches = Batches(groups, len(groups), arguments.length, arguments.rows)
    mesh = make_mesh(MeshShape(fsdp=arguments.fsdp))
    logps = for_each_group(partial(sequence_logps, config, 16, params), batches, mesh)
    objective = DpoObjective(config, beta=0.1, sft_weight=0.2, num_chunks=16)
    groups = [
        Group(str(index), pair, {"ref_chosen": float(chosen), "ref_rejected": float(rejected)})
        for index, (pair, (chosen, rejected)) in enumerate(zip(pairs, logps, strict=True))
    ]
    _train("dpo", objective, params, groups, arguments)


def _load(folder: Path, dtype: str, param_dtype: str, fsdp: int = 1) -> tuple[Any, Any, float]:
    """Config with full remat, parameters, and the seconds that the import took."""
    from stair_jax.models import huggingface
    from stair_jax.parallel.mesh import MeshShape, make_mesh

    mesh = make_mesh(MeshShape(fsdp=fsdp))
    config = huggingface.load_config(folder)
    config = dataclasses.replace(config, dtype=dtype, param_dtype=param_dtype, remat="full")
    params, seconds = _timed(lambda: huggingface.load_params(folder, config, mesh))
    return config, params, seconds


def _example(config: Any, length: int, seed: int) -> Any:
    """Random tokens, of which the second half counts."""
    from stair_jax.data.packing import Example

    tokens = np.random.default_rng(seed).integers(0, config.vocab_size, length).tolist()
    return Example(tokens, [0] * (length // 2) + [1] * (length - length // 2), str(seed))


def _train(
    name: str, objective: Any, params: Any, groups: Any, arguments: argparse.Namespace
) -> Any:
    """The state after three steps on one batch; reports what a step takes."""
    from functools import partial

    import jax
    import jax.numpy as jnp

    from stair_jax.models.flops import RowShape, training_flops
    from stair_jax.models.transformer import logical_axes
    from stair_jax.parallel.mesh import MeshShape, make_mesh, use_mesh
    from stair_jax.training.batch_sharding import put_batch
    from stair_jax.training.batches import Batches
    from stair_jax.training.optimizer import make_optimizer
    from stair_jax.training.settings import TrainingSettings
    from stair_jax.training.step import init_state, make_train_step

    config, rows, length = objective.config, arguments.rows, arguments.length
    settings = TrainingSettings(learning_rate=1e-5, mu_dtype=arguments.param_dtype)
    optimizer = make_optimizer(settings, 3)
    mesh = make_mesh(MeshShape(fsdp=arguments.fsdp))
    batch = Batches(groups, len(groups), length, rows)[0]
    state = init_state(params, logical_axes(config), optimizer.tx, mesh)
    losses, seconds = [], []
    rate = jnp.float32(1e-5)
    with use_mesh(mesh):
        step = make_train_step(objective, optimizer.tx, state)
        for _ in range(3):
            arrays = put_batch(batch.arrays, mesh)
            (state, metrics), took = _timed(partial(step, state, arrays, rate))
            losses.append(float(metrics["loss"]))
            seconds.append(took)
    flops = training_flops(config, RowShape(rows, length, logits=length))
    _report(
        name,
        devices=mesh.size,
        param_dtype=config.param_dtype,
        tokens=batch.num_tokens,
        first_step_with_compile_s=seconds[0],
        step_s=min(seconds[1:]),
        tokens_per_s=batch.num_tokens / min(seconds[1:]),
        tflops_per_s=flops / min(seconds[1:]) / 1e12,
        losses=losses,
        reserved_gb=_device_limit(),
        device_peak_gb=_device_peak(),
        host_peak_gb=_host_peak(),
    )
    jax.block_until_ready(state)
    return state


def _decode(arguments: argparse.Namespace) -> None:
    """Prefill and decode through the engine: prompts of 512 tokens, 128 new tokens each."""
    from stair_jax.decoding.driver import run_all
    from stair_jax.decoding.engine import Engine
    from stair_jax.decoding.requests import Request, Sampling, request_key

    config, params, _ = _load(arguments.folder / "trained", "bfloat16", "bfloat16")
    slots = arguments.slots
    engine = Engine(
        config,
        params,
        consume=True,
        num_slots=slots,
        max_length=CONTEXT,
        cache_tokens=slots * CONTEXT,
        prefill_rows=64,
        prefill_width=64,
        steps_per_call=16,
    )
    rng = np.random.default_rng(0)

    def requests(new_tokens: int) -> list[Request]:
        sampling = Sampling(temperature=1.2, top_k=50, top_p=0.9, max_tokens=new_tokens)
        return [
            Request(
                index,
                tuple(rng.integers(0, config.vocab_size, PROMPT_TOKENS).tolist()),
                sampling=sampling,
                key=request_key(0, index),
            )
            for index in range(slots)
        ]

    def seconds(new_tokens: int) -> float:
        start = time.perf_counter()
        completions = run_all(engine, requests(new_tokens))
        assert all(len(c.tokens) == new_tokens for c in completions.values())
        return time.perf_counter() - start

    seconds(16)  # compiles
    short, long = seconds(1), seconds(129)
    _report(
        "decode",
        slots=slots,
        prefill_tokens_per_s=slots * PROMPT_TOKENS / short,
        decode_tokens_per_s=slots * 128 / (long - short),
        device_peak_gb=_device_peak(),
    )


def _inputs(vocab_size: int) -> np.ndarray:
    return np.random.default_rng(5).integers(0, vocab_size, (2, 64))


def _logits(arguments: argparse.Namespace) -> None:
    """Our logits of the exported model in float32, and a greedy continuation, for `_compare`."""
    import jax
    import jax.numpy as jnp

    from stair_jax.decoding.driver import run_all
    from stair_jax.decoding.engine import Engine
    from stair_jax.decoding.requests import Request, Sampling
    from stair_jax.models.transformer import apply, output_embedding

    jax.config.update("jax_default_matmul_precision", "highest")
    config, params, _ = _load(arguments.folder / "trained", "float32", "float32")
    tokens = _inputs(config.vocab_size)

    @jax.jit
    def forward(params: Any, tokens: Any) -> Any:
        positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
        hidden = apply(config, params, tokens, positions)
        return hidden @ output_embedding(params, config)[: config.vocab_size].T

    logits, seconds = _timed(lambda: forward(params, tokens))
    _report("logits", seconds_with_compile=seconds)
    start = time.perf_counter()
    engine = Engine(
        config,
        params,
        consume=True,
        num_slots=2,
        max_length=128,
        cache_tokens=512,
        steps_per_call=16,
        attention="gather",  # the only one for float32 on GPUs
    )
    sampling = Sampling(temperature=0.0, max_tokens=16)
    requests = [Request(i, tuple(row.tolist()), sampling=sampling) for i, row in enumerate(tokens)]
    completions = run_all(engine, requests)
    greedy = np.array([completions[index].tokens for index in range(len(tokens))])
    _report("greedy", seconds_with_compile=time.perf_counter() - start)
    np.savez(arguments.folder / "ours.npz", logits=np.asarray(logits), greedy=greedy)


def _compare(arguments: argparse.Namespace) -> None:
    """Transformers opens the export; its logits against ours."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.backends.cuda.matmul.allow_tf32 = False
    device = "cuda" if torch.cuda.is_available() else "cpu"
    opened: Any = AutoModelForCausalLM.from_pretrained(
        arguments.folder / "trained", dtype=torch.float32, output_loading_info=True
    )
    model, loading = opened
    model = model.eval().to(device)
    ours = np.load(arguments.folder / "ours.npz")
    tokens = torch.tensor(_inputs(model.config.vocab_size), device=device)
    with torch.no_grad():
        theirs = model(tokens).logits.float().cpu().numpy()
        greedy = model.generate(tokens, do_sample=False, max_new_tokens=16, min_new_tokens=16)
    continued = greedy[:, tokens.shape[1] :].cpu().numpy()
    _report(
        "transformers",
        missing=len(loading["missing_keys"]),
        unexpected=len(loading["unexpected_keys"]),
        largest_logit=float(np.abs(theirs).max()),
        largest_difference=float(np.abs(theirs - ours["logits"]).max()),
        same_greedy_tokens=int((continued == ours["greedy"]).sum()),
        greedy_tokens=int(continued.size),
    )


if __name__ == "__main__":
    main()
