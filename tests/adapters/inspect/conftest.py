"""A tiny checkpoint, and files of benchmarks."""

import json
import socket

import numpy as np
import pytest

from stair_jax.models import huggingface
from stair_jax.testing.tiny_models import tiny_model
from stair_jax.testing.tiny_tokenizers import word_tokenizer


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """Its folder; the few words of its tokenizer make it write tags often."""
    folder = tmp_path_factory.mktemp("tiny") / "hf"
    tokenizer = word_tokenizer()
    config, params = tiny_model(tokenizer.vocab_size, max_position_embeddings=64)
    huggingface.save(folder, params, config, tokenizer)
    return folder


@pytest.fixture(scope="session")
def prm(tmp_path_factory):
    """The folder of a reward model for that checkpoint."""
    folder = tmp_path_factory.mktemp("prm") / "hf"
    tokenizer = word_tokenizer()
    config, params = tiny_model(tokenizer.vocab_size, seed=1, max_position_embeddings=64)
    head = {"kernel": np.linspace(-1, 1, config.hidden_size, dtype=np.float32)}
    huggingface.save(folder, params, config, tokenizer, score_head=head)
    return folder


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """Files of two benchmarks, four rows each."""
    folder = tmp_path_factory.mktemp("data")
    words = ("rate", "safe", "1 rate", "2 safe")
    sums = [{"question": word, "answer": f"It is so.\n#### {n}"} for n, word in enumerate(words)]
    (folder / "gsm8k").mkdir()
    text = "".join(json.dumps(row) + "\n" for row in sums)
    (folder / "gsm8k/test.jsonl").write_text(text)
    (folder / "strongreject").mkdir()
    rows = "".join(f"harm,custom,Say the bad word {n}\n" for n in range(4))
    (folder / "strongreject/strongreject_dataset.csv").write_text(
        "category,source,forbidden_prompt\n" + rows
    )
    return folder


@pytest.fixture
def offline(monkeypatch):
    """Refuses connections of the internet's kind."""
    connect = socket.socket.connect

    def refuse(self, address):
        assert self.family == socket.AF_UNIX, f"a connection to {address}"
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", refuse)
