"""Exact sampling of one token per row, each row with settings and a random key of its own.

Filters apply in this order: temperature, top-k, then top-p over the distribution renormalised to
the top k; the token that crosses top-p is kept, and among equal logits the lower ids. Settings are
arrays, so that a change of settings never recompiles. The token of a row depends only on its own
logits, settings, key and position.

For most rows the 64 largest logits suffice. For the others there are two more paths, which are
exact as well: `_invert` over the whole vocabulary for rows without limits, and the bisection of
`decoding/sampling/top_k_top_p.py` for rows whose limits reach beyond 64 tokens. Which path a row
takes depends on that row only, and a path that no row takes costs nothing. On a mesh, each device
works on its own rows and its own shard of the vocabulary, so no row of logits is ever gathered.

Every path draws one uniform number per row and inverts a cumulative distribution with it. Unlike
Gumbel noise, that takes one random number per row instead of one per token.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from stair_jax.decoding.sampling.sharded_vocab import ShardedVocab, over_rows
from stair_jax.decoding.sampling.top_k_top_p import top_k_top_p_mask

# Covers the paper's top-k of 50 (arXiv 2502.02384).
NUM_CANDIDATES = 64

# Two-stage top-k: the maxima of groups of this many tokens, then the best groups. Cheaper than a
# sort of the row, except on CPUs with short rows.
_GROUP_SIZE = 48
_MIN_GROUPS_CPU = 1000

# Rows that the candidates do not cover are rare and expensive, so they are handled a few at a time:
# about this many logits at once.
_UNCOVERED_LOGITS = 2**20


class SamplingRows(NamedTuple):
    """Sampling settings of B rows.

    Attributes:
        temperature: [B] float32; 0 is greedy.
        top_k: [B] int32; 0 means no limit.
        top_p: [B] float32; 1 or more means no limit.
        keys: [B, 2] uint32, the two words of a threefry key.
    """

    temperature: jax.Array
    top_k: jax.Array
    top_p: jax.Array
    keys: jax.Array


def sample(
    logits: jax.Array, rows: SamplingRows, positions: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Samples the next token of each row, for any settings.

    Args:
        logits: [B, V] float32; on a mesh, B and V are multiples of the number of devices along
            their axes.
        rows: settings of the B rows.
        positions: [B] int32, positions of the sampled tokens; folded into the rows' keys.

    Returns:
        tokens: [B] int32.
        logps: [B] float32, their log-probabilities under the model, before temperature and filters.
    """
    return over_rows(_sample, logits, rows, positions)


