"""The safetensors files of a Hugging Face folder: index, partial reads, streaming writes."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from stair_jax.errors import UserError
from stair_jax.models.config_values import shown
from stair_jax.models.huggingface.other_forms import other_forms
from stair_jax.storage import atomic_file, check_regular, read_json

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
# Supported dtypes, by their names in safetensors.
DTYPE_NAMES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
# safetensors pads its JSON header with spaces to this many bytes.
_HEADER_ALIGNMENT = 8


class StoredTensor(NamedTuple):
    """One tensor on disk.

    Attributes:
        file: the file that holds it.
        shape: its shape.
        dtype: name of its dtype in safetensors, e.g. BF16.
    """

    file: Path
    shape: tuple[int, ...]
    dtype: str


class CheckpointFiles:
    """The tensors of a folder by name.

    Attributes:
        folder: a Hugging Face folder.
        tensors: all tensors, of a single file or of the shards of an index.
    """

    def __init__(self, folder: str | Path):
        """Reads the headers of all files.

        Raises:
            UserError: names the file that is missing or damaged.
        """
        self.folder = Path(folder)
        self.tensors = _stored_tensors(self.folder)

    def __contains__(self, name: str) -> bool:
        """Whether there is a tensor of this name."""
        return name in self.tensors

    def check(self, name: str, shape: tuple[int, ...], by: str = "config.json") -> None:
        """Checks the shape and the dtype of a tensor, which `by` asks for.

        Raises:
            UserError: the shape is another one, or the dtype is not supported.
        """
        file, stored, dtype = self.tensors[name]
        if stored != shape:
            raise UserError(
                f"tensor {name} in {file} has shape {list(stored)}, but {by} asks for {list(shape)}"
            )
        if dtype not in DTYPE_NAMES:
            raise UserError(
                f"tensor {name} in {file} has dtype {dtype}: "
                f"only {', '.join(DTYPE_NAMES)} are supported"
            )

    def read(self, name: str, index: tuple[slice, ...], dtype: str) -> np.ndarray:
        """Reads a block of a tensor and converts it.

        Args:
            name: name of the tensor.
            index: the block.
            dtype: of the result.

        Raises:
            UserError: a value is not finite, in the file or in `dtype`.
        """
        file = self.tensors[name].file
        # Opened anew for each block, so that the blocks read before do not stay mapped into memory.
        with opened(file) as tensors:
            values = tensors.get_slice(name)[index]
        # An overflow becomes inf, which the check below reports with the name of the tensor.
        with np.errstate(over="ignore"):
            converted = values.astype(dtype, copy=False)
        if not np.isfinite(converted).all():
            what = "values that are not finite"
            if np.isfinite(values).all():
                raise UserError(f"tensor {name} in {file} has {what} in {dtype}: use another dtype")
            raise UserError(f"tensor {name} in {file} is damaged: it has {what}")
        return converted


@contextmanager
def opened(file: Path) -> Iterator[Any]:
    """Opens a safetensors file.

    Raises:
        UserError: names the file, if it cannot be read or is damaged.
    """
    try:
        with safe_open(file, framework="np") as tensors:
            yield tensors
    except (SafetensorError, json.JSONDecodeError) as error:
        raise UserError(f"{file} is damaged: {error}".splitlines()[0]) from error
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror or error}") from error


def _stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    if (folder / SINGLE_FILE).is_file():
        return tensors_in(folder / SINGLE_FILE)
    if not (folder / INDEX_FILE).is_file():
        for path in (folder / SINGLE_FILE, folder / INDEX_FILE):
            check_regular(path)
        raise UserError(
            other_forms(folder, _names(folder))
            or f"{folder} has no {SINGLE_FILE}: name a Hugging Face folder with safetensors"
        )
    index = read_json(folder / INDEX_FILE)
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict):
        raise UserError(f"{folder / INDEX_FILE} is damaged: it has no weight_map")
    for file in weight_map.values():
        # A bare file name: an index must not lead out of its folder.
        is_name = isinstance(file, str) and Path(file).name == file and "\0" not in file
        if not is_name or not _is_file(folder / file):
            raise UserError(
                f"{folder / INDEX_FILE} names {shown(file)}, which is not in the folder"
            )
    found: dict[str, StoredTensor] = {}
    for file in dict.fromkeys(weight_map.values()):
        held = tensors_in(folder / file)
        twice = sorted(held.keys() & found.keys())
        if twice:
            raise UserError(f"tensor {twice[0]} is in {found[twice[0]].file} and in {file}")
        found |= held
    lost = sorted(set(weight_map) - set(found))
    if lost:
        raise UserError(
            f"{INDEX_FILE} lists tensor {lost[0]} in {weight_map[lost[0]]}, "
            "which does not contain it"
        )
    return found


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long
        return False


def tensors_in(file: Path) -> dict[str, StoredTensor]:
    """The tensors of a file by name.

    Raises:
        UserError: it cannot be read, or is damaged.
    """
    with opened(file) as tensors:
        slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118
        return {
            name: StoredTensor(file, tuple(stored.get_shape()), stored.get_dtype())
            for name, stored in slices.items()
        }


def write_file(
    path: Path,
    shapes: Mapping[str, tuple[int, ...]],
    dtype: str,
    chunks: Iterable[np.ndarray],
) -> None:
    """Writes a safetensors file from a stream of chunks, so that only one is in memory.

    The bytes are those that `safetensors.numpy.save` writes.

    Args:
        path: the file, which is replaced atomically.
        shapes: shapes of the tensors, in the order of their names.
        dtype: of all tensors.
        chunks: contiguous arrays of that dtype, which concatenated are the values of all tensors in
            order.
    """
    names = {name: stored for stored, name in DTYPE_NAMES.items()}
    itemsize = np.dtype(dtype).itemsize
    # transformers checks the format in the metadata.
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + math.prod(shape) * itemsize
        header[name] = {"dtype": names[dtype], "shape": shape, "data_offsets": (start, end)}
    encoded = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    encoded += b" " * (-len(encoded) % _HEADER_ALIGNMENT)
    with atomic_file(path) as file:
        file.write(len(encoded).to_bytes(8, "little"))
        file.write(encoded)
        for chunk in chunks:
            end -= file.write(chunk.view(np.uint8).data)
        assert end == 0, f"{path} did not get all its values"
