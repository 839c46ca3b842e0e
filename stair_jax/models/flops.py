"""Analytic FLOPs of a model: matrix products only, a multiply and an add counted as two.

A forward pass takes 2 N per token, with N the number of parameters in the layers' kernels, 2 D V
for each position whose logits are needed, and the two products of attention over the visible
tokens. A backward pass takes twice as much. Where adapters are trained (LoRA), kernels and head
have no gradients of their own, and their part of the backward pass takes no more than that of the
forward pass; adapters are counted as kernels otherwise are. Rematerialization, norms, softmax,
sampling and the optimizer are not counted. FLOPs / (chips x peak) is therefore a lower bound of the
time of a step, and its ratio to the measured time is the model FLOPs utilization (MFU; Chowdhery et
al. 2022, appendix B).

XLA's own `cost_analysis` is not used: it counts the body of a scan once.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from stair_jax.models.config import ModelConfig


@dataclass(frozen=True)
class RowShape:
    """Rows of tokens, one segment each.

    Attributes:
        count: number of rows.
        length: tokens per row.
        logits: positions per row whose logits are needed.
    """

    count: int
    length: int
    logits: int = 0


def layer_params(config: ModelConfig) -> int:
    """Number of parameters in the kernels of all layers."""
    heads = 2 * config.num_attention_heads + 2 * config.num_key_value_heads
    attention = heads * config.head_dim * config.hidden_size
    mlp = 3 * config.hidden_size * config.intermediate_size
    return config.num_hidden_layers * (attention + mlp)


def adapter_params(config: ModelConfig) -> int:
    """Number of parameters in the adapters of all layers."""
    if config.lora is None:
        return 0
    embed, mlp = config.hidden_size, config.intermediate_size
    queries = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    sizes = {
        "query": embed + queries,
        "key": embed + keys,
        "value": embed + keys,
        "out": queries + embed,
        "gate": embed + mlp,
        "up": embed + mlp,
        "down": mlp + embed,
    }
    each = sum(sizes[name] for name in config.lora.targets)
    return config.num_hidden_layers * config.lora.rank * each


def forward_flops(config: ModelConfig, rows: RowShape) -> int:
    """FLOPs of a forward pass over whole sequences."""
    tokens = rows.count * rows.length
    seen = rows.count * rows.length * (rows.length + 1) // 2  # a token sees itself too
    return _forward(config, tokens, seen, rows.count * rows.logits)


def training_flops(config: ModelConfig, rows: RowShape) -> int:
    """FLOPs of a forward and backward pass: 6 N per token, and three times the attention.

    With adapters: 4 N, and 6 for each parameter of these.
    """
    tokens, logits = rows.count * rows.length, rows.count * rows.logits
    return 3 * forward_flops(config, rows) - _without_gradients(config, tokens, logits)


def micro_training_flops(
    config: ModelConfig, micro: Mapping[str, np.ndarray], head: bool = True
) -> int:
    """FLOPs of a forward and backward pass over packed rows, without those spent on padding.

    Args:
        config: the model config.
        micro: segment_ids, weights and optionally ends (see `seen_pairs`), each [..., T].
        head: whether the loss needs logits at the positions that have a weight.
    """
    segment_ids = micro["segment_ids"]
    tokens = int(np.count_nonzero(segment_ids))
    seen = seen_pairs(segment_ids, micro.get("ends"))
    logits = int(np.count_nonzero(micro["weights"])) if head else 0
    whole = 3 * _forward(config, tokens, seen, logits)
    return whole - _without_gradients(config, tokens, logits)


def seen_pairs(segment_ids: np.ndarray, ends: np.ndarray | None = None) -> int:
    """Number of pairs (token, token that it attends to) in packed rows.

    Args:
        segment_ids: [..., T]; equal neighbours form a segment, 0 is padding.
        ends: [..., T], for rows that hold trees: the first position behind the descendants of each
            token.
    """
    ids = np.asarray(segment_ids)
    place = np.arange(ids.shape[-1])
    last = np.ones(ids.shape, bool)
    last[..., :-1] = ids[..., 1:] != ids[..., :-1]
    # The first position behind each token's segment: a running minimum from the right.
    behind = np.where(last, place + 1, ids.shape[-1])
    behind = np.minimum.accumulate(behind[..., ::-1], axis=-1)[..., ::-1]
    if ends is not None:
        behind = np.minimum(behind, ends)
    # Counted by the token that is seen: those between it and `behind` see it, itself at least.
    return int(np.sum(np.maximum(behind - place, 1), where=ids > 0))


def decode_flops(config: ModelConfig, slots: int, context: int, steps: int) -> int:
    """FLOPs of decoding `steps` tokens in each slot, each of which attends to `context` tokens."""
    tokens = slots * steps
    return _forward(config, tokens, tokens * context, tokens)


def _forward(config: ModelConfig, tokens: int, seen: int, logits: int) -> int:
    """FLOPs of a forward pass by numbers of tokens, attended pairs, and positions with logits."""
    width = config.num_attention_heads * config.head_dim
    attention = 4 * config.num_hidden_layers * width * seen  # query-key and weight-value products
    kernels = 2 * (layer_params(config) + adapter_params(config)) * tokens
    return kernels + attention + _head(config, logits)


def _head(config: ModelConfig, logits: int) -> int:
    return 2 * config.vocab_size * config.hidden_size * logits


def _without_gradients(config: ModelConfig, tokens: int, logits: int) -> int:
    """FLOPs of the gradients of kernels and head, where these are frozen."""
    if config.lora is None:
        return 0
    return 2 * layer_params(config) * tokens + _head(config, logits)
