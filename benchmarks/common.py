"""What the benchmarks share: timing, JSON lines, and models of random weights."""

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from stair_jax.decoding.driver import run_all
from stair_jax.decoding.engine import Engine
from stair_jax.decoding.requests import Request
from stair_jax.errors import UserError
from stair_jax.models.config import ModelConfig
from stair_jax.models.huggingface.known_configs import KNOWN
from stair_jax.models.layout import fit_to_mesh
from stair_jax.models.lora import Lora
from stair_jax.models.transformer import Params, init_params, logical_axes
from stair_jax.parallel.mesh import MeshShape, make_mesh
from stair_jax.parallel.rules import shardings

# What the figures of vLLM in these benchmarks were measured with: all layers, on one device.
_VLLM_MODEL, _VLLM_DEVICE = "meta-llama/Llama-3.1-8B-Instruct", "H200"

_LOGIT_SPREAD = 6.0  # standard deviation of random logits
_TINY = ModelConfig(
    vocab_size=1024,
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    max_position_embeddings=8192,
)


def median_seconds(
    run: Callable[[Any], Any], prepare: Callable[[], Any] = lambda: None, repeats: int = 5
) -> float:
    """Median time of run(prepare()); prepare and a first run, which compiles, are not counted."""
    seconds = []
    for _ in range(repeats + 1):
        argument = jax.block_until_ready(prepare())
        start = time.perf_counter()
        jax.block_until_ready(run(argument))
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def report(
    name: str,
    value: float,
    unit: str,
    *,
    ratio_to: tuple[str, float] | None = None,
    floor: float | None = None,
) -> None:
    """Prints a figure; ratio_to is (name, value) of the figure to compare with, floor the bar."""
    line: dict[str, Any] = {"name": name, "value": _rounded(value), "unit": unit}
    if ratio_to is not None:
        line |= {"ratio_to": ratio_to[0], "ratio": _rounded(value / ratio_to[1])}
    if floor is not None:
        line["floor"] = floor
    print(json.dumps(line), flush=True)


class Lines:
    """Prints JSON lines that say where and how each was measured."""

    def __init__(self, settings: Mapping[str, Any] | None = None):
        """`settings` stand in each line, without those that are empty."""
        self._settings = {name: value for name, value in (settings or {}).items() if value}

    def __call__(self, name: str, **values: Any) -> dict[str, Any]:
        """Prints a line, numbers with four digits, and returns it."""
        where = {
            "device": jax.devices()[0].device_kind,
            "jax": jax.__version__,
            "settings": self._settings,
        }
        line = {"name": name} | {key: _rounded(value) for key, value in values.items()} | where
        print(json.dumps(line), flush=True)
        return line


def _rounded(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value


class RandomModel(NamedTuple):
    """A model of random weights, and where they are (None: the default device)."""

    config: ModelConfig
    params: Params
    mesh: Mesh | None


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that `random_model` and `make_engine` read."""
    parser.add_argument(
        "--model",
        default="meta-llama/Llama-3.1-8B-Instruct",
        help="see models/huggingface/known_configs.py",
    )
    parser.add_argument("--layers", type=int, default=0, help="0: as many as the model has")
    parser.add_argument("--tiny", action="store_true", help="a model and sizes for a CPU")
    parser.add_argument("--weights", default="none", choices=("none", "fp8", "int8"))
    parser.add_argument("--lora", type=int, default=0, help="rank of adapters beside the kernels")
    parser.add_argument("--kv-dtype", default="", choices=("", "int8", "float8_e4m3fn"))
    parser.add_argument("--attention", default="", help="backend; default: by platform")
    parser.add_argument("--page-size", type=int, default=16)
    parser.add_argument("--cache-tokens", type=int, default=0, help="0: what the device has left")
    parser.add_argument("--steps-per-call", type=int, default=4)
    parser.add_argument("--prefill-rows", type=int, default=16, help="of each device")
    parser.add_argument("--prefill-width", type=int, default=128, help="tokens of one of its rows")


def model_config(flags: argparse.Namespace) -> ModelConfig:
    """The shape that the flags name, computed in bfloat16 (the tiny one in float32).

    Raises:
        UserError: the model is not in models/huggingface/known_configs.py.
    """
    if flags.tiny:
        config = _TINY
    elif flags.model not in KNOWN:
        raise UserError(f"--model {flags.model!r} is unknown: choose one of {', '.join(KNOWN)}")
    else:
        config = ModelConfig.from_huggingface(KNOWN[flags.model].config)
        config = dataclasses.replace(config, dtype="bfloat16", param_dtype="bfloat16")
    return dataclasses.replace(config, num_hidden_layers=flags.layers or config.num_hidden_layers)


def is_vllm_setup(flags: argparse.Namespace, device_kind: str) -> bool:
    """Whether vLLM was measured with this model, all layers of it, on such a device."""
    is_same_model = (flags.model, flags.layers, flags.tiny) == (_VLLM_MODEL, 0, False)
    return is_same_model and _VLLM_DEVICE in device_kind


def random_model(flags: argparse.Namespace, devices: int = 1) -> RandomModel:
    """Weights made on the device; on several, each has a copy of its own.

    With `flags.lora` the model has adapters, all zero, which an engine keeps beside the kernels.
    """
    adapters = Lora(flags.lora, 2.0) if flags.lora else None
    config = dataclasses.replace(model_config(flags), lora=adapters)
    if devices == 1:
        return RandomModel(config, _random_params(config, None)(jax.random.key(0)), None)
    mesh = make_mesh(MeshShape(data=devices))
    config = fit_to_mesh(config, mesh)
    return RandomModel(config, _random_params(config, mesh)(jax.random.key(0)), mesh)


@cache
def _random_params(config: ModelConfig, mesh: Mesh | None) -> Callable[[jax.Array], Params]:
    """Compiled once, as an engine that consumes its weights asks for them again."""
    placed = None if mesh is None else shardings(logical_axes(config), mesh)
    return jax.jit(partial(_peaked_params, config), out_shardings=placed)


def _peaked_params(config: ModelConfig, key: jax.Array) -> Params:
    """Random parameters whose next token is about as sure as that of a trained model.

    The logits of plain ones are so close together that a top-p of 0.9 keeps nearly the whole
    vocabulary: a case that no use has, and that the sampler may be slow for.
    """
    params = init_params(config, key)
    spread = config.initializer_range * config.hidden_size**0.5
    return params | {"final_norm": params["final_norm"] * (_LOGIT_SPREAD / spread)}


def make_engine(
    model: RandomModel, flags: argparse.Namespace, num_slots: int, max_length: int
) -> Engine:
    """An engine that takes the model's weights over: they are gone, so that the cache has room."""
    return Engine(
        model.config,
        model.params,
        mesh=model.mesh,
        consume=True,
        num_slots=num_slots,
        max_length=max_length,
        page_size=flags.page_size,
        cache_tokens=flags.cache_tokens,
        prefill_rows=flags.prefill_rows * (1 if model.mesh is None else model.mesh.size),
        prefill_width=flags.prefill_width,
        steps_per_call=flags.steps_per_call,
        attention=flags.attention,
        weights=flags.weights,
        kv_dtype=flags.kv_dtype,
    )


def warm_up(engine: Engine) -> None:
    """Compiles an idle engine's prefills of all sizes, so that none is while it is measured."""
    engine_config = engine.device.engine_config
    tokens = (1,) * (engine_config.prefill_width + 1)
    for rows in engine_config.prefill_sizes:
        count = rows * engine_config.num_shards
        run_all(engine, [Request(index, tokens, score_ids=(0,)) for index in range(count)])
