"""Adapters alone: read from an adapter folder, and written as one that peft reads."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from stair_jax.adapter_folders import CONFIG_FILE, TENSORS_FILE, write_base
from stair_jax.addresses import require_local
from stair_jax.models.config import ModelConfig
from stair_jax.models.huggingface.adapter_config import config_values
from stair_jax.models.huggingface.adapter_tensors import (
    ADAPTER_SCORE,
    AdapterTensors,
    joined_modules,
    stored,
)
from stair_jax.models.huggingface.arrays import make_array
from stair_jax.models.huggingface.gathering import on_host
from stair_jax.models.huggingface.hub import adapter_base
from stair_jax.models.huggingface.safetensors_files import write_file
from stair_jax.models.huggingface.saving import (
    WRITING,
    check_export,
    finite,
    replacing,
    write_description,
)
from stair_jax.models.huggingface.tensor_names import Tensor, parameter_shapes
from stair_jax.models.lora import KERNELS, A, B, Lora
from stair_jax.models.transformer import Params, logical_axes
from stair_jax.parallel import rules
from stair_jax.parallel.processes import collectives
from stair_jax.storage import write_json
from stair_jax.text.scoring import scoring_tokenizer
from stair_jax.text.tokenizer import Tokenizer


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
    places = {}
    if mesh is not None:
        places = rules.shardings(logical_axes(replace(config, lora=lora)), mesh)["layers"]
    layers = {}
    for target in lora.targets:
        inputs, outputs = shapes[target][: KERNELS[target]], shapes[target][KERNELS[target] :]
        a, b = (half.astype(lora.dtype) for half in tensors.read(target, config))
        for half, values in (
            (A, a.reshape(-1, *inputs, lora.rank)),
            (B, b.reshape(-1, lora.rank, *outputs)),
        ):
            name = target + half
            layers[name] = make_array(values.shape, places.get(name), values.__getitem__)
    return {"layers": layers}


def save_adapter(
    folder: str | Path,
    params: Params,
    config: ModelConfig,
    tokenizer: Tokenizer,
    base: Path,
    score_head: Mapping[str, Any] | None = None,
    dtype: str = "float32",
) -> None:
    """Writes the adapters of a model as peft does; it replaces `folder` entirely or not at all.

    The folder holds the adapters, a scalar head if there is one, the tokenizer, a config like that
    of the base, and where the base is. All processes of a run call this, as `save`.

    Args:
        folder: the target; existing contents are replaced.
        params: with adapters, as of `init_params`; what else they hold is not looked at.
        config: of the model, with `lora`.
        tokenizer: saved beside the adapters.
        base: the folder of the base; or of adapters of the same base.
        score_head: {"kernel": [D]}, or None.
        dtype: of the tensors.

    Raises:
        UserError: as `save`; or the base is not there.
    """
    require_local(folder, "the folder to write")
    check_export(config, tokenizer, dtype)
    assert config.lora is not None, "the model has no adapters"
    base = adapter_base(base) or base
    heads = {}
    if score_head is not None:
        tokenizer = scoring_tokenizer(tokenizer)
        heads = {"score": score_head["kernel"][None]}
    tensors = list(stored(config.lora, config, partial(_layer, params)))
    if score_head is not None:
        head = partial(on_host, heads, Tensor("score", None, (1, config.hidden_size)))
        tensors.append((ADAPTER_SCORE, (1, config.hidden_size), head))
    if collectives.is_main():
        with replacing(Path(folder)) as partial_folder:
            chunks = (
                np.ascontiguousarray(finite(name, values(), dtype)) for name, _, values in tensors
            )
            shapes = {name: shape for name, shape, _ in tensors}
            write_file(partial_folder / TENSORS_FILE, shapes, dtype, chunks)
            _describe(partial_folder, config.lora, config, base, score_head is not None)
            write_base(partial_folder, Path(folder), base, config.lora.targets)
            write_description(partial_folder, config, tokenizer, score_head is not None, dtype)
    else:
        for _, _, values in tensors:  # gathering is a collective
            values()
    collectives.barrier(f"the end of writing {folder}", WRITING)


def _layer(params: Params, name: str, layer: int) -> np.ndarray:
    return on_host(params, Tensor(name, layer, ())).astype(np.float32)


def _describe(folder: Path, lora: Lora, config: ModelConfig, base: Path, is_scoring: bool) -> None:
    targets, joined = joined_modules(lora, config)
    values = config_values(lora, base, joined, targets, is_scoring)
    write_json(folder / CONFIG_FILE, values)
