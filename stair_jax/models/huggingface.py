"""Hugging Face folders: import of config and safetensors, and export that transformers reads."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as serialize

from stair_jax.errors import UserError
from stair_jax.models import weights
from stair_jax.models.config import DTYPES, ModelConfig
from stair_jax.models.transformer import Params
from stair_jax.storage import atomic_file, make_folder, read_json, write_json, writing
from stair_jax.text.tokenizer import Tokenizer

CAUSAL = "LlamaForCausalLM"
SCORING = "LlamaForSequenceClassification"
_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_STORED_DTYPES = ("F32", "F16", "BF16")
_SHARD_BYTES = 5 * 10**9


def load_config(folder: str | Path) -> ModelConfig:
    """Reads `config.json`; dtypes and other choices of how to compute keep their defaults."""
    path = Path(folder) / "config.json"
    values = read_json(path)
    if not isinstance(values, dict):
        raise UserError(f"{path} is damaged: it holds no JSON object")
    return ModelConfig.from_huggingface(values)


def load_params(folder: str | Path, config: ModelConfig) -> Params:
    """Reads the parameters, in `config.param_dtype`.

    Of a folder with a scalar head the parameters of the decoder are read, and an untied
    vocabulary head is not expected.

    Raises:
        UserError: names the file or tensor that is missing, surplus, of a wrong shape or damaged.
    """
    files = _tensor_files(Path(folder))
    expected = weights.tensors(config, with_head=weights.SCORE not in files)
    _check_names(Path(folder), set(files), set(expected), config)
    params: Params = {"layers": weights.empty_layers(config)}
    for file in dict.fromkeys(files.values()):
        with _opened(file) as tensors:
            for name in (name for name in expected if files[name] == file):
                values = _read(tensors, file, name, expected[name].shape)
                weights.put(params, expected[name], values, config.param_dtype)
    if config.tie_word_embeddings and weights.HEAD in files:
        with _opened(files[weights.HEAD]) as tensors:
            _check_tied(tensors, files[weights.HEAD], params["embedding"])
    return jax.tree.map(jnp.asarray, params)


def has_score_head(folder: str | Path) -> bool:
    """Whether the folder holds a model with a scalar head."""
    return weights.SCORE in _tensor_files(Path(folder))


def load_score_head(folder: str | Path) -> dict[str, Any]:
    """Reads the scalar head `{"kernel": [D]}`, in float32."""
    files = _tensor_files(Path(folder))
    if weights.SCORE not in files:
        raise UserError(f"{folder} has no tensor {weights.SCORE}: name a model with a scalar head")
    shape = (1, load_config(folder).hidden_size)
    with _opened(files[weights.SCORE]) as tensors:
        values = _read(tensors, files[weights.SCORE], weights.SCORE, shape)
    return {"kernel": jnp.asarray(values[0].astype(np.float32))}


def save(
    folder: str | Path,
    params: Params,
    config: ModelConfig,
    tokenizer: Tokenizer,
    score_head: Mapping[str, Any] | None = None,
    dtype: str = "float32",
    shard_bytes: int = _SHARD_BYTES,
) -> None:
    """Writes a folder that transformers loads; it takes the place of `folder`, whole or not at all.

    With a `score_head` this is a sequence classifier with one label, and has no vocabulary head.
    Transformers scores the last token that is not `pad_token_id`.

    Args:
        folder: where to; what is there is replaced.
        params: as of `init_params`.
        config: of the model.
        tokenizer: written beside it, and source of the token ids in the configs.
        score_head: `{"kernel": [D]}`.
        dtype: of the tensors.
        shard_bytes: the largest size of a file, unless one tensor alone is larger.
    """
    if dtype not in DTYPES:
        raise UserError(f"dtype {dtype!r} is unknown: choose one of {', '.join(DTYPES)}")
    if tokenizer.vocab_size > config.vocab_size:
        raise UserError(
            f"the tokenizer has {tokenizer.vocab_size} tokens, but the model {config.vocab_size}"
        )
    with _replacing(Path(folder)) as partial:
        _write_tensors(partial, params, config, score_head, dtype, shard_bytes)
        write_json(
            partial / "config.json",
            _config_values(config, tokenizer, score_head is not None, dtype),
        )
        write_json(partial / "generation_config.json", _generation_values(tokenizer))
        with writing(folder):
            tokenizer.save(partial)


def _config_values(
    config: ModelConfig, tokenizer: Tokenizer, is_scoring: bool, dtype: str
) -> dict[str, Any]:
    values = config.to_huggingface() | {
        "architectures": [SCORING if is_scoring else CAUSAL],
        "torch_dtype": dtype,
        "bos_token_id": tokenizer.hf.bos_token_id,
        "eos_token_id": tokenizer.eos_id,
        "pad_token_id": tokenizer.pad_id,
    }
    if is_scoring:
        values |= {"id2label": {"0": "score"}, "label2id": {"score": 0}}
    return values


def _generation_values(tokenizer: Tokenizer) -> dict[str, Any]:
    stop = list(tokenizer.stop_ids)
    values = {
        "bos_token_id": tokenizer.hf.bos_token_id,
        "eos_token_id": stop[0] if len(stop) == 1 else stop,
        "pad_token_id": tokenizer.pad_id,
    }
    return {name: value for name, value in values.items() if value is not None}


def _write_tensors(
    folder: Path,
    params: Params,
    config: ModelConfig,
    score_head: Mapping[str, Any] | None,
    dtype: str,
    shard_bytes: int,
) -> None:
    params = jax.device_get(params)
    tensors = weights.tensors(config, with_head=score_head is None)
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    if score_head is not None:
        shapes[weights.SCORE] = (1, config.hidden_size)
    sizes = {
        name: int(np.prod(shape)) * jnp.dtype(dtype).itemsize for name, shape in shapes.items()
    }
    shards = _shards(sizes, shard_bytes)
    weight_map = {}
    for number, names in enumerate(shards, start=1):
        suffix = f"-{number:05d}-of-{len(shards):05d}" if len(shards) > 1 else ""
        file = f"model{suffix}.safetensors"
        shard = {}
        for name in names:
            if name == weights.SCORE:
                assert score_head is not None
                values = np.asarray(score_head["kernel"])[None]
            else:
                values = weights.get(params, tensors[name])
            shard[name] = _converted(name, values, dtype)
            weight_map[name] = file
        with atomic_file(folder / file) as opened:
            opened.write(serialize(shard, metadata={"format": "pt"}))
    if len(shards) > 1:
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": weight_map}
        write_json(folder / _INDEX, index)


def _shards(sizes: Mapping[str, int], limit: int) -> list[list[str]]:
    """Cuts the tensors, in order, into files of at most `limit` bytes."""
    shards: list[list[str]] = [[]]
    used = 0
    for name, size in sizes.items():
        if shards[-1] and used + size > limit:
            shards.append([])
            used = 0
        shards[-1].append(name)
        used += size
    return shards


def _converted(name: str, values: np.ndarray, dtype: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(values.astype(jnp.dtype(dtype)))
    if not np.isfinite(values).all():
        raise UserError(f"{name} has values that are not finite in {dtype}: nothing was exported")
    return values


@contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of `folder` when the block ends well."""
    folder = Path(os.path.abspath(folder))
    partial = folder.with_name(f".{folder.name}.partial")
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    make_folder(partial)
    try:
        yield partial
        with writing(folder):
            if folder.exists():
                os.replace(folder, old)
            os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _tensor_files(folder: Path) -> dict[str, Path]:
    """The file of each tensor in the folder."""
    if (folder / _SINGLE).is_file():
        with _opened(folder / _SINGLE) as tensors:
            return dict.fromkeys(tensors.keys(), folder / _SINGLE)
    if not (folder / _INDEX).is_file():
        raise UserError(f"{folder} has no {_SINGLE}: name a Hugging Face folder with safetensors")
    weight_map = read_json(folder / _INDEX).get("weight_map")
    if not isinstance(weight_map, dict):
        raise UserError(f"{folder / _INDEX} is damaged: it has no weight_map")
    found: dict[str, Path] = {}
    for file in dict.fromkeys(weight_map.values()):
        if Path(file).name != file or not (folder / file).is_file():
            raise UserError(f"{folder / _INDEX} names {file}, which is not in the folder")
        with _opened(folder / file) as tensors:
            found |= dict.fromkeys(tensors.keys(), folder / file)
    lost = sorted(set(weight_map) - set(found))
    if lost:
        raise UserError(f"tensor {lost[0]} is not in {weight_map[lost[0]]}, where {_INDEX} has it")
    return found


