"""Greedy decoding gives the same tokens as transformers."""

from pathlib import Path

import pytest
import torch
import transformers

from stair_jax.decoding.driver import run_all
from stair_jax.decoding.engine import Engine
from stair_jax.decoding.requests import Request, Sampling
from stair_jax.models.huggingface import load_config, load_params

ROOT = Path(__file__).parents[2]
TRAINED = [ROOT / "stair_jax/pocket/base", ROOT.parent / "shared/data/stories260K"]
NUM_TOKENS = 24
PROMPTS = [(1,), (1, 403, 407, 261, 378), tuple(range(1, 24)), (1, 5, 9), (2, 2, 2, 2)]


def reference(model, prompt):
    with torch.no_grad():
        ids = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=NUM_TOKENS,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
    return tuple(ids[0, len(prompt) :].tolist())


def check_greedy_continuations(folder):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    config = load_config(folder)
    engine = Engine(config, load_params(folder, config), num_slots=4, max_length=64, prefill_rows=2)
    sampling = Sampling(temperature=0.0, max_tokens=NUM_TOKENS)
    requests = [Request(prompt, prompt, sampling=sampling) for prompt in PROMPTS]
    completions = run_all(engine, requests)
    for prompt in PROMPTS:
        assert completions[prompt].tokens == reference(model, prompt)


@pytest.mark.parametrize("family", ["Llama", "Mistral", "Phi3", "Gemma"])
def test_a_random_model(family, tmp_path):
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(
        vocab_size=512,
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.2,
        tie_word_embeddings=False,
        pad_token_id=0,
    )
    getattr(transformers, f"{family}ForCausalLM")(config).save_pretrained(tmp_path)
    check_greedy_continuations(tmp_path)


@pytest.mark.parametrize("folder", TRAINED, ids=["pocket", "stories260K"])
def test_a_trained_checkpoint(folder):
    if not (folder / "model.safetensors").is_file():
        pytest.skip(f"there is no checkpoint at {folder}")
    check_greedy_continuations(folder)
