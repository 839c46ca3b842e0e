"""Sampling of one token a row, every row under settings and a key of its own.

The order of the filters: temperature, then top-k, then top-p over the renormalised top-k, where the
token that crosses top-p is kept; of equal logits the lower ids stay. The settings are arrays, so
that other settings never recompile. A row's token depends on its own logits, settings, key and
position only.

The 64 largest logits are enough for most rows. For the others there are two ways that are exact as
well; which one a row takes does not depend on its neighbours, and neither costs anything when no
row takes it. On a mesh each device works on its rows and on its part of the vocabulary.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from stair_jax.decoding.split import Split, over_rows
from stair_jax.decoding.thresholds import kept

NUM_CANDIDATES = 64

# Maxima of groups of this size are cheaper than a sort; a CPU sorts short rows faster.
_GROUP_SIZE = 48
_MIN_GROUPS_CPU = 1000

# Rows that the candidates do not cover are handled a few at a time: so many logits at once.
_UNCOVERED_LOGITS = 2**20


class SamplingRows(NamedTuple):
    """Sampling settings of B rows.

    Attributes:
        temperature: [B] float32; 0 takes the largest logit.
        top_k: [B] int32; 0 sets no limit.
        top_p: [B] float32; 1 or more sets no limit.
        keys: [B, 2] uint32, the two words of a threefry key.
    """

    temperature: jax.Array
    top_k: jax.Array
    top_p: jax.Array
    keys: jax.Array


def sample(
    logits: jax.Array, rows: SamplingRows, positions: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Samples the next token of each row, whatever its settings are.

    Args:
        logits: [B, V] float32; on a mesh, B and V are multiples of the devices along their axes.
        rows: the settings of the B rows.
        positions: [B] int32, where the sampled token will stand; folded into the row's key.

    Returns:
        tokens [B] int32 and their log-probabilities [B] float32 under the untempered model.
    """
    return over_rows(_sample, logits, rows, positions)


