"""Import of an adapter folder: its base, with the adapters beside the kernels or added to them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from jax.sharding import Mesh

from stair_jax.models.config import ModelConfig
from stair_jax.models.huggingface.adapter_rows import put_rows, read_rows
from stair_jax.models.huggingface.adapter_tensors import ADAPTER_SCORE, AdapterTensors
from stair_jax.models.huggingface.arrays import make_array
from stair_jax.models.huggingface.hub import adapter_base
from stair_jax.models.huggingface.merging import Merging
from stair_jax.models.huggingface.safetensors_files import CheckpointFiles
from stair_jax.models.huggingface.tensor_names import parameter_shapes
from stair_jax.models.lora import KERNELS, ROWS, A, B, join
from stair_jax.models.transformer import Params, logical_axes
from stair_jax.monitoring import say
from stair_jax.parallel import rules
from stair_jax.settings import require


def load_adapted(
    folder: Path, config: ModelConfig, mesh: Mesh | None, read: Callable[..., Params]
) -> Params:
    """The parameters of an adapter folder, see `load_params`.

    Args:
        folder: of the adapters.
        config: the model config; `lora` says whether the adapters stay beside their kernels.
        mesh: as for `load_params`.
        read: reads those of the base from its files.

    Raises:
        UserError: as `load_params`; or the adapters have another rank, other targets or tokens
            than `config.lora`; or they would be merged into a quantised base.
    """
    tensors = AdapterTensors.of(folder, config)
    if config.lora is not None:
        tensors = tensors.as_asked(config.lora)
        if tensors.dropout:
            say(f"{folder}: lora_dropout {tensors.dropout:g} is left out: there is no dropout here")
    files = CheckpointFiles(adapter_base(folder) or folder)
    adapters = read_adapters(tensors, config, mesh)
    has_score = ADAPTER_SCORE in tensors.files
    if config.lora is not None:
        params = join(read(files, has_score=has_score), adapters)
        return params | _rows(tensors, config, mesh, params)
    require(
        config.base_weights == "none",
        f"{folder} holds adapters, which cannot be added to a base in {config.base_weights}: keep "
        "them beside it (lora of its config), or set base_weights to 'none'",
    )
    scale, layers = tensors.lora.scale, adapters["layers"]
    merging = {
        name: Merging(layers[name + A], layers[name + B], scale, config.param_dtype)
        for name in tensors.lora.targets
    }
    params = read(files, has_score=has_score, merging=merging)
    ids = jnp.asarray(tensors.lora.token_ids)
    for name, rows in _rows(tensors, config, mesh, params).items():
        table = name.removesuffix(ROWS)
        params[table] = put_rows(params[table], ids, rows)
    return params


def load_adapters(folder: str | Path, config: ModelConfig, mesh: Mesh | None = None) -> Params:
    """The adapters of a folder without their base, and rows of tokens; as `load_params` has them.

    Args:
        folder: of the adapters.
        config: of the model, with `lora` as `load_config` reads it.
        mesh: as for `load_params`.

    Raises:
        UserError: the folder is damaged, or its adapters are others than those of `config.lora`.
    """
    tensors = AdapterTensors.of(Path(folder), config)
    if config.lora is not None:
        tensors = tensors.as_asked(config.lora)
    return read_adapters(tensors, config, mesh) | _rows(tensors, config, mesh, None)


def read_adapters(tensors: AdapterTensors, config: ModelConfig, mesh: Mesh | None) -> Params:
    """The adapters of a folder, {"layers": {...}}, in the dtype of `tensors.lora`.

    Args:
        tensors: of the folder.
        config: of the base.
        mesh: as for `load_params`.

    Raises:
        UserError: a value is not finite.
    """
    lora, shapes = tensors.lora, parameter_shapes(config)
    places = _shardings(tensors, config, mesh).get("layers", {})
    layers = {}
    for target in lora.targets:
        inputs, outputs = shapes[target][: KERNELS[target]], shapes[target][KERNELS[target] :]
        a, b = (half.astype(lora.dtype) for half in tensors.read(target, config))
        for name, values in (
            (target + A, a.reshape(-1, *inputs, lora.rank)),
            (target + B, b.reshape(-1, lora.rank, *outputs)),
        ):
            layers[name] = make_array(values.shape, places.get(name), values.__getitem__)
    return {"layers": layers}


def _rows(
    tensors: AdapterTensors, config: ModelConfig, mesh: Mesh | None, base: Params | None
) -> Params:
    shardings = _shardings(tensors, config, mesh)
    return read_rows(tensors.files, tensors.tokens, tensors.lora, base, shardings)


def _shardings(tensors: AdapterTensors, config: ModelConfig, mesh: Mesh | None) -> dict[str, Any]:
    """Of all parameters, by name; empty: all are on the default device."""
    if mesh is None:
        return {}
    axes: dict[str, Any] = rules.shardings(logical_axes(replace(config, lora=tensors.lora)), mesh)
    return axes
