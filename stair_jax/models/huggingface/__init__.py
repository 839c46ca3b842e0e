"""Hugging Face folders, import and export: safetensors, config, tokenizer, generation config."""

from stair_jax.models.huggingface.loading import (
    has_score_head,
    load_config,
    load_params,
    load_score_head,
    stored_dtype,
)
from stair_jax.models.huggingface.saving import save

__all__ = [
    "has_score_head",
    "load_config",
    "load_params",
    "load_score_head",
    "save",
    "stored_dtype",
]