def sample_quickly(
    logits: jax.Array, rows: SamplingRows, positions: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`sample` without any branch, for rows whose 64 largest logits are enough.

    A GPU takes branches with the help of the host, which could then not run ahead of it.

    Returns:
        tokens [B] and log-probabilities [B] as of `sample`, and [B] bool, for which rows they are.
    """
    return over_rows(_sample_quickly, logits, rows, positions)


def score(logits: jax.Array, ids: jax.Array) -> jax.Array:
    """Log-probabilities [B, W] of the tokens `ids` [B, W] under logits [B, V]."""
    return over_rows(_score, logits, ids)


def _score(split: Split, logits: jax.Array, ids: jax.Array) -> jax.Array:
    logits = logits - split.max(jnp.max(logits, axis=-1, keepdims=True))
    return split.take(logits, ids) - _logsumexp(split, logits)[:, None]


def _sample(
    split: Split, logits: jax.Array, rows: SamplingRows, positions: jax.Array
) -> tuple[jax.Array, jax.Array]:
    logits = logits - split.max(jnp.max(logits, axis=-1, keepdims=True))
    greedy = _first(split, logits == 0)
    sampled = rows.temperature > 0
    tokens = lax.cond(
        split.everywhere(jnp.any(sampled)),
        lambda: jnp.where(sampled, _sample_limited(split, logits, rows, positions), greedy),
        lambda: greedy,
    )
    return tokens, _logps(split, logits, tokens)


def _sample_quickly(
    split: Split, logits: jax.Array, rows: SamplingRows, positions: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    logits = logits - split.max(jnp.max(logits, axis=-1, keepdims=True))
    draw = _draw(split, logits, rows, positions)
    sampled = rows.temperature > 0
    tokens = jnp.where(sampled, draw.tokens, _first(split, logits == 0))
    return tokens, _logps(split, logits, tokens), ~(draw.unlimited | draw.uncovered)


class _Draw(NamedTuple):
    """A draw from the candidates of each row.

    Attributes:
        tokens: [B], meaningless where greedy, and in the rows of the last two.
        logits: [B, V], tempered.
        uniform: [B], what was drawn.
        unlimited: [B] bool, rows that are sampled without limits.
        uncovered: [B] bool, other rows for which the candidates are not enough.
    """

    tokens: jax.Array
    logits: jax.Array
    uniform: jax.Array
    unlimited: jax.Array
    uncovered: jax.Array


def _draw(split: Split, logits: jax.Array, rows: SamplingRows, positions: jax.Array) -> _Draw:
    """Draws from logits [B, V] whose largest is 0."""
    uniform = jax.vmap(jax.random.uniform)(jax.vmap(_fold)(rows.keys, positions))
    sampled = rows.temperature > 0
    logits = logits / jnp.where(sampled, rows.temperature, 1.0)[:, None]
    logits = jnp.where(logits == 0, 0.0, logits)  # lax.top_k puts -0 after 0
    mass = split.sum(jnp.sum(jnp.exp(logits), axis=-1))
    values, ids = candidates(split, logits)
    unlimited = sampled & (rows.top_k == 0) & (rows.top_p >= 1)
    covered = jnp.sum(jnp.exp(values), axis=-1) >= rows.top_p * mass
    top_k = jnp.minimum(rows.top_k, split.vocab_size(logits.shape[-1]))
    few = (top_k > 0) & (top_k <= values.shape[-1])
    uncovered = sampled & ~unlimited & ~few & ~((rows.top_k == 0) & covered)
    tokens = _invert_sorted(values, ids, rows, mass, uniform)
    return _Draw(tokens, logits, uniform, unlimited, uncovered)


def _sample_limited(
    split: Split, logits: jax.Array, rows: SamplingRows, positions: jax.Array
) -> jax.Array:
    """Samples from logits [B, V] whose largest is 0; [B] tokens, meaningless where greedy."""
    tokens, logits, uniform, unlimited, uncovered = _draw(split, logits, rows, positions)

    def others() -> jax.Array:
        whole = lax.cond(
            split.everywhere(jnp.any(unlimited)),
            lambda: jnp.where(unlimited, _invert(split, jnp.exp(logits), uniform), tokens),
            lambda: tokens,
        )
        return _sample_uncovered(split, logits, rows, uniform, uncovered, whole)

    # One branch around the two: on a GPU the host waits for the outcome of each.
    return lax.cond(split.everywhere(jnp.any(unlimited | uncovered)), others, lambda: tokens)


def candidates(split: Split, logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The C = min(64, V) largest logits [B, C] in falling order, and their ids [B, C] int32.

    Of equal logits the lower ids are taken, and come first.
    """
    size = logits.shape[-1]
    num = min(NUM_CANDIDATES, size)
    num_groups = -(-size // _GROUP_SIZE)
    in_groups = partial(_top_groups if num_groups > num else _top_sorted, num=num)
    plain = partial(_top_sorted, num=num)
    # A TPU has a fast way of its own.
    values, ids = lax.platform_dependent(
        logits,
        tpu=plain,
        cpu=in_groups if num_groups >= _MIN_GROUPS_CPU else plain,
        default=in_groups,
    )
    if split.axis is None:
        return values, ids
    values, ids = split.gather(values), split.gather(ids + split.index * size)
    values, index = lax.top_k(values, min(NUM_CANDIDATES, values.shape[-1]))
    return values, jnp.take_along_axis(ids, index, axis=-1)


def _top_sorted(logits: jax.Array, num: int) -> tuple[jax.Array, jax.Array]:
    values, ids = lax.top_k(logits, num)
    return values, ids


def _top_groups(logits: jax.Array, num: int) -> tuple[jax.Array, jax.Array]:
    """`lax.top_k` over the `num` groups of tokens with the largest maxima.

    No other group has one of the `num` largest: the maxima of these are all before it, since
    `lax.top_k` takes the first of equal ones. The groups are put back into the order of their
    tokens, so that the same rule holds among the tokens.
    """
    groups = _groups(logits, -jnp.inf)
    chosen = jnp.sort(lax.top_k(jnp.max(groups, axis=-1), num)[1], axis=-1)
    inside = jnp.take_along_axis(groups, chosen[:, :, None], axis=1)
    values, index = lax.top_k(inside.reshape(logits.shape[0], -1), num)
    group = jnp.take_along_axis(chosen, index // _GROUP_SIZE, axis=-1)
    return values, group * _GROUP_SIZE + index % _GROUP_SIZE


def _invert_sorted(
    values: jax.Array, ids: jax.Array, rows: SamplingRows, mass: jax.Array, uniform: jax.Array
) -> jax.Array:
    """Inverts the distribution over the C largest logits.

    Args:
        values: [B, C] tempered logits in falling order, the largest 0.
        ids: [B, C] int32, their tokens.
        rows: the settings.
        mass: [B], the sum of exp over the whole row of logits.
        uniform: [B], a draw from [0, 1).
    """
    rank = jnp.arange(values.shape[-1])
    weights = jnp.exp(values)
    in_top_k = (rows.top_k[:, None] == 0) | (rank < rows.top_k[:, None])
    weights = jnp.where(in_top_k, weights, 0.0)
    upto = jnp.cumsum(weights, axis=-1)
    total = jnp.where(rows.top_k == 0, mass, upto[:, -1])
    limited = rows.top_p[:, None] < 1
    before = upto - weights
    in_top_p = ~limited | (before < (rows.top_p * total)[:, None]) | (rank == 0)
    num_kept = jnp.sum(in_top_k & in_top_p, axis=-1)
    kept_mass = jnp.take_along_axis(upto, num_kept[:, None] - 1, axis=-1)
    index = jnp.sum(upto <= uniform[:, None] * kept_mass, axis=-1)
    index = jnp.minimum(index, num_kept - 1)
    return jnp.take_along_axis(ids, index[:, None], axis=-1)[:, 0]


def _sample_uncovered(
    split: Split,
    logits: jax.Array,
    rows: SamplingRows,
    uniform: jax.Array,
    uncovered: jax.Array,
    tokens: jax.Array,
) -> jax.Array:
    """The tokens [B], with new ones where `uncovered` [B]."""
    num_rows, size = logits.shape
    num = min(num_rows, max(8, _UNCOVERED_LOGITS // size))
    (order,) = jnp.nonzero(uncovered, size=num_rows + num, fill_value=num_rows)
    any_top_k = split.everywhere(jnp.any(uncovered & (rows.top_k > 0)))
    count = split.everywhere(jnp.sum(uncovered))

    def some(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        start, tokens = state
        index = lax.dynamic_slice(order, (start,), (num,))
        part = logits.at[index].get(mode="clip")
        top_k, top_p = (x.at[index].get(mode="clip") for x in (rows.top_k, rows.top_p))
        weights = jnp.where(kept(split, part, top_k, top_p, any_top_k), jnp.exp(part), 0.0)
        new = _invert(split, weights, uniform.at[index].get(mode="clip"))
        return start + num, tokens.at[index].set(new, mode="drop")

    return lax.while_loop(lambda state: state[0] < count, some, (jnp.zeros_like(count), tokens))[1]


def _invert(split: Split, weights: jax.Array, uniform: jax.Array) -> jax.Array:
    """Inverts the distribution that has these weights [B, V], in the order of the ids.

    A device is chosen first, then one of its groups, then a token of the group. Each is the first
    whose sum reaches beyond the draw and that has a weight: sums may round up between two others.
    """
    groups = _groups(weights, 0.0)
    masses = jnp.sum(groups, axis=-1)
    parts = split.gather(jnp.sum(masses, axis=-1, keepdims=True))
    target = uniform * jnp.sum(parts, axis=-1)
    device, target = _reach(parts, target)
    group, target = _reach(masses, target)
    inside = jnp.take_along_axis(groups, group[:, None, None], axis=1)[:, 0]
    index, _ = _reach(inside, target)
    token = split.index * weights.shape[-1] + group * _GROUP_SIZE + index
    return split.sum(jnp.where(device == split.index, token, 0))


def _reach(weights: jax.Array, target: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The index [B] at which the sum of weights [B, N] passes `target`, and what is left of it."""
    upto = jnp.cumsum(weights, axis=-1)
    possible = weights > 0
    reached = possible & (upto > target[:, None])
    last = weights.shape[-1] - 1 - jnp.argmax(possible[:, ::-1], axis=-1)
    index = jnp.where(jnp.any(reached, axis=-1), jnp.argmax(reached, axis=-1), last)
    before = jnp.take_along_axis(upto - weights, index[:, None], axis=-1)[:, 0]
    return index.astype(jnp.int32), target - before


def _groups(values: jax.Array, fill: float) -> jax.Array:
    """[B, G, 48] out of [B, V]: consecutive tokens, filled up at the end."""
    num_rows, size = values.shape
    num_groups = -(-size // _GROUP_SIZE)
    values = jnp.pad(values, ((0, 0), (0, num_groups * _GROUP_SIZE - size)), constant_values=fill)
    return values.reshape(num_rows, num_groups, _GROUP_SIZE)


def _fold(key: jax.Array, position: jax.Array) -> jax.Array:
    return jax.random.fold_in(jax.random.wrap_key_data(key, impl="threefry2x32"), position)


def _logps(split: Split, logits: jax.Array, tokens: jax.Array) -> jax.Array:
    """Log-probabilities [B] of tokens [B] under logits whose largest is 0."""
    chosen = split.take(logits, tokens[:, None])[:, 0]
    return chosen - _logsumexp(split, logits)


def _logsumexp(split: Split, logits: jax.Array) -> jax.Array:
    """Of rows whose largest is 0."""
    return jnp.log(split.sum(jnp.sum(jnp.exp(logits), axis=-1)))


def _first(split: Split, mask: jax.Array) -> jax.Array:
    """The first true id of each row, or the last id; a CPU reduces this faster than an argmax."""
    size = mask.shape[-1]
    last = split.vocab_size(size) - 1
    return split.min(jnp.min(jnp.where(mask, split.ids(size), last), axis=-1))
