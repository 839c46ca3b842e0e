"""A byte tokenizer, and engines whose samples are a plain function of tokens and key."""

import pytest

from stair_jax.testing.scripted_engine import RandomReplies, ScriptedEngine
from stair_jax.testing.tiny_tokenizers import byte_tokenizer


@pytest.fixture(scope="session")
def tokenizer():
    return byte_tokenizer()


@pytest.fixture
def make_engine(tokenizer):
    """Makes scripted engines that complete some requests at a time, in mixed order."""

    def make(disorder=0, p_end=0.35, **limits):
        return ScriptedEngine(RandomReplies(tokenizer, p_end), disorder=disorder, **limits)

    return make
