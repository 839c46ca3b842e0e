"""Rows of single tokens in embedding and head, which PEFT calls trainable tokens.

They take the place of those of the tables. Here the tokens of both tables are the same, so a table
for which a folder has no row of a token keeps its own.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding

from stair_jax.errors import UserError
from stair_jax.models.config import ModelConfig
from stair_jax.models.config_values import shown
from stair_jax.models.huggingface.arrays import make_array
from stair_jax.models.huggingface.safetensors_files import CheckpointFiles
from stair_jax.models.lora import ROWS, Lora, own_rows
from stair_jax.models.transformer import Params

FIELD = "trainable_token_indices"
# The tables by the names of their modules, and the tensors of their rows.
TABLES = {"embed_tokens": "embedding", "lm_head": "head"}
TENSORS = {
    "embedding": "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta",
    "head": "base_model.model.lm_head.token_adapter.trainable_tokens_delta",
}

Tokens = Mapping[str, tuple[int, ...]]


def read_tokens(path: Path, values: Mapping[str, Any]) -> Tokens:
    """The tokens with rows of their own for each table, of the content of `adapter_config.json`.

    Raises:
        UserError: they are no lists of distinct token ids, or of another table.
    """
    named = values.get(FIELD)
    if named is None or named in ([], {}):
        return {}
    named = named if isinstance(named, dict) else {"embed_tokens": named}
    found: dict[str, tuple[int, ...]] = {}
    for name, ids in named.items():
        table = TABLES.get(name.rpartition(".")[2])
        is_list = isinstance(ids, list) and all(type(token) is int and token >= 0 for token in ids)
        if table is None or not is_list or not ids or len(set(ids)) < len(ids):
            raise UserError(
                f"{FIELD} in {path} must name distinct token ids, for {' and '.join(TABLES)}, not "
                f"{shown(ids)} for {shown(name)}"
            )
        found[table] = tuple(ids)
    return found


def check_tokens(files: CheckpointFiles, tokens: Tokens, config: ModelConfig, by: str) -> Tokens:
    """Checks tokens and their rows against the base.

    Returns:
        the same, without a head that is tied to the embedding.

    Raises:
        UserError: a token or a tensor is not there, or not expected, or of a wrong shape.
    """
    if config.tie_word_embeddings and "head" in tokens:
        if tokens["head"] != tokens.get("embedding"):
            raise UserError(f"{by} has other tokens for the head than for the embedding it is")
        tokens = {"embedding": tokens["embedding"]}
    for table, name in TENSORS.items():
        if (name in files) != (table in tokens):
            what = "lacks" if table in tokens else "has"
            raise UserError(f"{files.folder} {what} tensor {name}: {FIELD} says otherwise")
    for table, ids in tokens.items():
        if max(ids) >= config.vocab_size:
            raise UserError(f"{by} has token {max(ids)}, and the base {config.vocab_size} tokens")
        files.check(TENSORS[table], (len(ids), config.hidden_size), f"{by} and the base")
    return tokens


def token_ids(tokens: Tokens) -> tuple[int, ...]:
    """The tokens of all tables."""
    return tuple(sorted({token for ids in tokens.values() for token in ids}))


def read_rows(
    files: CheckpointFiles,
    tokens: Tokens,
    lora: Lora,
    base: Params | None,
    shardings: Mapping[str, Sharding],
) -> Params:
    """{"embedding_rows": [K, D], "head_rows": [K, D]} of the tokens `lora.token_ids`.

    Args:
        files: of the folder.
        tokens: see `check_tokens`.
        lora: says which rows, and their dtype.
        base: has the tables whose rows are asked for, for those that the folder does not have;
            None: the tables are those of the folder, which has to have all rows.
        shardings: of the result, by name; empty: the default device.

    Raises:
        UserError: a value is not finite, or there are not all rows.
    """
    tables = [table for table in TENSORS if table in (tokens if base is None else base)]
    partial = [table for table in tables if set(lora.token_ids) - set(tokens.get(table, ()))]
    if base is None and partial:
        raise UserError(f"{files.folder} has rows of other tokens for the embedding and the head")
    missing: Params = {table: base[table] for table in partial} if base is not None else {}
    found = own_rows(missing, lora.token_ids, lora.dtype) if missing else {}
    for table in tables:
        name, ids = table + ROWS, tokens.get(table, ())
        if not ids:
            continue
        values = _read(files, table, ids).astype(lora.dtype)
        places = [lora.token_ids.index(token) for token in ids]
        if name in found:
            found[name] = found[name].at[jnp.asarray(places)].set(values)
        else:
            ordered = np.empty_like(values)
            ordered[places] = values
            found[name] = make_array(ordered.shape, shardings.get(name), ordered.__getitem__)
    return found


def _read(files: CheckpointFiles, table: str, ids: tuple[int, ...]) -> np.ndarray:
    rows, width = files.tensors[TENSORS[table]].shape
    return files.read(TENSORS[table], (slice(0, rows), slice(0, width)), "float32")


def named_tokens(lora: Lora, tables: Sequence[str]) -> dict[str, list[int]] | None:
    """The field of `adapter_config.json` for the rows of these tables."""
    if not lora.token_ids:
        return None
    return {name: list(lora.token_ids) for name, table in TABLES.items() if table in tables}


@jax.jit
def put_rows(table: jax.Array, ids: jax.Array, rows: jax.Array) -> jax.Array:
    """The table [V, D] with other rows [K, D] for the tokens `ids`."""
    return table.at[ids].set(rows.astype(table.dtype))
