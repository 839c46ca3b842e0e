"""Import of a Hugging Face folder: config, and tensors read straight into sharded parameters.

A process reads only what its own devices hold, a few rows at a time. Besides the parameters, host
memory holds one tensor, or as many layers of it as `_PIECE_BYTES` allow, and a chunk of a file.
Embedding and head, the largest tensors, are read first, while most memory is free.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, Sharding

from stair_jax.adapter_folders import base_record, is_adapter_folder
from stair_jax.errors import UserError
from stair_jax.models.base_quantization import (
    AXES,
    SCALES,
    VALUES,
    BlockQuantized,
    quantize_blockwise,
)
from stair_jax.models.config import ModelConfig
from stair_jax.models.config_values import shown
from stair_jax.models.huggingface import tensor_names
from stair_jax.models.huggingface.adapter_loading import load_adapted
from stair_jax.models.huggingface.adapter_tensors import AdapterFiles, AdapterTensors
from stair_jax.models.huggingface.arrays import make_array, stack_pieces
from stair_jax.models.huggingface.hub import adapter_base
from stair_jax.models.huggingface.merging import Merging
from stair_jax.models.huggingface.safetensors_files import DTYPE_NAMES, CheckpointFiles
from stair_jax.models.huggingface.tensor_names import Index, Tensor
from stair_jax.models.transformer import Params, logical_axes
from stair_jax.parallel import rules
from stair_jax.storage import read_json

_CHUNK_BYTES = 16 * 2**20
_PIECE_BYTES = 64 * 2**20
_VOCABULARY = ("embedding", "head")


def load_config(folder: str | Path) -> ModelConfig:
    """Reads `config.json`; dtypes and other choices of computation keep their defaults.

    Of an adapter folder it is the config of the base, with `lora`.

    Raises:
        UserError: the file is missing or damaged, or asks for something that is not supported.
    """
    folder = Path(folder)
    if not is_adapter_folder(folder):
        return _read_config(folder / "config.json")
    # Beside a description of the base there is a copy of its config.
    is_own = base_record(folder) and (folder / "config.json").is_file()
    described = folder if is_own else adapter_base(folder, weights=False) or folder
    config = _read_config(described / "config.json")
    return replace(config, lora=AdapterTensors.of(folder, config).lora)


def _read_config(path: Path) -> ModelConfig:
    values = read_json(path)
    if not isinstance(values, dict):
        raise UserError(f"{path} is damaged: it holds no JSON object")
    _refuse_repeated(path)
    return ModelConfig.from_huggingface(values)


def _refuse_repeated(path: Path) -> None:
    """Raises a UserError if an object of a JSON file has a key twice: readers take the last one."""

    def check(pairs: list[tuple[str, Any]]) -> None:
        names = [name for name, _ in pairs]
        for place, name in enumerate(names):
            if name in names[:place]:
                raise UserError(f"{path} has the field {shown(name)} twice: remove one")

    json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=check)


def stored_dtype(folder: str | Path, of_adapters: bool = False) -> str:
    """The dtype of a checkpoint, taken from its embedding, as a name like `config.dtype`.

    Of an adapter folder it is that of the base, or `of_adapters`.
    """
    if of_adapters:
        return DTYPE_NAMES[next(iter(AdapterFiles(folder).tensors.values())).dtype]
    files = CheckpointFiles(adapter_base(folder) or folder)
    config = load_config(folder)
    _check_depth(files, config)
    name, tensor = next(iter(tensor_names.tensors(config).items()))
    _require(files, [name])
    files.check(name, tensor.shape)
    return DTYPE_NAMES[files.tensors[name].dtype]


def load_params(folder: str | Path, config: ModelConfig, mesh: Mesh | None = None) -> Params:
    """Reads the parameters in `config.param_dtype`.

    If the folder has a scalar head, no vocabulary head is expected and the scalar head is ignored.
    Vocabulary padding is filled with zeros. Of an adapter folder the parameters are those of the
    base: with the adapters beside them if `config.lora` is set, else with these added to the
    kernels, which are summed in float32 and rounded once. With `config.base_weights` kernels are
    quantized while they are read, a few layers at a time.

    Args:
        folder: a folder with one safetensors file, or several with an index; or of adapters.
        config: the model config.
        mesh: parameters are sharded over it by `parallel.rules`; None means the default device.

    Raises:
        UserError: names the file or tensor that is missing, unexpected, damaged or of a wrong
            shape.
    """
    read = partial(_read_params, config=config, mesh=mesh)
    if is_adapter_folder(folder):
        return load_adapted(Path(folder), config, mesh, read)
    return read(CheckpointFiles(folder))


def _read_params(
    files: CheckpointFiles,
    config: ModelConfig,
    mesh: Mesh | None,
    has_score: bool = False,
    merging: Mapping[str, Merging] = MappingProxyType({}),
) -> Params:
    """The parameters in the files of a whole model.

    Args:
        files: of the model.
        config: the model config.
        mesh: as for `load_params`.
        has_score: whether a scalar head elsewhere takes the place of the vocabulary head.
        merging: the adapters that are added to kernels, by their names.
    """
    _check_depth(files, config)
    expected = tensor_names.tensors(config, with_head=tensor_names.SCORE not in files)
    _check(files, expected, config)
    if has_score:
        expected.pop(tensor_names.HEAD, None)
    shapes = tensor_names.parameter_shapes(config)
    params: Params = {}
    layers: Params = {}
    kind = config.base_weights
    shardings = None if mesh is None else rules.shardings(logical_axes(config), mesh)
    by_parameter = _by_parameter(expected)
    # Embedding and head first; the sort is stable, so the others keep their order.
    for parameter in sorted(by_parameter, key=lambda name: name not in _VOCABULARY):
        tensors, merge = by_parameter[parameter], merging.get(parameter)
        source = _Source(files, tensors, shapes[parameter], config.param_dtype, merge)
        if not source.is_stacked:
            params[parameter] = source.whole(shardings and shardings[parameter])
        elif kind == "none" or parameter not in AXES:
            layers[parameter] = source.stacked(shardings and shardings["layers"][parameter])
        else:
            place = shardings and shardings["layers"][parameter + VALUES]
            found = source.quantized(kind, AXES[parameter], place)
            layers[parameter + VALUES], layers[parameter + SCALES] = found
    return params | {"layers": layers}


@dataclass(frozen=True)
class _Source:
    """A parameter in the files of a checkpoint.

    Attributes:
        files: the checkpoint.
        tensors: by name, the only one, or one per layer in order; parts of them, where the files
            join several parameters.
        shape: shape of the parameter, without the axis of layers.
        dtype: dtype to read it in.
        merging: the adapter that is added to it.
    """

    files: CheckpointFiles
    tensors: Mapping[str, Tensor]
    shape: tuple[int, ...]
    dtype: str
    merging: Merging | None = None

    @property
    def is_stacked(self) -> bool:
        """Whether there is one tensor per layer."""
        return next(iter(self.tensors.values())).layer is not None

    def whole(self, sharding: Sharding | None) -> jax.Array:
        """Reads a parameter of a single tensor."""
        ((name, tensor),) = self.tensors.items()

        def block(index: Index) -> np.ndarray:
            # Zeros, as rows of vocabulary padding are not in the file.
            target = np.zeros(_block_shape(self.shape, index), self.dtype)
            self._fill(target, name, tensor, index)
            return target

        return make_array(self.shape, sharding, block)

    def stacked(self, sharding: Sharding | None) -> jax.Array:
        """Reads a parameter with a leading axis of layers.

        It is put together of pieces, so that the host never holds all of it.
        """
        return stack_pieces(self._pieces(sharding), len(self.tensors), sharding)

    def quantized(self, kind: str, axis: int, sharding: Sharding | None) -> BlockQuantized:
        """Reads a kernel like `stacked`; each piece is quantized before the next one is read."""
        pieces = (
            (start, _quantized(piece, kind, axis, sharding))
            for start, piece in self._pieces(sharding)
        )
        return stack_pieces(pieces, len(self.tensors), sharding)

    def _pieces(self, sharding: Sharding | None) -> Iterator[tuple[int, jax.Array]]:
        """A few layers at a time, with the number of the first of them."""
        layers = list(self.tensors.items())
        layer_bytes = math.prod(self.shape) * np.dtype(self.dtype).itemsize
        step = max(1, _PIECE_BYTES // layer_bytes)
        for start in range(0, len(layers), step):
            yield start, self._layers(layers[start : start + step], start, sharding)

    def _layers(
        self, layers: Sequence[tuple[str, Tensor]], start: int, sharding: Sharding | None
    ) -> jax.Array:
        """Some of the layers, the first of which is number `start`."""

        def block(index: Index) -> np.ndarray:
            target = np.zeros(_block_shape(shape, index), dtype)
            for layer, (name, tensor) in zip(target, layers[index[0]], strict=True):
                self._fill(layer, name, tensor, index[1:])
            return target

        shape = (len(layers), *self.shape)
        dtype = self.dtype if self.merging is None else "float32"
        piece = make_array(shape, sharding, block)
        return piece if self.merging is None else self.merging.into(piece, start, sharding)

    def _fill(self, target: np.ndarray, name: str, tensor: Tensor, index: Index) -> None:
        """Reads the block `index` of a layer (or of a parameter without layers) into `target`."""
        stored = tensor_names.stored_index(tensor, self.shape, index)
        view = tensor_names.stored_view(target, tensor, stored)
        rows, *columns = stored
        row_bytes = math.prod(view.shape[1:]) * view.itemsize
        step = max(1, _CHUNK_BYTES // max(1, row_bytes))
        for start in range(0, len(view), step):
            stop = min(start + step, len(view))
            first = tensor.first_row + rows.start
            block = (slice(first + start, first + stop), *columns)
            chunk = self.files.read(name, block, view.dtype.name)
            tensor_names.copy_rows(view[start:stop], chunk)


@partial(jax.jit, static_argnums=(1, 2, 3))
def _quantized(
    kernels: jax.Array, kind: str, axis: int, sharding: Sharding | None
) -> BlockQuantized:
    found = quantize_blockwise(kind, kernels, axis)
    return found if sharding is None else jax.lax.with_sharding_constraint(found, sharding)


def _block_shape(shape: tuple[int, ...], index: Index) -> tuple[int, ...]:
    return tuple(len(range(size)[axis]) for size, axis in zip(shape, index, strict=True))


def _by_parameter(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        for part in tensor.parts:
            found.setdefault(part.parameter, {})[name] = part
    return found


def _check_depth(files: CheckpointFiles, config: ModelConfig) -> None:
    """Checks the number of layers before anything is made for each of them.

    Raises:
        UserError: the files hold fewer.
    """
    there = tensor_names.num_layers(files.tensors)
    if config.num_hidden_layers > there:
        raise UserError(
            f"{files.folder} lacks layers: config.json asks for {config.num_hidden_layers}, and "
            f"there are tensors of {there}"
        )


def _check(files: CheckpointFiles, expected: Mapping[str, Tensor], config: ModelConfig) -> None:
    """Checks that the files hold what config.json asks for, and nothing else.

    Raises:
        UserError: names what is missing, unexpected or of a wrong shape.
    """
    _require(files, expected)
    known = {*expected, tensor_names.SCORE}
    if config.tie_word_embeddings:
        known.add(tensor_names.HEAD)
    surplus = sorted(set(files.tensors) - known)
    surplus = [name for name in surplus if not name.endswith(tensor_names.IGNORED_SUFFIX)]
    if surplus:
        raise UserError(
            f"{files.folder} has {_listed(surplus)}, which a model of its config.json does not have"
        )
    for name, tensor in expected.items():
        files.check(name, tensor.shape)
    if config.tie_word_embeddings and tensor_names.HEAD in files:
        _check_tied(files, config)


def _require(files: CheckpointFiles, names: Iterable[str]) -> None:
    missing = sorted(name for name in names if name not in files)
    if missing:
        raise UserError(f"{files.folder} lacks {_listed(missing)}, which its config.json requires")


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"tensor {names[0]}{more}"


def _check_tied(files: CheckpointFiles, config: ModelConfig) -> None:
    """Checks that a head stored beside a tied embedding equals it.

    Some exporters store one. A head that differs would be lost silently.
    """
    embedding = next(iter(tensor_names.tensors(config)))
    num_rows, width = config.vocab_size, config.hidden_size
    files.check(tensor_names.HEAD, (num_rows, width))
    step = max(1, _CHUNK_BYTES // (4 * width))
    for start in range(0, num_rows, step):
        block = (slice(start, min(start + step, num_rows)), slice(0, width))
        rows, head = (files.read(name, block, "float32") for name in (embedding, tensor_names.HEAD))
        if not np.array_equal(rows, head):
            raise UserError(
                f"{tensor_names.HEAD} in {files.tensors[tensor_names.HEAD].file} differs from "
                f"the embedding, "
                "but config.json ties them: set tie_word_embeddings to false"
            )
