"""Rematerialization policies by name: what layers save for the backward pass."""

from collections.abc import Callable
from typing import Any

import jax

Policy = Callable[..., Any]

# Names by `checkpoint_name` of a layer's input and intermediate results.
INPUT = "input"
QUERY, KEY, VALUE = "query", "key", "value"
ATTENTION = "attention"  # named by the backend, possibly with its log-sum-exp
MIDDLE = "middle"  # hidden states between attention and MLP
GATE, UP = "gate", "up"
PRODUCT = "product"  # with a kernel and its adapter, of models that have adapters
LOW = "low"  # the inputs of an adapter's second half: as many numbers a token as its rank

_PROJECTIONS = (QUERY, KEY, VALUE)
# cuDNN's attention is one primitive whose residuals cannot be named: recognized by its own name.
_CUDNN = "dot_product_attention_fwd_wrapper"


def get_policy(name: str, has_adapters: bool = False) -> Policy | None:
    """The policy for `jax.checkpoint`.

    Args:
        name: one of `config.REMAT_POLICIES` except "none".
        has_adapters: whether the model has adapters. What is small of them is then saved; and
            "dots" saves the sum of the products with a kernel and with its adapter, not both.
    """
    return (_WITH_ADAPTERS if has_adapters else _POLICIES)[name]


def _is_cudnn(primitive: Any, *_: Any, **__: Any) -> bool:
    return primitive.name == _CUDNN


def _keep(*names: str) -> Policy:
    policies = jax.checkpoint_policies
    return policies.save_from_both_policies(policies.save_only_these_names(*names), _is_cudnn)


_POLICIES: dict[str, Policy | None] = {
    # No policy: `jax.checkpoint` saves the inputs of the layer only.
    "full": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "attention": _keep(*_PROJECTIONS, ATTENTION),
    "attention_mlp": _keep(*_PROJECTIONS, ATTENTION, MIDDLE, GATE, UP),
    "offload": jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=[INPUT],
        offload_src="device",
        offload_dst="pinned_host",
    ),
}
_WITH_ADAPTERS = _POLICIES | {
    "dots": jax.checkpoint_policies.save_only_these_names(PRODUCT, LOW),
    "attention": _keep(*_PROJECTIONS, ATTENTION, LOW),
    "attention_mlp": _keep(*_PROJECTIONS, ATTENTION, MIDDLE, GATE, UP, LOW),
}
