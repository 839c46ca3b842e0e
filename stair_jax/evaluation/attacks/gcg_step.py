"""One step of greedy coordinate gradient as one jitted program (arXiv 2307.15043, algorithm 1).

The candidates of a step share the chat before the suffix. They are laid out as the branches of a
tree: a row holds that beginning once, and behind it a block for each of several candidates, which
sees the beginning and itself (`models/attention/mask.py`). So the model is the one of training,
with all its variants, and needs no cache of keys and values. V is the vocabulary, n the suffix
length.
"""

import functools
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from stair_jax.models import transformer
from stair_jax.models.config import ModelConfig
from stair_jax.training.logps import token_logps

# Lengths are rounded up to multiples, so that cases of like length share a compiled program.
_BEFORE, _TAIL, _TARGET, _ROW = 32, 16, 8, 16
_MOST_PER_ROW = 64
# What attention costs for a head and a pair of tokens of a row, in operations of matrix products.
# Measured on a CPU: it takes that many times longer than its own few, for the softmax in memory.
_PAIR_COST = 1000
# Most bytes of the logits of one chunk of positions.
_LOGITS_BYTES = 2**28


@dataclass(frozen=True)
class GcgShape:
    """Sizes of a program.

    Attributes:
      before: P, tokens before the suffix, padded.
      length: n, of the suffix.
      tail: Q, tokens behind the suffix, target included, padded.
      target: G, of the target, padded.
      candidates: N, a step.
      per_row: C, blocks of a row.
      rows: R, that are computed at once.
      top_k: replacements of a position that are drawn from.
    """

    before: int
    length: int
    tail: int
    target: int
    candidates: int
    per_row: int
    rows: int
    top_k: int

    def row(self, blocks: int) -> int:
        """T, tokens of a row with so many candidates."""
        return _up(self.before + blocks * (self.length + self.tail), _ROW)


class GcgProblem(NamedTuple):
    """A chat, a target, and the tokens that a suffix may have.

    Attributes:
      before: `[P]` int32, the chat up to the suffix.
      num_before: int32, of these that are no padding; at least 1.
      tail: `[Q]` int32, what follows the suffix: the rest of the chat, then the target.
      num_tail: int32, of these that are no padding.
      num_target: int32, how many of these are the target, the last ones.
      allowed: `[V]` bool.
    """

    before: jax.Array
    num_before: jax.Array
    tail: jax.Array
    num_tail: jax.Array
    num_target: jax.Array
    allowed: jax.Array


class GcgResult(NamedTuple):
    """What a step gives.

    Attributes:
      best: int32, the candidate with the lowest loss.
      losses: `[N]` float32, mean negative log-probability of the target's tokens, in nats; inf
        where a candidate was not to be counted.
      candidates: `[N, n]` int32, for the next step, each the best one with one token replaced.
    """

    best: jax.Array
    losses: jax.Array
    candidates: jax.Array


