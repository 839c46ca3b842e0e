"""What the device knows of each slot beside its pages, and how the host sends it in one array."""

import struct
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from stair_jax.decoding.requests import MAX_SCORE_IDS, MAX_STOP_IDS, Request
from stair_jax.decoding.sampling import SamplingRows

NO_TOKEN = -1

# Columns of a row of the host's array, int32, in the codes of `struct`; others go by their bits.
_FIELDS = {
    "replace": "i",
    "token": "i",
    "position": "i",
    "remaining": "i",
    "scoring": "i",
    "temperature": "f",
    "top_k": "i",
    "top_p": "f",
    "keys": "2I",
    "stop_ids": f"{MAX_STOP_IDS}i",
    "score_ids": f"{MAX_SCORE_IDS}i",
}
_ROW = struct.Struct("=" + "".join(_FIELDS.values()))
WIDTH = _ROW.size // 4
_WIDTHS = {name: struct.calcsize(f"={code}") // 4 for name, code in _FIELDS.items()}
_STARTS = dict(zip(_FIELDS, np.cumsum([0, *_WIDTHS.values()]).tolist(), strict=False))


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
        columns = packed[:, _STARTS[name] : _STARTS[name] + _WIDTHS[name]]
        return columns[:, 0] if _WIDTHS[name] == 1 else columns

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
    sampling = request.sampling
    settings = (
        (0.0, 0, 1.0)
        if sampling is None
        else (sampling.temperature, sampling.top_k, sampling.top_p)
    )
    stop_ids = () if sampling is None else sampling.stop_ids
    row = _ROW.pack(
        1,
        request.last_token,
        length - 1,
        limit,
        sampling is None,
        *settings,
        *request.key,
        *stop_ids,
        *[NO_TOKEN] * (MAX_STOP_IDS - len(stop_ids)),
        *request.score_ids,
        *[0] * (MAX_SCORE_IDS - len(request.score_ids)),
    )
    packed[slot] = np.frombuffer(row, np.int32)
