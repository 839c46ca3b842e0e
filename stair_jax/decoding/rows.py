"""What the device knows of each slot beside its pages, and how the host sends it in one array."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from stair_jax.decoding.requests import MAX_SCORE_IDS, MAX_STOP_IDS, Request
from stair_jax.decoding.sampling import SamplingRows

NO_TOKEN = -1

# Columns of a row of the host's array, int32; float32 and uint32 go by their bits.
_FIELDS = {
    "replace": 1,
    "token": 1,
    "position": 1,
    "remaining": 1,
    "scoring": 1,
    "temperature": 1,
    "top_k": 1,
    "top_p": 1,
    "keys": 2,
    "stop_ids": MAX_STOP_IDS,
    "score_ids": MAX_SCORE_IDS,
}
WIDTH = sum(_FIELDS.values())
_STARTS = dict(zip(_FIELDS, np.cumsum([0, *_FIELDS.values()]).tolist(), strict=False))


class Rows(NamedTuple):
    """The state of S slots.

    Attributes:
        token: [S] int32, the last token of each sequence, which is not in its pages yet.
        position: [S] int32, where it stands.
        remaining: [S] int32, tokens that may still be sampled; 0: the slot is at rest.
        scoring: [S] bool, the next token is scored and not sampled.
        stop_ids: [S, 8] int32, filled up with -1.
        score_ids: [S, 8] int32, filled up with 0.
        sampling: the settings of the S rows.
    """

    token: jax.Array
    position: jax.Array
    remaining: jax.Array
    scoring: jax.Array
    stop_ids: jax.Array
    score_ids: jax.Array
    sampling: SamplingRows

    @property
    def alive(self) -> jax.Array:
        """[S] bool."""
        return self.remaining > 0


def empty_rows(num_slots: int) -> Rows:
    """Slots at rest."""
    return unpack(jnp.zeros((num_slots, WIDTH), jnp.int32))[1]


def unpack(packed: jax.Array) -> tuple[jax.Array, Rows]:
    """The rows that `packed[S, WIDTH]` holds, and which of them replace what the device has."""

    def get(name: str) -> jax.Array:
        columns = packed[:, _STARTS[name] : _STARTS[name] + _FIELDS[name]]
        return columns[:, 0] if _FIELDS[name] == 1 else columns

    sampling = SamplingRows(
        temperature=lax.bitcast_convert_type(get("temperature"), jnp.float32),
        top_k=get("top_k"),
        top_p=lax.bitcast_convert_type(get("top_p"), jnp.float32),
        keys=lax.bitcast_convert_type(get("keys"), jnp.uint32),
    )
    rows = Rows(
        token=get("token"),
        position=get("position"),
        remaining=get("remaining"),
        scoring=get("scoring") > 0,
        stop_ids=get("stop_ids"),
        score_ids=get("score_ids"),
        sampling=sampling,
    )
    return get("replace") > 0, rows


def replaced(mask: jax.Array, new: Rows, old: Rows) -> Rows:
    """The rows of `new` where the mask [S] is set, else those of `old`."""

    def pick(new: jax.Array, old: jax.Array) -> jax.Array:
        return jnp.where(mask.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    return jax.tree.map(pick, new, old)


def put_at_rest(packed: np.ndarray, slot: int) -> None:
    """Writes into `packed[S, WIDTH]` that a slot has nothing to do."""
    packed[slot] = 0
    packed[slot, _STARTS["replace"]] = 1


def put_request(packed: np.ndarray, slot: int, request: Request, length: int, limit: int) -> None:
    """Writes into `packed[S, WIDTH]` that a slot goes on with a request.

    Args:
        packed: what is sent.
        slot: the row of it.
        request: whose last token comes next.
        length: tokens of its sequence.
        limit: tokens that may be sampled.
    """
    row = packed[slot]
    row[:] = 0

    def put(name: str, value: Any, dtype: Any = np.int32) -> None:
        bits = np.atleast_1d(np.asarray(value, dtype)).view(np.int32)
        row[_STARTS[name] : _STARTS[name] + len(bits)] = bits

    sampling = request.sampling
    put("replace", 1)
    put("token", request.last_token)
    put("position", length - 1)
    put("remaining", limit)
    put("scoring", sampling is None)
    put("keys", request.key, np.uint32)
    put("score_ids", request.score_ids)
    put("top_p", 1.0, np.float32)
    put("stop_ids", [NO_TOKEN] * MAX_STOP_IDS)
    if sampling is not None:
        put("temperature", sampling.temperature, np.float32)
        put("top_k", sampling.top_k)
        put("top_p", sampling.top_p, np.float32)
        put("stop_ids", sampling.stop_ids)
