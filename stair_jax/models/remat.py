"""What the layers keep for the backward pass, and what they compute again: policies by name."""

from collections.abc import Callable
from typing import Any

import jax

Policy = Callable[..., Any]

# Names that a layer gives to its input and its intermediate results.
INPUT = "input"
QUERY, KEY, VALUE = "query", "key", "value"
ATTENTION = "attention"  # given by the backend, which may keep its log-sum-exp with it
MIDDLE = "middle"  # the hidden states between attention and MLP
GATE, UP = "gate", "up"

_PROJECTIONS = (QUERY, KEY, VALUE)
# cuDNN's attention, whose results cannot be given names.
_CUDNN = "dot_product_attention_fwd_wrapper"


def get_policy(name: str) -> Policy | None:
    """The policy for `jax.checkpoint` of one of `config.REMAT_POLICIES` that is not "none"."""
    return _POLICIES[name]


def _is_cudnn(primitive: Any, *_: Any, **__: Any) -> bool:
    return primitive.name == _CUDNN


def _keep(*names: str) -> Policy:
    policies = jax.checkpoint_policies
    return policies.save_from_both_policies(policies.save_only_these_names(*names), _is_cudnn)


_POLICIES: dict[str, Policy | None] = {
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
