"""Hugging Face folders, import and export: safetensors, config, tokenizer, generation config."""

from stair_jax.models.exporting import save
from stair_jax.models.importing import (
    has_score_head,
    load_config,
    load_params,
    load_score_head,
    stored_dtype,
)

__all__ = [
    "has_score_head",
    "load_config",
    "load_params",
    "load_score_head",
    "save",
    "stored_dtype",
]