def _check_names(folder: Path, found: set[str], expected: set[str], config: ModelConfig) -> None:
    missing = sorted(expected - found)
    if missing:
        raise UserError(f"{folder} lacks {_named(missing)}, which its config.json asks for")
    known = expected | {weights.SCORE}
    if config.tie_word_embeddings:
        known |= {weights.HEAD}
    surplus = sorted(n for n in found - known if not n.endswith(weights.IGNORED_SUFFIX))
    if surplus:
        raise UserError(f"{folder} has {_named(surplus)}, which its config.json has no place for")


def _named(names: list[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"tensor {names[0]}{more}"


def _check_tied(tensors: Any, file: Path, embedding: np.ndarray) -> None:
    """Some exporters store a tied head; one that differs would be lost without a word."""
    head = _read(tensors, file, weights.HEAD, embedding.shape).astype(embedding.dtype)
    if not np.array_equal(head, embedding):
        raise UserError(
            f"{weights.HEAD} in {file} differs from the embedding, but config.json ties them: "
            "set tie_word_embeddings to false"
        )


def _read(tensors: Any, file: Path, name: str, shape: tuple[int, ...]) -> np.ndarray:
    stored = tensors.get_slice(name)
    if tuple(stored.get_shape()) != shape:
        raise UserError(
            f"tensor {name} in {file} has shape {list(stored.get_shape())}, "
            f"but config.json asks for {list(shape)}"
        )
    if stored.get_dtype() not in _STORED_DTYPES:
        raise UserError(
            f"tensor {name} in {file} has dtype {stored.get_dtype()}: "
            f"only {', '.join(_STORED_DTYPES)} are supported"
        )
    values = stored[:]
    if not np.isfinite(values).all():
        raise UserError(f"tensor {name} in {file} is damaged: it has values that are not finite")
    return values


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    try:
        with safe_open(file, framework="np") as tensors:
            yield tensors
    except (SafetensorError, json.JSONDecodeError) as error:
        raise UserError(f"{file} is damaged: {error}".splitlines()[0]) from error
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from error