def sample_quickly(
    logits: jax.Array, rows: SamplingRows, positions: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Like `sample` without branches, for rows that the 64 largest logits suffice for.

    A GPU evaluates a branch with the help of the host, which could then not run ahead of it.

    Args:
        logits: as for `sample`.
        rows: as for `sample`.
        positions: as for `sample`.

    Returns:
        tokens: [B] int32.
        logps: [B] float32.
        valid: [B] bool, the rows for which the other two are valid.
    """
    return over_rows(_sample_quickly, logits, rows, positions)


def score(logits: jax.Array, ids: jax.Array) -> jax.Array:
    """Log-probabilities [B, W] float32 of the token ids `ids` [B, W] under logits [B, V]."""
    return over_rows(_score, logits, ids)


def _score(vocab: ShardedVocab, logits: jax.Array, ids: jax.Array) -> jax.Array:
    logits = logits - vocab.max(jnp.max(logits, axis=-1, keepdims=True))
    return vocab.take(logits, ids) - _logsumexp(vocab, logits)[:, None]


def _sample(
    vocab: ShardedVocab, logits: jax.Array, rows: SamplingRows, positions: jax.Array
) -> tuple[jax.Array, jax.Array]:
    # The maximum is 0 from here on: exp cannot overflow, and the greedy token is where it is 0.
    logits = logits - vocab.max(jnp.max(logits, axis=-1, keepdims=True))
    greedy = _first(vocab, logits == 0)
    sampled = rows.temperature > 0
    tokens = lax.cond(
        # Rows that are all greedy need no draw at all. `everywhere`, as the branch has collectives.
        vocab.everywhere(jnp.any(sampled)),
        lambda: jnp.where(sampled, _sample_limited(vocab, logits, rows, positions), greedy),
        lambda: greedy,
    )
    return tokens, _logps(vocab, logits, tokens)


def _sample_quickly(
    vocab: ShardedVocab, logits: jax.Array, rows: SamplingRows, positions: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    logits = logits - vocab.max(jnp.max(logits, axis=-1, keepdims=True))
    draw = _draw(vocab, logits, rows, positions)
    sampled = rows.temperature > 0
    tokens = jnp.where(sampled, draw.tokens, _first(vocab, logits == 0))
    return tokens, _logps(vocab, logits, tokens), ~(draw.unlimited | draw.uncovered)


class _Draw(NamedTuple):
    """A draw from the candidates of each row.

    Attributes:
        tokens: [B] int32; meaningless for greedy rows and where one of the masks is set.
        logits: [B, V] float32, tempered.
        uniform: [B] float32 in [0, 1), the random draw.
        unlimited: [B] bool, rows that are sampled without top-k and top-p.
        uncovered: [B] bool, other rows for which the candidates do not suffice.
    """

    tokens: jax.Array
    logits: jax.Array
    uniform: jax.Array
    unlimited: jax.Array
    uncovered: jax.Array


def _draw(
    vocab: ShardedVocab, logits: jax.Array, rows: SamplingRows, positions: jax.Array
) -> _Draw:
    """Draws from logits [B, V] whose maximum is 0."""
    uniform = jax.vmap(jax.random.uniform)(jax.vmap(_fold)(rows.keys, positions))
    sampled = rows.temperature > 0
    logits = logits / jnp.where(sampled, rows.temperature, 1.0)[:, None]
    logits = jnp.where(logits == 0, 0.0, logits)  # lax.top_k ranks -0 below 0
    mass = vocab.sum(jnp.sum(jnp.exp(logits), axis=-1))
    values, ids = candidates(vocab, logits)
    unlimited = sampled & (rows.top_k == 0) & (rows.top_p >= 1)
    # Without top-k, the candidates suffice if they hold the mass of top-p. With top-k they do if k
    # is at most 64, whatever top-p is.
    covered = jnp.sum(jnp.exp(values), axis=-1) >= rows.top_p * mass
    top_k = jnp.minimum(rows.top_k, vocab.vocab_size(logits.shape[-1]))
    few = (top_k > 0) & (top_k <= values.shape[-1])
    uncovered = sampled & ~unlimited & ~few & ~((rows.top_k == 0) & covered)
    tokens = _invert_sorted(values, ids, rows, mass, uniform)
    return _Draw(tokens, logits, uniform, unlimited, uncovered)


def _sample_limited(
    vocab: ShardedVocab, logits: jax.Array, rows: SamplingRows, positions: jax.Array
) -> jax.Array:
    """Samples from logits [B, V] whose maximum is 0.

    Returns:
        [B] int32 tokens, meaningless for greedy rows.
    """
    tokens, logits, uniform, unlimited, uncovered = _draw(vocab, logits, rows, positions)

    def others() -> jax.Array:
        whole = lax.cond(
            vocab.everywhere(jnp.any(unlimited)),
            lambda: jnp.where(unlimited, _invert(vocab, jnp.exp(logits), uniform), tokens),
            lambda: tokens,
        )
        return _sample_uncovered(vocab, logits, rows, uniform, uncovered, whole)

    # One branch around both: on a GPU the host waits for the outcome of each branch.
    return lax.cond(vocab.everywhere(jnp.any(unlimited | uncovered)), others, lambda: tokens)


def candidates(vocab: ShardedVocab, logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The C = min(64, V) largest logits of each row; among equal logits, the lower ids come first.

    Args:
        vocab: how the vocabulary is sharded.
        logits: [B, V].

    Returns:
        values: [B, C] in descending order.
        ids: [B, C] int32, their token ids.
    """
    size = logits.shape[-1]
    num = min(NUM_CANDIDATES, size)
    num_groups = -(-size // _GROUP_SIZE)
    in_groups = partial(_top_groups if num_groups > num else _top_sorted, num=num)
    plain = partial(_top_sorted, num=num)
    # The TPU's own top-k is fast; GPUs and long rows on CPUs do better with groups.
    values, ids = lax.platform_dependent(
        logits,
        tpu=plain,
        cpu=in_groups if num_groups >= _MIN_GROUPS_CPU else plain,
        default=in_groups,
    )
    if vocab.axis is None:
        return values, ids
    # The global top 64 are among the top 64 of each shard. Gathered in vocabulary order, so that
    # `lax.top_k`, which prefers the first of equal values, still prefers lower ids.
    values, ids = vocab.gather(values), vocab.gather(ids + vocab.index * size)
    values, index = lax.top_k(values, min(NUM_CANDIDATES, values.shape[-1]))
    return values, jnp.take_along_axis(ids, index, axis=-1)


def _top_sorted(logits: jax.Array, num: int) -> tuple[jax.Array, jax.Array]:
    values, ids = lax.top_k(logits, num)
    return values, ids


def _top_groups(logits: jax.Array, num: int) -> tuple[jax.Array, jax.Array]:
    """`lax.top_k`, restricted to the `num` groups of tokens with the largest maxima.

    Exact: if a group is not chosen, `num` others have maxima that rank before all of its tokens.
    The chosen groups are sorted back into vocabulary order, so that ties are broken in favour of
    lower ids here as well.
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
    """Inverts the cumulative distribution over the C largest logits.

    Args:
        values: [B, C] tempered logits in descending order, the first 0.
        ids: [B, C] int32, their token ids.
        rows: the settings.
        mass: [B], the sum of exp over the whole row of logits.
        uniform: [B], draws from [0, 1).

    Returns:
        [B] int32 token ids.
    """
    rank = jnp.arange(values.shape[-1])
    weights = jnp.exp(values)
    in_top_k = (rows.top_k[:, None] == 0) | (rank < rows.top_k[:, None])
    weights = jnp.where(in_top_k, weights, 0.0)
    upto = jnp.cumsum(weights, axis=-1)
    # Top-p is relative to the top k, or to the whole row without one.
    total = jnp.where(rows.top_k == 0, mass, upto[:, -1])
    limited = rows.top_p[:, None] < 1
    before = upto - weights
    # `rank == 0`: the largest logit is always kept, even if top_p * total underflows.
    in_top_p = ~limited | (before < (rows.top_p * total)[:, None]) | (rank == 0)
    num_kept = jnp.sum(in_top_k & in_top_p, axis=-1)
    kept_mass = jnp.take_along_axis(upto, num_kept[:, None] - 1, axis=-1)
    index = jnp.sum(upto <= uniform[:, None] * kept_mass, axis=-1)
    # uniform * kept_mass may round up to kept_mass.
    index = jnp.minimum(index, num_kept - 1)
    return jnp.take_along_axis(ids, index[:, None], axis=-1)[:, 0]


def _sample_uncovered(
    vocab: ShardedVocab,
    logits: jax.Array,
    rows: SamplingRows,
    uniform: jax.Array,
    uncovered: jax.Array,
    tokens: jax.Array,
) -> jax.Array:
    """Samples the rows that the candidates do not cover, a few at a time.

    Args:
        vocab: how the vocabulary is sharded.
        logits: [B, V], tempered.
        rows: the settings.
        uniform: [B], draws from [0, 1).
        uncovered: [B] bool, the rows to sample.
        tokens: [B] int32, returned for the other rows.

    Returns:
        [B] int32 token ids.
    """
    num_rows, size = logits.shape
    num = min(num_rows, max(8, _UNCOVERED_LOGITS // size))
    # Indices of the uncovered rows, padded with an index out of range: padding reads the last row
    # (`clip`) and writes nowhere (`drop`).
    (order,) = jnp.nonzero(uncovered, size=num_rows + num, fill_value=num_rows)
    any_top_k = vocab.everywhere(jnp.any(uncovered & (rows.top_k > 0)))
    # Devices have different rows, but must run the same number of iterations.
    count = vocab.everywhere(jnp.sum(uncovered))

    def some(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        start, tokens = state
        index = lax.dynamic_slice(order, (start,), (num,))
        part = logits.at[index].get(mode="clip")
        top_k, top_p = (x.at[index].get(mode="clip") for x in (rows.top_k, rows.top_p))
        weights = jnp.where(
            top_k_top_p_mask(vocab, part, top_k, top_p, any_top_k), jnp.exp(part), 0.0
        )
        new = _invert(vocab, weights, uniform.at[index].get(mode="clip"))
        return start + num, tokens.at[index].set(new, mode="drop")

    return lax.while_loop(lambda state: state[0] < count, some, (jnp.zeros_like(count), tokens))[1]


def _invert(vocab: ShardedVocab, weights: jax.Array, uniform: jax.Array) -> jax.Array:
    """Inverts the distribution given by `weights` [B, V], cumulated in the order of token ids.

    Hierarchical: first the device, then one of its groups, then a token of the group. At each level
    the first element is taken whose cumulative weight exceeds the draw and whose own weight is not
    zero; partial sums of different levels may round differently.

    Returns:
        [B] int32 token ids, the same on all devices.
    """
    groups = _groups(weights, 0.0)
    masses = jnp.sum(groups, axis=-1)
    parts = vocab.gather(jnp.sum(masses, axis=-1, keepdims=True))
    target = uniform * jnp.sum(parts, axis=-1)
    # The draw is made on the gathered masses, so that all devices choose the same device.
    device, target = _reach(parts, target)
    group, target = _reach(masses, target)
    inside = jnp.take_along_axis(groups, group[:, None, None], axis=1)[:, 0]
    index, _ = _reach(inside, target)
    token = vocab.index * weights.shape[-1] + group * _GROUP_SIZE + index
    return vocab.sum(jnp.where(device == vocab.index, token, 0))


def _reach(weights: jax.Array, target: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Finds where the cumulative sum of `weights` [B, N] exceeds `target` [B].

    Returns:
        [B] int32 indices, and [B] what remains of the target at that element.
    """
    upto = jnp.cumsum(weights, axis=-1)
    possible = weights > 0
    reached = possible & (upto > target[:, None])
    # If rounding leaves the target beyond the total, the last element that has a weight.
    last = weights.shape[-1] - 1 - jnp.argmax(possible[:, ::-1], axis=-1)
    index = jnp.where(jnp.any(reached, axis=-1), jnp.argmax(reached, axis=-1), last)
    before = jnp.take_along_axis(upto - weights, index[:, None], axis=-1)[:, 0]
    return index.astype(jnp.int32), target - before


def _groups(values: jax.Array, fill: float) -> jax.Array:
    """Splits [B, V] into groups of consecutive tokens, padded at the end: [B, G, 48]."""
    num_rows, size = values.shape
    num_groups = -(-size // _GROUP_SIZE)
    values = jnp.pad(values, ((0, 0), (0, num_groups * _GROUP_SIZE - size)), constant_values=fill)
    return values.reshape(num_rows, num_groups, _GROUP_SIZE)


def _fold(key: jax.Array, position: jax.Array) -> jax.Array:
    """Folds a position into the two words of a key."""
    return jax.random.fold_in(jax.random.wrap_key_data(key, impl="threefry2x32"), position)


def _logps(vocab: ShardedVocab, logits: jax.Array, tokens: jax.Array) -> jax.Array:
    """Log-probabilities [B] of tokens [B] under logits [B, V] whose maximum is 0."""
    chosen = vocab.take(logits, tokens[:, None])[:, 0]
    return chosen - _logsumexp(vocab, logits)


def _logsumexp(vocab: ShardedVocab, logits: jax.Array) -> jax.Array:
    """Log-sum-exp [B] of logits [B, V] whose maximum is 0."""
    return jnp.log(vocab.sum(jnp.sum(jnp.exp(logits), axis=-1)))


def _first(vocab: ShardedVocab, mask: jax.Array) -> jax.Array:
    """The first true id of each row, or the last id if there is none.

    A minimum over ids, as a CPU reduces it faster than an argmax.
    """
    size = mask.shape[-1]
    last = vocab.vocab_size(size) - 1
    return vocab.min(jnp.min(jnp.where(mask, vocab.ids(size), last), axis=-1))
