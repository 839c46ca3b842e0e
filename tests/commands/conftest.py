"""Tiny models that the commands `answer` and `chat` load."""

from types import SimpleNamespace

import jax
import pytest


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory, chat_tokenizer):
    """Folders of a language model and of a reward model, random, of a context of 128 tokens."""
    from stair_jax.models import huggingface
    from stair_jax.testing.tiny_models import tiny_model

    folder = tmp_path_factory.mktemp("models")
    shape = {"num_hidden_layers": 1, "max_position_embeddings": 128}
    config, params = tiny_model(chat_tokenizer.vocab_size, **shape)
    huggingface.save(folder / "sft/hf", params, config, chat_tokenizer)
    head = {"kernel": jax.random.normal(jax.random.key(1), (config.hidden_size,))}
    huggingface.save(folder / "prm/hf", params, config, chat_tokenizer, head)
    return SimpleNamespace(model=str(folder / "sft"), prm=str(folder / "prm"), folder=folder)


@pytest.fixture(autouse=True)
def no_users_cache(monkeypatch):
    """Commands keep no compiled programs in the home of whoever runs the tests."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
