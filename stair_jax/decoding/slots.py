"""The slots (batch lanes) as device rows, and how the host sends updates of them in one array.

All settings of a request are data in these rows: a new temperature, stop id or length never
recompiles a program. The host packs a row with `struct` into int32 words, floats and uint32 by
their bits, so that one host-to-device transfer carries every field.
"""

import struct
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from stair_jax.decoding.requests import MAX_SCORE_IDS, MAX_STOP_IDS, Request
from stair_jax.decoding.sampling.sample import SamplingRows

# Fills unused stop ids, and the positions of the results at which nothing was sampled.
NO_TOKEN = -1

# Columns of a packed row in order, with their format codes of `struct`. Every code has 4 bytes;
# fields that are not int32 are transferred as their bits. "replace" is 0 where a row stays as it
# is, else 1 + the adapter of the new row, so that adapters take no column where there are none.
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
# "=" turns off native alignment, so that columns can be computed from the codes.
_ROW = struct.Struct("=" + "".join(_FIELDS.values()))
WIDTH = _ROW.size // 4
_WIDTHS = {name: struct.calcsize(f"={code}") // 4 for name, code in _FIELDS.items()}
_STARTS = dict(zip(_FIELDS, np.cumsum([0, *_WIDTHS.values()]).tolist(), strict=False))


class Slots(NamedTuple):
    """The state of S slots.

    Attributes:
        token: [S] int32, the last token of each sequence. Its keys and values are not in the cache
            yet: the next decode step computes them.
        position: [S] int32, the position of that token.
        remaining: [S] int32, number of tokens that may still be sampled; 0 means an idle slot.
        scoring: [S] bool, whether the next token is scored instead of sampled.
        stop_ids: [S, 8] int32, padded with -1.
        score_ids: [S, 8] int32, padded with 0.
        sampling: sampling settings of the S rows.
        stalled: [S] bool, the rows that a "quick" call could not sample, and that wait for a call
            of another mode. Further quick calls leave them alone: rounding may differ between two
            steps at one position, so that they might go on where the host does not expect it.
        adapter: [S] int32, the adapter of each sequence; None in an engine without adapters.
    """

    token: jax.Array
    position: jax.Array
    remaining: jax.Array
    scoring: jax.Array
    stop_ids: jax.Array
    score_ids: jax.Array
    sampling: SamplingRows
    stalled: jax.Array
    adapter: jax.Array | None = None

    @property
    def alive(self) -> jax.Array:
        """[S] bool, the slots that have tokens left to sample or score."""
        return self.remaining > 0


def empty_slots(num_slots: int, has_adapters: bool = False) -> Slots:
    """The rows of `num_slots` idle slots."""
    return unpack(jnp.zeros((num_slots, WIDTH), jnp.int32), has_adapters)[1]


def unpack(packed: jax.Array, has_adapters: bool = False) -> tuple[jax.Array, Slots]:
    """Unpacks rows that the host has packed.

    Args:
        packed: [S, WIDTH] int32.
        has_adapters: whether the rows get their adapters.

    Returns:
        [S] bool, the slots whose state is replaced, and the S rows.
    """

    def get(name: str) -> jax.Array:
        columns = packed[:, _STARTS[name] : _STARTS[name] + _WIDTHS[name]]
        return columns[:, 0] if _WIDTHS[name] == 1 else columns

    sampling = SamplingRows(
        temperature=lax.bitcast_convert_type(get("temperature"), jnp.float32),
        top_k=get("top_k"),
        top_p=lax.bitcast_convert_type(get("top_p"), jnp.float32),
        keys=lax.bitcast_convert_type(get("keys"), jnp.uint32),
    )
    slots = Slots(
        token=get("token"),
        position=get("position"),
        remaining=get("remaining"),
        scoring=get("scoring") > 0,
        stop_ids=get("stop_ids"),
        score_ids=get("score_ids"),
        sampling=sampling,
        stalled=jnp.zeros(packed.shape[0], bool),
        adapter=jnp.maximum(get("replace") - 1, 0) if has_adapters else None,
    )
    return get("replace") > 0, slots


def replaced(mask: jax.Array, new: Slots, old: Slots) -> Slots:
    """Selects rows.

    Args:
        mask: [S] bool.
        new: rows of S slots, taken where the mask is set.
        old: rows of S slots, taken elsewhere.
    """

    def pick(new: jax.Array, old: jax.Array) -> jax.Array:
        return jnp.where(mask.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    return jax.tree.map(pick, new, old)


def put_at_rest(packed: np.ndarray, slot: int) -> None:
    """Writes into `packed` [S, WIDTH] int32 that a slot becomes idle."""
    # All zeros: `remaining` 0 is an idle slot.
    packed[slot] = 0
    packed[slot, _STARTS["replace"]] = 1


def put_request(
    packed: np.ndarray, slot: int, request: Request, length: int, limit: int, adapter: int = 0
) -> None:
    """Writes into `packed` that a slot continues with a request.

    Args:
        packed: [S, WIDTH] int32, the array that is sent.
        slot: index of the row.
        request: the request, whose last token is the next input.
        length: tokens in its sequence.
        limit: tokens that may be sampled.
        adapter: of the engine, by which the sequence is computed.
    """
    # A scoring request has no sampling settings: greedy without limits is the cheapest way through
    # the sampler, and its token is discarded.
    sampling = request.sampling
    settings = (
        (0.0, 0, 1.0)
        if sampling is None
        else (sampling.temperature, sampling.top_k, sampling.top_p)
    )
    stop_ids = () if sampling is None else sampling.stop_ids
    row = _ROW.pack(
        1 + adapter,
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
