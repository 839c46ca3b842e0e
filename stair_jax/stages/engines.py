"""The decoding engine of a stage that samples from an earlier stage's model."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stair_jax.decoding.engine import Engine
from stair_jax.models import huggingface
from stair_jax.text.tokenizer import Tokenizer


def load_engine(
    hf: Path, context_tokens: int, dtype: str, runtime: Mapping[str, Any]
) -> tuple[Engine, Tokenizer]:
    """An engine over the model in a Hugging Face folder, and its tokenizer.

    Args:
      hf: the folder.
      context_tokens: most tokens of a sequence, prompt and answer.
      dtype: of weights and activations.
      runtime: `config.runtime`: `slots` (sequences decoded side by side), `prefill_rows`
        (prompts of one prefill), `steps_per_call` (tokens between two looks at the results).
    """
    config = dataclasses.replace(huggingface.load_config(hf), dtype=dtype, param_dtype=dtype)
    engine = Engine(
        config,
        huggingface.load_params(hf, config),
        num_slots=runtime.get("slots", 64),
        max_length=context_tokens,
        prefill_rows=runtime.get("prefill_rows", 8),
        steps_per_call=runtime.get("steps_per_call", 8),
    )
    return engine, Tokenizer.load(hf)
