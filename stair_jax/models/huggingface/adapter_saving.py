"""Export of adapters alone, as a folder that peft reads."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from stair_jax.adapter_folders import CONFIG_FILE, TENSORS_FILE, write_base
from stair_jax.addresses import require_local
from stair_jax.errors import UserError
from stair_jax.models.config import ModelConfig
from stair_jax.models.huggingface.adapter_config import config_values
from stair_jax.models.huggingface.adapter_loading import load_adapters
from stair_jax.models.huggingface.adapter_rows import TENSORS
from stair_jax.models.huggingface.adapter_tensors import (
    ADAPTER_SCORE,
    Stored,
    joined_modules,
    stored,
)
from stair_jax.models.huggingface.gathering import on_host
from stair_jax.models.huggingface.hub import adapter_base
from stair_jax.models.huggingface.loading import load_config
from stair_jax.models.huggingface.safetensors_files import write_file
from stair_jax.models.huggingface.saving import (
    WRITING,
    check_export,
    finite,
    replacing,
    write_description,
)
from stair_jax.models.huggingface.score_heads import has_score_head, load_score_head
from stair_jax.models.huggingface.tensor_names import Tensor
from stair_jax.models.lora import ROWS
from stair_jax.models.transformer import Params
from stair_jax.parallel.processes import collectives
from stair_jax.storage import write_json
from stair_jax.text.scoring import scoring_tokenizer
from stair_jax.text.tokenizer import Tokenizer


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
    is_scoring = score_head is not None
    if score_head is not None:
        tokenizer = scoring_tokenizer(tokenizer)
        params = {**params, "score": score_head["kernel"][None]}
    tables = [table for table in TENSORS if table + ROWS in params]
    tables = tables[:1] if is_scoring else tables
    tensors = sorted(_tensors(params, config, tables, is_scoring), key=lambda tensor: tensor.name)
    if collectives.is_main():
        with replacing(Path(folder)) as partial_folder:
            shapes = {tensor.name: tensor.shape for tensor in tensors}
            chunks = (_chunk(tensor, dtype) for tensor in tensors)
            write_file(partial_folder / TENSORS_FILE, shapes, dtype, chunks)
            modules = joined_modules(config.lora, config)
            described = config_values(config.lora, base, *modules, tables, is_scoring)
            write_json(partial_folder / CONFIG_FILE, described)
            write_base(partial_folder, Path(folder), base, config.lora.targets)
            write_description(partial_folder, config, tokenizer, is_scoring, dtype)
    else:
        for tensor in tensors:  # gathering is a collective
            tensor.make()
    collectives.barrier(f"the end of writing {folder}", WRITING)


def copy_adapter(
    source: Path, folder: str | Path, tokenizer: Tokenizer, dtype: str = "float32"
) -> None:
    """Writes the adapters of a folder that was written here to another one; the base stays.

    Args:
        source: of the adapters.
        folder: the target, as for `save_adapter`.
        tokenizer: saved beside the adapters.
        dtype: of the tensors.

    Raises:
        UserError: as `save_adapter`; or the source has no adapters.
    """
    config, base = load_config(source), adapter_base(source)
    if base is None:
        raise UserError(f"{source} has no adapters")
    params = load_adapters(source, config)
    head = load_score_head(source) if has_score_head(source) else None
    save_adapter(folder, params, config, tokenizer, base, head, dtype)


def _tensors(
    params: Params, config: ModelConfig, tables: Sequence[str], is_scoring: bool
) -> Iterator[Stored]:
    """All tensors of the folder."""
    assert config.lora is not None

    def gather(name: str, layer: int | None) -> np.ndarray:
        return on_host(params, Tensor(name, layer, ()))

    yield from stored(config.lora, config, gather)
    rows = (len(config.lora.token_ids), config.hidden_size)
    for table in tables:
        yield Stored(TENSORS[table], rows, partial(gather, table + ROWS, None))
    if is_scoring:
        yield Stored(ADAPTER_SCORE, (1, config.hidden_size), partial(gather, "score", None))


def _chunk(tensor: Stored, dtype: str) -> np.ndarray:
    return np.ascontiguousarray(finite(tensor.name, tensor.make(), dtype))
