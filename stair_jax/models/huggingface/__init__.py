"""Hugging Face folders, import and export: safetensors, config, tokenizer, generation config."""

from stair_jax.models.huggingface.adapter_loading import load_adapters
from stair_jax.models.huggingface.adapter_saving import copy_adapter, save_adapter
from stair_jax.models.huggingface.hub import adapter_base
from stair_jax.models.huggingface.loading import load_config, load_params, stored_dtype
from stair_jax.models.huggingface.saving import save
from stair_jax.models.huggingface.score_heads import (
    has_score_head,
    load_label_head,
    load_labels,
    load_pad_id,
    load_score_head,
)

__all__ = [
    "adapter_base",
    "copy_adapter",
    "has_score_head",
    "load_adapters",
    "load_config",
    "load_label_head",
    "load_labels",
    "load_pad_id",
    "load_params",
    "load_score_head",
    "save",
    "save_adapter",
    "stored_dtype",
]
