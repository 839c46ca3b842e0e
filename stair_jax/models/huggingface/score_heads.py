"""Heads `score.weight` of a Hugging Face folder: of reward models, and of classifiers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from stair_jax.adapter_folders import described
from stair_jax.errors import UserError
from stair_jax.models.config_values import shown
from stair_jax.models.huggingface.adapter_tensors import ADAPTER_SCORE, AdapterFiles
from stair_jax.models.huggingface.arrays import make_array
from stair_jax.models.huggingface.hub import adapter_base
from stair_jax.models.huggingface.loading import load_config
from stair_jax.models.huggingface.safetensors_files import CheckpointFiles
from stair_jax.models.huggingface.tensor_names import SCORE
from stair_jax.parallel import rules
from stair_jax.storage import read_json

_MOST_LABELS = 2**16  # far more than any classifier has


def has_score_head(folder: str | Path) -> bool:
    """Whether the folder holds a model with a head of scores or labels."""
    files, name = _head_file(folder)
    return name in files


def load_score_head(folder: str | Path, mesh: Mesh | None = None) -> dict[str, Any]:
    """Reads the scalar head {"kernel": [D]} in float32; `mesh` as for `load_params`.

    Raises:
        UserError: there is none, it has several labels, or it is damaged.
    """
    count = _num_rows(folder, "a scalar head")
    if count != 1:
        raise UserError(
            f"{SCORE} in {folder} has {count} labels: name a reward model, whose head has one"
        )
    rows = _read(folder, 1)
    return {"kernel": _place(rows[0], PartitionSpec("embed"), mesh)}


def load_label_head(folder: str | Path, mesh: Mesh | None = None) -> dict[str, Any]:
    """Reads a classifier's head {"kernel": [D, labels]} in float32; `mesh` as for `load_params`.

    Raises:
        UserError: there is none, or it is damaged.
    """
    rows = _read(folder, len(load_labels(folder)))
    return {"kernel": _place(rows.T, PartitionSpec("embed", None), mesh)}


def load_labels(folder: str | Path) -> tuple[str, ...]:
    """Names of a classifier's labels, in the order of the rows of its head.

    They are those of `id2label` in its config.json; without one, LABEL_0 and so on as in
    transformers.

    Raises:
        UserError: there is no such head, or `id2label` does not name each of its rows once.
    """
    names = read_json(described(Path(folder), "config.json")).get("id2label")
    count = _num_rows(folder, "a head of labels")
    if names is None:
        return tuple(f"LABEL_{index}" for index in range(count))
    found = _in_order(names) if isinstance(names, Mapping) else []
    if len(found) != count or not all(isinstance(name, str) and name for name in found):
        raise UserError(
            f"id2label {shown(names)} in {folder}/config.json does not name the {count} rows of "
            f"{SCORE}: write a name for each of 0 to {count - 1}"
        )
    if len(set(found)) < count:
        raise UserError(
            f"id2label {shown(names)} in {folder}/config.json has a name twice: make them distinct"
        )
    return tuple(found)


def load_pad_id(folder: str | Path) -> int | None:
    """The `pad_token_id` of config.json, behind which transformers reads no score; None: none.

    Raises:
        UserError: it is no token id.
    """
    value = read_json(described(Path(folder), "config.json")).get("pad_token_id")
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise UserError(
            f"pad_token_id {shown(value)} in {folder}/config.json must be a token id or null"
        )
    return value


def _in_order(names: Mapping[str, Any]) -> list[Any]:
    """The values by the keys "0", "1" and so on; empty if there are other keys."""
    keys = [str(index) for index in range(len(names))]
    return [names[key] for key in keys] if set(names) == set(keys) else []


def _num_rows(folder: str | Path, kind: str) -> int:
    files, name = _head_file(folder)
    if name not in files:
        raise UserError(f"{folder} has no tensor {SCORE}: name a model with {kind}")
    shape = files.tensors[name].shape
    if len(shape) != 2 or not 1 <= shape[0] <= _MOST_LABELS:
        raise UserError(f"{SCORE} in {folder} has the shape {list(shape)}: it must be [labels, D]")
    return shape[0]


def _read(folder: str | Path, num_rows: int) -> np.ndarray:
    files, name = _head_file(folder)
    embed = load_config(folder).hidden_size
    files.check(name, (num_rows, embed))
    return files.read(name, (slice(0, num_rows), slice(0, embed)), "float32")


def _head_file(folder: str | Path) -> tuple[CheckpointFiles, str]:
    """Where the head is, and under which name: beside adapters, or else in their base."""
    base = adapter_base(folder)
    if base is None:
        return CheckpointFiles(folder), SCORE
    adapters = AdapterFiles(folder)
    return (
        (adapters, ADAPTER_SCORE) if ADAPTER_SCORE in adapters else (CheckpointFiles(base), SCORE)
    )


def _place(kernel: np.ndarray, axes: Any, mesh: Mesh | None) -> jax.Array:
    sharding = None if mesh is None else rules.shardings(axes, mesh)
    return make_array(kernel.shape, sharding, kernel.__getitem__)
