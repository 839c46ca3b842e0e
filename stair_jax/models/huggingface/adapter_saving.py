"""Export of adapters alone, as a folder that peft reads."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stair_jax.adapter_folders import CONFIG_FILE, TENSORS_FILE, write_base
from stair_jax.addresses import require_local
from stair_jax.errors import UserError
from stair_jax.models.config import ModelConfig
from stair_jax.models.huggingface.adapter_config import config_values
from stair_jax.models.huggingface.adapter_loading import load_adapters
from stair_jax.models.huggingface.adapter_rows import TENSORS
from stair_jax.models.huggingface.adapter_tensors import ADAPTER_SCORE, PREFIX, Module
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
from stair_jax.models.huggingface.tensor_names import Tensor, kernel_modules
from stair_jax.models.lora import ROWS, A, B, Lora
from stair_jax.models.transformer import Params
from stair_jax.parallel.processes import collectives
from stair_jax.storage import write_json
from stair_jax.text.scoring import scoring_tokenizer
from stair_jax.text.tokenizer import Tokenizer


class _Stored(NamedTuple):
    """A tensor to be written.

    Attributes:
        name: in the file.
        shape: in the file.
        make: gives its values; in a run of several processes all of them call it.
    """

    name: str
    shape: tuple[int, ...]
    make: Callable[[], np.ndarray]


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
            modules = _joined_modules(config.lora, config)
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
) -> Iterator[_Stored]:
    """All tensors of the folder."""
    assert config.lora is not None

    def gather(name: str, layer: int | None) -> np.ndarray:
        return on_host(params, Tensor(name, layer, ()))

    yield from _adapters(config.lora, config, gather)
    rows = (len(config.lora.token_ids), config.hidden_size)
    for table in tables:
        yield _Stored(TENSORS[table], rows, partial(gather, table + ROWS, None))
    if is_scoring:
        yield _Stored(ADAPTER_SCORE, (1, config.hidden_size), partial(gather, "score", None))


def _chunk(tensor: _Stored, dtype: str) -> np.ndarray:
    return np.ascontiguousarray(finite(tensor.name, tensor.make(), dtype))


def _adapters(
    lora: Lora, config: ModelConfig, halves: Callable[[str, int], np.ndarray]
) -> Iterator[_Stored]:
    """The adapters as tensors of a folder.

    Args:
        lora: the adapters.
        config: of the model.
        halves: gives a parameter of a layer, see `models/lora.py`, by its name and the layer.
    """
    for layer in range(config.num_hidden_layers):
        for suffix, kernels in kernel_modules(config).items():
            targets = [name for name, _ in kernels if name in lora.targets]
            if not targets:
                continue
            module = Module(layer, kernels)
            name, rank = f"{PREFIX}model.layers.{layer}.{suffix}", len(targets) * lora.rank
            outputs, inputs = module.shape
            first = partial(_first, targets, layer, lora.rank, halves)
            second = partial(_second, module, targets, lora.rank, halves)
            yield _Stored(f"{name}.lora_A.weight", (rank, inputs), first)
            yield _Stored(f"{name}.lora_B.weight", (outputs, rank), second)


def _joined_modules(lora: Lora, config: ModelConfig) -> tuple[dict[str, int], list[str]]:
    """The modules with adapters, by the last parts of their names.

    Returns:
        for those of several kernels with adapters, of how many; and the names of all.
    """
    counts = {
        suffix.rpartition(".")[2]: sum(name in lora.targets for name, _ in kernels)
        for suffix, kernels in kernel_modules(config).items()
    }
    return (
        {name: number for name, number in counts.items() if number > 1},
        [name for name, number in counts.items() if number],
    )


def _first(
    targets: Sequence[str], layer: int, rank: int, halves: Callable[[str, int], np.ndarray]
) -> np.ndarray:
    """[ranks, inputs]: the first halves of a module's kernels, one below the other."""
    return np.concatenate([halves(name + A, layer).reshape(-1, rank).T for name in targets])


def _second(
    module: Module, targets: Sequence[str], rank: int, halves: Callable[[str, int], np.ndarray]
) -> np.ndarray:
    """[outputs, ranks]: the second halves of a module's kernels, as blocks."""
    values = np.zeros((module.shape[0], len(targets) * rank), np.float32)
    row = 0
    for name, (outputs, _) in module.kernels:
        if name in targets:
            start = targets.index(name) * rank
            block = halves(name + B, module.layer).reshape(rank, -1).T
            values[row : row + outputs, start : start + rank] = block
        row += outputs
    return values