def shape_of(
    config: ModelConfig,
    before: int,
    length: int,
    tail: int,
    target: int,
    candidates: int,
    top_k: int,
    batch_tokens: int,
) -> GcgShape:
    """Sizes for a problem.

    Args:
      config: of the model.
      before: tokens before the suffix.
      length: of the suffix.
      tail: tokens behind it.
      target: of these, those of the target.
      candidates: a step.
      top_k: replacements of a position that are drawn from.
      batch_tokens: that are computed at once, about.
    """
    sizes = (_up(before, _BEFORE), length, _up(tail, _TAIL), _up(target, _TARGET))
    shapes = [
        GcgShape(*sizes, candidates, per_row, 1, top_k)
        for per_row in range(1, min(candidates, _MOST_PER_ROW) + 1)
    ]
    best = min(shapes, key=functools.partial(_cost, config))
    most = max(1, batch_tokens // best.row(best.per_row))
    rows = -(-candidates // best.per_row)
    # Batches of equal size, so that the last one has little padding.
    return replace(best, rows=-(-rows // -(-rows // most)))


def _cost(config: ModelConfig, shape: GcgShape) -> float:
    """Operations a candidate and layer, about.

    Longer rows share the beginning among more candidates, and attend over more that is masked.
    """
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    attention = 2 * config.hidden_size * config.head_dim * (heads + kv_heads)
    weights = attention + 3 * config.hidden_size * config.intermediate_size
    row = shape.row(shape.per_row)
    return row / shape.per_row * (2 * weights + _PAIR_COST * heads * row)


@functools.partial(jax.jit, static_argnums=(0, 1))
def gcg_step(
    config: ModelConfig,
    shape: GcgShape,
    params: Any,
    problem: GcgProblem,
    candidates: jax.Array,
    counted: jax.Array,
    key: jax.Array,
) -> GcgResult:
    """Scores candidates, and draws new ones around the best by the gradient there.

    Args:
      config: of the model.
      shape: of the program.
      params: of the model.
      problem: of the case.
      candidates: `[N, n]` int32.
      counted: `[N]` bool, at least one True; the others are left out.
      key: random key of the step.
    """
    losses = jnp.where(counted, suffix_losses(config, shape, params, problem, candidates), jnp.inf)
    best = jnp.argmin(losses).astype(jnp.int32)
    suffix = candidates[best]
    gradient = one_hot_gradient(config, shape, params, problem, suffix)
    return GcgResult(best, losses, _drawn(shape, problem.allowed, suffix, gradient, key))


def suffix_losses(
    config: ModelConfig, shape: GcgShape, params: Any, problem: GcgProblem, suffixes: jax.Array
) -> jax.Array:
    """Mean negative log-probabilities `[N]` float32 of the target behind suffixes `[N, n]`."""
    together = shape.rows * shape.per_row
    groups = -(-len(suffixes) // together)
    padded = jnp.pad(suffixes, ((0, groups * together - len(suffixes)), (0, 0)))

    def of_group(suffixes: jax.Array) -> jax.Array:
        return _losses(config, shape, params, problem, suffixes)

    found = jax.lax.map(of_group, padded.reshape(groups, shape.rows, shape.per_row, shape.length))
    return found.reshape(-1)[: len(suffixes)]


def one_hot_gradient(
    config: ModelConfig, shape: GcgShape, params: Any, problem: GcgProblem, suffix: jax.Array
) -> jax.Array:
    """Gradient `[n, V]` float32 of the loss for the one-hot rows of the tokens of a suffix."""
    rows = jax.nn.one_hot(suffix, len(params["embedding"]), dtype=params["embedding"].dtype)
    gradient = jax.grad(one_hot_loss, argnums=5)(config, shape, params, problem, suffix, rows)
    return gradient.astype(jnp.float32)


def one_hot_loss(
    config: ModelConfig,
    shape: GcgShape,
    params: Any,
    problem: GcgProblem,
    suffix: jax.Array,
    one_hot: jax.Array,
) -> jax.Array:
    """The loss of a suffix `[n]` whose embeddings are `one_hot[n, V]` times the embedding."""
    embedded = one_hot @ params["embedding"]
    single = replace(shape, per_row=1, rows=1)
    return _losses(config, single, params, problem, suffix[None, None], embedded)[0, 0]


def _losses(
    config: ModelConfig,
    shape: GcgShape,
    params: Any,
    problem: GcgProblem,
    suffixes: jax.Array,
    embedded: jax.Array | None = None,
) -> jax.Array:
    """Losses `[R, C]` of suffixes `[R, C, n]`.

    With `embedded[n, D]`, of a single suffix, its tokens have these embeddings.
    """
    rows, blocks, length = suffixes.shape
    tokens, positions, ends = _layout(shape, problem, suffixes)
    inputs: Any = params
    vocab_size = config.vocab_size
    if embedded is not None:
        # A table of this row alone, each of its tokens being a row of the table.
        start = shape.before
        table = params["embedding"][tokens[0]].at[start : start + length].set(embedded)
        config = replace(config, vocab_size=len(table), vocab_multiple=1)
        inputs, tokens = {**params, "embedding": table}, jnp.arange(len(table))[None]
    hidden = transformer.apply(config, inputs, tokens, positions, None, ends)
    # Of each block, the positions before those of the target.
    first = length + problem.num_tail - problem.num_target - 1
    index = jnp.minimum(first + jnp.arange(shape.target), length + shape.tail - 1)
    block = length + shape.tail
    hidden = hidden[:, shape.before : shape.before + blocks * block]
    hidden = hidden.reshape(rows, blocks, block, -1)[:, :, index]
    is_target = jnp.arange(shape.target) < problem.num_target
    targets = problem.tail[jnp.minimum(index + 1 - length, shape.tail - 1)]
    hidden = hidden.reshape(rows, blocks * shape.target, -1)
    weights = jnp.tile(is_target.astype(jnp.float32), (rows, blocks))
    head = transformer.output_embedding(params, config)
    chunks = -(-weights.size * len(head) * 4 // _LOGITS_BYTES)
    logps = token_logps(
        hidden, head, jnp.tile(targets, (rows, blocks)), chunks, vocab_size, weights
    )
    summed = jnp.sum((logps * weights).reshape(rows, blocks, -1), axis=-1)
    return -summed / problem.num_target


def _layout(
    shape: GcgShape, problem: GcgProblem, suffixes: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Tokens, positions and ends `[R, T]` of rows with suffixes `[R, C, n]`.

    `ends` is where the subtree of a token ends: of what is before the suffixes that of the row, of
    a block its own end, and of padding 0, so that nothing but itself sees it.
    """
    rows, blocks, length = suffixes.shape
    block, total = length + shape.tail, shape.row(blocks)
    tail = jnp.broadcast_to(problem.tail, (rows, blocks, shape.tail))
    before = jnp.broadcast_to(problem.before, (rows, shape.before))
    inner = jnp.concatenate([suffixes, tail], axis=-1).reshape(rows, blocks * block)
    padding = ((0, 0), (0, total - shape.before - blocks * block))
    tokens = jnp.pad(jnp.concatenate([before, inner], axis=1), padding)

    index = jnp.arange(total)
    inside = (index - shape.before) % block
    number = (index - shape.before) // block
    is_before = index < shape.before
    positions = jnp.where(is_before, index, problem.num_before + inside)
    own_end = shape.before + (number + 1) * block
    is_real = jnp.where(
        is_before,
        index < problem.num_before,
        (inside < length + problem.num_tail) & (number < blocks),
    )
    ends = jnp.where(is_real, jnp.where(is_before, total, own_end), 0)
    return tokens, jnp.broadcast_to(positions, tokens.shape), jnp.broadcast_to(ends, tokens.shape)


def _drawn(
    shape: GcgShape, allowed: jax.Array, suffix: jax.Array, gradient: jax.Array, key: jax.Array
) -> jax.Array:
    """Candidates `[N, n]`: one token of the suffix replaced by one of the steepest descents."""
    places = jnp.arange(shape.length)
    gradient = gradient[:, : len(allowed)]  # without the padding of the vocabulary
    gradient = jnp.where(allowed, gradient, jnp.inf).at[places, suffix].set(jnp.inf)
    _, steepest = jax.lax.top_k(-gradient, shape.top_k)
    of_place, of_rank = jax.random.split(key)
    place = jax.random.randint(of_place, (shape.candidates,), 0, shape.length)
    rank = jax.random.randint(of_rank, (shape.candidates,), 0, shape.top_k)
    copies = jnp.tile(suffix, (shape.candidates, 1))
    return copies.at[jnp.arange(shape.candidates), place].set(steepest[place, rank])


def _up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple
