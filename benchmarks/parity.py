"""How closely the models here agree with transformers: `python -m benchmarks.parity [FOLDER ...]`.

One JSON line a model: random ones of each family, the pocket world's base, and the folders that are
named. The
figures, over the real tokens of a batch:

    padded_hidden, padded_logits   largest absolute difference in float32, rows padded on the right
    packed_hidden, packed_logits   the same for the rows packed into one, against rows of their own
    greedy_equal, greedy_of        tokens of greedy continuations by the engine that are equal
    kl_bfloat16                    mean KL(float32 || bfloat16) of next-token distributions, nats
    kl_bfloat16_transformers       the same of transformers, computing in its own bfloat16

Random models are 4 layers of 256, with norms that are not one and biases that are not zero. Their
contexts before rope scaling are shorter than the rows. Needs the extra `dev`.
"""

import dataclasses
import json
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from transformers import (
    AutoModelForCausalLM,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from stair_jax.decoding.driver import run_all
from stair_jax.decoding.engine import Engine
from stair_jax.decoding.requests import Request, Sampling
from stair_jax.models.config import ModelConfig
from stair_jax.models.huggingface import load_config, load_params
from stair_jax.models.transformer import Params, apply, output_embedding

ROOT = Path(__file__).parents[1]
POCKET = ROOT / "stair_jax/pocket/base"
LENGTHS = (120, 1, 33, 77)
PROMPT, CONTINUATION, PROMPTS = 64, 64, 4

_SIZES = {
    "vocab_size": 1000,
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    # Activations keep their size from layer to layer, and logits have a spread of about one.
    "initializer_range": 256**-0.5,
    "tie_word_embeddings": False,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
_TIED = {"tie_word_embeddings": True}
_LLAMA3_ROPE = {
    "rope_parameters": {
        "rope_type": "llama3",
        "rope_theta": 10000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    }
}
_YARN_ROPE = {
    "rope_parameters": {
        "rope_type": "yarn",
        "rope_theta": 10000.0,
        "factor": 4.0,
        "original_max_position_embeddings": 32,
        "attention_factor": 1.3,
    }
}
FAMILIES: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(**_SIZES),
    "llama3": LlamaConfig(**_SIZES | _LLAMA3_ROPE),
    "llama3_tied": LlamaConfig(**_SIZES | _LLAMA3_ROPE | _TIED),
    "qwen2": Qwen2Config(**_SIZES),
    "qwen2_tied": Qwen2Config(**_SIZES | _TIED),
    "qwen3": Qwen3Config(**_SIZES | {"head_dim": 48}),
    "qwen3_yarn": Qwen3Config(**_SIZES | _YARN_ROPE | {"head_dim": 48}),
    "mistral": MistralConfig(**_SIZES | {"head_dim": 48, "sliding_window": None}),
    "phi3": Phi3Config(**_SIZES),
    "gemma": GemmaConfig(**_SIZES | _TIED | {"head_dim": 48}),
}


class TokenBatch(NamedTuple):
    """Tokens, positions and segment ids, `[B, T]` each; segment 0 is padding."""

    tokens: Any
    positions: Any
    segment_ids: Any


def main() -> None:
    """Prints the figures of every model."""
    for name, config in FAMILIES.items():
        with tempfile.TemporaryDirectory() as folder:
            random_model(config).save_pretrained(folder)
            report(name, Path(folder))
    for path in (POCKET, *map(Path, sys.argv[1:])):
        report(path.name if path != POCKET else "pocket", path)


def random_model(config: PretrainedConfig) -> Any:
    """A random transformers model of that config."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    added = 1.0 if config.model_type == "gemma" else 0.0  # by its norms to their scales
    for name, values in model.named_parameters():
        if "norm" in name:
            values.data.uniform_(0.5 - added, 1.5 - added)
        elif "bias" in name:
            values.data.uniform_(-1.0, 1.0)
    return model


def report(name: str, folder: Path) -> None:
    """Prints the figures of one checkpoint."""
    print(json.dumps({"name": f"parity/{name}", **dict(figures(folder))}), flush=True)


def figures(folder: Path) -> Iterator[tuple[str, float]]:
    """Compares a checkpoint as it is read here and by transformers."""
    config = load_config(folder)
    params = load_params(folder, config)
    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    rng = np.random.default_rng(0)
    batch = padded_batch(rng, config.vocab_size)
    real = batch.segment_ids > 0
    expected = reference_outputs(reference, batch)
    found = forward(config, params, batch)
    packed = forward(config, params, packed_row(batch))
    for label, ours, theirs in zip(("hidden", "logits"), found, expected, strict=True):
        yield f"padded_{label}", _rounded(np.abs(ours - theirs)[real].max())
    for label, ours, theirs in zip(("hidden", "logits"), packed, expected, strict=True):
        yield f"packed_{label}", _rounded(np.abs(ours[0] - theirs[real]).max())

    prompts = rng.integers(0, config.vocab_size, (PROMPTS, PROMPT))
    equal = greedy(config, params, prompts) == reference_greedy(reference, prompts)
    yield "greedy_equal", int(equal.sum())
    yield "greedy_of", equal.size

    half = dataclasses.replace(config, dtype="bfloat16")
    rough = forward(half, params, batch)[1]
    rough_reference = reference_outputs(reference.to(torch.bfloat16), batch)[1]
    yield "kl_bfloat16", _rounded(mean_kl(found[1][real], rough[real]))
    yield "kl_bfloat16_transformers", _rounded(mean_kl(expected[1][real], rough_reference[real]))


def padded_batch(rng: np.random.Generator, vocab_size: int) -> TokenBatch:
    """Rows of `LENGTHS` random tokens, padded on the right; row i is segment i + 1."""
    index = np.arange(max(LENGTHS))
    real = index < np.array(LENGTHS)[:, None]
    tokens = rng.integers(0, vocab_size, real.shape)
    return TokenBatch(
        tokens, np.where(real, index, 0), real * np.arange(1, len(LENGTHS) + 1)[:, None]
    )


def packed_row(batch: TokenBatch) -> TokenBatch:
    """The real tokens of a batch, one after the other in one row."""
    real = batch.segment_ids > 0
    return TokenBatch(*(values[real][None] for values in batch))


def forward(
    config: ModelConfig, params: Params, batch: TokenBatch
) -> tuple[np.ndarray, np.ndarray]:
    """Hidden states after the last norm and logits, as float32."""
    hidden, logits = _forward(config, params, batch)
    return np.asarray(hidden, np.float32), np.asarray(logits)


@partial(jax.jit, static_argnums=0)
def _forward(config: ModelConfig, params: Params, batch: TokenBatch) -> tuple[jax.Array, jax.Array]:
    hidden = apply(config, params, batch.tokens, batch.positions, batch.segment_ids)
    head = output_embedding(params, config).astype(config.dtype)
    return hidden, jnp.einsum("btd,vd->btv", hidden, head, preferred_element_type=jnp.float32)


@torch.no_grad()
def reference_outputs(model: Any, batch: TokenBatch) -> tuple[np.ndarray, np.ndarray]:
    """The same of transformers."""
    mask = torch.tensor((batch.segment_ids > 0).astype(np.int64))
    tokens = torch.tensor(batch.tokens)
    out = model(tokens, attention_mask=mask, output_hidden_states=True)
    return out.hidden_states[-1].float().numpy(), out.logits.float().numpy()


def greedy(config: ModelConfig, params: Params, prompts: np.ndarray) -> np.ndarray:
    """Continuations `[N, CONTINUATION]` of prompts `[N, T]`."""
    count, length = prompts.shape
    engine = Engine(
        config,
        params,
        num_slots=count,
        max_length=length + CONTINUATION,
        attention="gather",  # the only one for float32 on all platforms
    )
    sampling = Sampling(temperature=0.0, max_tokens=CONTINUATION)
    completions = run_all(
        engine,
        [
            Request(index, tuple(prompt.tolist()), sampling=sampling)
            for index, prompt in enumerate(prompts)
        ],
    )
    return np.array([completions[index].tokens for index in range(count)])


def reference_greedy(model: Any, prompts: np.ndarray) -> np.ndarray:
    """The same of transformers; no token ends a continuation."""
    model.generation_config.eos_token_id = None
    out = model.generate(
        torch.tensor(prompts),
        attention_mask=torch.ones(prompts.shape, dtype=torch.long),
        do_sample=False,
        max_new_tokens=CONTINUATION,
    )
    return out[:, prompts.shape[1] :].numpy()


def mean_kl(exact: np.ndarray, rough: np.ndarray) -> float:
    """Mean KL(exact || rough) in nats of the distributions of logits `[N, V]`."""
    p, q = (jax.nn.log_softmax(jnp.asarray(logits)) for logits in (exact, rough))
    return float(jnp.mean(jnp.sum(jnp.exp(p) * (p - q), axis=-1)))


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")


if __name__ == "__main__":
    main()
