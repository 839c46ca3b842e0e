"""Floating-point operations of a model by hand: of matrix products, a multiply and an add each.

2 N a token forward, with N the parameters of the layers' kernels, 2 D V for each position whose
logits are needed, and the two products of attention with the keys that a token sees. A backward
pass costs twice the forward pass; what remat computes again, norms, softmax, sampling and the
optimizer are not counted. They are work that has to be done, so that FLOPs / (chips x peak) is a
bound from below on the time of a step, and its share of the time measured is the model FLOPs
utilization (MFU; Chowdhery et al. 2022, appendix B).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from stair_jax.models.config import ModelConfig


@dataclass(frozen=True)
class Rows:
    """Rows of tokens that go through a model, each of one segment.

    Attributes:
      count: rows.
      length: tokens a row.
      logits: positions a row whose logits over the vocabulary are needed.
    """

    count: int
    length: int
    logits: int = 0


def layer_params(config: ModelConfig) -> int:
    """Parameters of the kernels of all layers: what a token is multiplied with."""
    heads = 2 * config.num_attention_heads + 2 * config.num_key_value_heads
    attention = heads * config.head_dim * config.hidden_size
    mlp = 3 * config.hidden_size * config.intermediate_size
    return config.num_hidden_layers * (attention + mlp)


def forward_flops(config: ModelConfig, rows: Rows) -> int:
    """Of a forward pass over whole sequences."""
    tokens = rows.count * rows.length
    seen = rows.count * rows.length * (rows.length + 1) // 2  # a token sees itself too
    return _forward(config, tokens, seen, rows.count * rows.logits)


def training_flops(config: ModelConfig, rows: Rows) -> int:
    """Of forward and backward pass: 6 N a token, and three times the attention."""
    return 3 * forward_flops(config, rows)


def micro_training_flops(
    config: ModelConfig, micro: Mapping[str, np.ndarray], head: bool = True
) -> int:
    """Of forward and backward pass over packed rows, without what padding costs.

    Args:
      config: of the model.
      micro: segment_ids, weights and perhaps ends (see `seen_pairs`), each `[..., T]`.
      head: whether the loss needs the logits of the positions that have a weight.
    """
    segment_ids = micro["segment_ids"]
    tokens = int(np.count_nonzero(segment_ids))
    seen = seen_pairs(segment_ids, micro.get("ends"))
    logits = int(np.count_nonzero(micro["weights"])) if head else 0
    return 3 * _forward(config, tokens, seen, logits)


def seen_pairs(segment_ids: np.ndarray, ends: np.ndarray | None = None) -> int:
    """Pairs (token, token that it sees) in packed rows; each token sees itself.

    Args:
      segment_ids: `[..., T]`; equal neighbours are one segment, 0 is padding.
      ends: `[..., T]`, where rows hold trees: the first position behind those that see a token.
    """
    ids = np.asarray(segment_ids)
    place = np.arange(ids.shape[-1])
    last = np.ones(ids.shape, bool)
    last[..., :-1] = ids[..., 1:] != ids[..., :-1]
    # The position behind the segment of each token: the nearest last one from its right.
    behind = np.where(last, place + 1, ids.shape[-1])
    behind = np.minimum.accumulate(behind[..., ::-1], axis=-1)[..., ::-1]
    if ends is not None:
        behind = np.minimum(behind, ends)
    return int(np.sum(np.maximum(behind - place, 1), where=ids > 0))


def decode_flops(config: ModelConfig, slots: int, context: int, steps: int) -> int:
    """Of `steps` tokens in each slot, each of which sees `context` tokens."""
    tokens = slots * steps
    return _forward(config, tokens, tokens * context, tokens)


def _forward(config: ModelConfig, tokens: int, seen: int, logits: int) -> int:
    """Of so many tokens, pairs of tokens in attention, and positions with logits."""
    width = config.num_attention_heads * config.head_dim
    attention = 4 * config.num_hidden_layers * width * seen  # queries, keys; weights, values
    head = 2 * config.vocab_size * config.hidden_size * logits
    return 2 * layer_params(config) * tokens + attention + head
