"""Export to a Hugging Face folder that transformers and vLLM read, one tensor at a time."""

import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from stair_jax.addresses import require_local
from stair_jax.errors import UserError
from stair_jax.models.config import DTYPES, ModelConfig
from stair_jax.models.huggingface import tensor_names
from stair_jax.models.huggingface.gathering import gathered
from stair_jax.models.huggingface.safetensors_files import INDEX_FILE, SINGLE_FILE, write_file
from stair_jax.models.huggingface.tensor_names import Tensor
from stair_jax.models.transformer import Params
from stair_jax.parallel.processes import collectives
from stair_jax.storage import make_folder, write_json, writing
from stair_jax.text.scoring import scoring_tokenizer
from stair_jax.text.tokenizer import Tokenizer

_CHUNK_BYTES = 16 * 2**20
# Maximum size of a file.
_SHARD_BYTES = 5 * 10**9
# `transformers_version` of config.json: the oldest that the package is tried with. Without it
# transformers 5.17 takes a tokenizer of more than 100,000 tokens for a wrong one of Mistral's, and
# warns of "an incorrect regex pattern".
_READER = "5.17.0"
WRITING = 4 * 3600.0  # seconds, for a slow disk


def save(
    folder: str | Path,
    params: Params,
    config: ModelConfig,
    tokenizer: Tokenizer,
    score_head: Mapping[str, Any] | None = None,
    dtype: str = "float32",
    shard_bytes: int = _SHARD_BYTES,
) -> None:
    """Writes a folder that transformers loads; it replaces `folder` entirely or not at all.

    With a `score_head` it is a sequence classifier with one label and no vocabulary head.
    Transformers scores the last token that is not `pad_token_id`, so the folder's chat template
    ends an answer where a sampled one ends (`text.scoring`). Vocabulary padding is left out, and
    adapters are added to their kernels: in float32, rounded once.

    Parameters may be sharded; one tensor at a time is gathered on the host. In a run of several
    processes all of them call this; the first one writes, the others wait.

    Args:
        folder: the target; existing contents are replaced.
        params: as of `init_params`.
        config: the model config.
        tokenizer: saved beside the model; its token ids go into the configs.
        score_head: {"kernel": [D]}, or None.
        dtype: of the tensors.
        shard_bytes: maximum size of a file, unless a single tensor is larger.

    Raises:
        UserError: the dtype is unknown, the tokenizer has more tokens than the model, a value is
            not finite in `dtype`, or the disk cannot be written; or, with a `score_head`, the
            tokenizer has no padding token that ends no answer.
    """
    require_local(folder, "the folder to write")
    check_export(config, tokenizer, dtype)
    tensors = tensor_names.tensors(config, with_head=score_head is None)
    if score_head is not None:
        tokenizer = scoring_tokenizer(tokenizer)
        tensors[tensor_names.SCORE] = Tensor("score", None, (1, config.hidden_size))
        # transformers stores the scalar head as a matrix with one row.
        params = {**params, "score": score_head["kernel"][None]}
    shards = _shards(tensors, np.dtype(dtype).itemsize, shard_bytes)
    if not collectives.is_main():
        # Gathering is a collective: all processes take part, tensor by tensor in the same order.
        for name in (name for shard in shards for name in shard):
            for part in tensors[name].parts:
                gathered(params, part, config.lora)
        collectives.barrier(f"the end of writing {folder}", WRITING)
        return
    with replacing(Path(folder)) as partial_folder:
        gather = partial(gathered, params, lora=config.lora)
        _write_tensors(partial_folder, gather, tensors, shards, dtype)
        write_description(partial_folder, config, tokenizer, score_head is not None, dtype)
    collectives.barrier(f"the end of writing {folder}", WRITING)


def check_export(config: ModelConfig, tokenizer: Tokenizer, dtype: str) -> None:
    """Raises a UserError if a model cannot be written with this tokenizer and in this dtype."""
    if dtype not in DTYPES:
        raise UserError(f"dtype {dtype!r} is unknown: choose one of {', '.join(DTYPES)}")
    if tokenizer.vocab_size > config.vocab_size:
        raise UserError(
            f"the tokenizer has {tokenizer.vocab_size} tokens, but the model {config.vocab_size}"
        )


def write_description(
    folder: Path, config: ModelConfig, tokenizer: Tokenizer, is_scoring: bool, dtype: str
) -> None:
    """Writes all but tensors: the configs of the model and of generation, and the tokenizer."""
    write_json(folder / "config.json", _model_values(config, tokenizer, is_scoring, dtype))
    write_json(folder / "generation_config.json", _generation_values(tokenizer))
    with writing(folder):
        tokenizer.save(folder)


def _model_values(
    config: ModelConfig, tokenizer: Tokenizer, is_scoring: bool, dtype: str
) -> dict[str, Any]:
    name = config.scoring_architecture if is_scoring else config.causal_architecture
    values = config.to_huggingface() | {
        "architectures": [name],
        "torch_dtype": dtype,
        "transformers_version": _READER,
        "bos_token_id": tokenizer.hf.bos_token_id,
        "eos_token_id": tokenizer.eos_id,
        "pad_token_id": tokenizer.pad_id,
    }
    if is_scoring:
        values |= {"id2label": {"0": "score"}, "label2id": {"score": 0}}
    return values


def _generation_values(tokenizer: Tokenizer) -> dict[str, Any]:
    """The source's generation config with this tokenizer's token ids."""
    stop = list(tokenizer.stop_ids)
    values = {
        **tokenizer.generation,
        "bos_token_id": tokenizer.hf.bos_token_id,
        "eos_token_id": stop[0] if len(stop) == 1 else stop,
        "pad_token_id": tokenizer.pad_id,
    }
    return {name: value for name, value in values.items() if value is not None}


def _shards(tensors: Mapping[str, Tensor], itemsize: int, limit: int) -> list[list[str]]:
    """Splits the tensors, in order, into files of at most `limit` bytes; sorted by name in each."""
    shards: list[list[str]] = [[]]
    used = 0
    for name, tensor in tensors.items():
        size = math.prod(tensor.shape) * itemsize
        if shards[-1] and used + size > limit:
            shards.append([])
            used = 0
        shards[-1].append(name)
        used += size
    return [sorted(shard) for shard in shards]


def _write_tensors(
    folder: Path,
    gather: Callable[[Tensor], np.ndarray],
    tensors: Mapping[str, Tensor],
    shards: list[list[str]],
    dtype: str,
) -> None:
    if len(shards) == 1:
        files = [SINGLE_FILE]
    else:
        count = len(shards)
        files = [f"model-{n:05d}-of-{count:05d}.safetensors" for n in range(1, count + 1)]
    for file, names in zip(files, shards, strict=True):
        shapes = {name: tensors[name].shape for name in names}
        parts = ((name, part) for name in names for part in tensors[name].parts)
        chunks = (
            chunk for name, part in parts for chunk in _chunks(name, gather(part), part, dtype)
        )
        write_file(folder / file, shapes, dtype, chunks)
    if len(shards) > 1:
        total = sum(math.prod(tensor.shape) for tensor in tensors.values())
        weight_map = {
            name: file for file, names in zip(files, shards, strict=True) for name in names
        }
        index = {
            "metadata": {"total_size": total * np.dtype(dtype).itemsize},
            "weight_map": weight_map,
        }
        write_json(folder / INDEX_FILE, index)


def _chunks(name: str, values: np.ndarray, tensor: Tensor, dtype: str) -> Iterator[np.ndarray]:
    """Yields the values of (a part of) a tensor as the checkpoint stores them, by rows."""
    whole = tuple(slice(0, size) for size in tensor.shape)
    rows = tensor_names.stored_view(values, tensor, whole)
    step = max(1, _CHUNK_BYTES // (math.prod(tensor.shape[1:]) * rows.itemsize))
    for start in range(0, len(rows), step):
        converted = finite(name, rows[start : start + step], dtype)
        if converted.flags.c_contiguous:
            yield converted
        else:
            # A transposed view: `copy_rows` copies it in blocks that stay in the CPU's cache.
            chunk = np.empty(converted.shape, dtype)
            tensor_names.copy_rows(chunk.T, converted.T)
            yield chunk


def finite(name: str, values: np.ndarray, dtype: str) -> np.ndarray:
    """Values of a tensor in another dtype.

    Raises:
        UserError: there is one that is not finite in it.
    """
    # An overflow becomes inf, which the check below reports with the name of the tensor.
    with np.errstate(over="ignore"):
        converted = values.astype(dtype)
    if not np.isfinite(converted).all():
        raise UserError(f"{name} has values that are not finite in {dtype}: nothing was exported")
    return converted


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A temporary folder that replaces `folder` if the block succeeds."""
    folder = Path(os.path.abspath(folder))
    # Siblings of the target, so that `os.replace` stays within one file system.
    partial_folder = folder.with_name(f".{folder.name}.partial")
    old = folder.with_name(f".{folder.name}.old")
    _put_back(old, folder)
    for leftover in (partial_folder, old):
        shutil.rmtree(leftover, ignore_errors=True)
    make_folder(partial_folder)
    try:
        yield partial_folder
        with writing(folder):
            # Two renames, since a rename cannot replace a folder that is not empty.
            if folder.exists():
                os.replace(folder, old)
            os.replace(partial_folder, folder)
    finally:
        _put_back(old, folder)
        for leftover in (partial_folder, old):
            shutil.rmtree(leftover, ignore_errors=True)


def _put_back(old: Path, folder: Path) -> None:
    """Restores the old folder if the new one did not get to its place: it is the only copy then."""
    if old.exists() and not folder.exists():
        with writing(folder):
            os.replace(old, folder)
