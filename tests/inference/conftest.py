"""A byte tokenizer, and scripted engines whose handles are counted."""

import pytest

from stair_jax.testing.scripted_engine import RandomReplies, ScriptedEngine
from stair_jax.testing.tiny_tokenizers import byte_tokenizer


@pytest.fixture(scope="session")
def tokenizer():
    return byte_tokenizer()


@pytest.fixture
def make_engine(tokenizer):
    """Factory of scripted engines; at the end of a test no handle may be left unreleased."""
    made = []

    def make(disorder=0, p_end=0.35):
        made.append(ScriptedEngine(RandomReplies(tokenizer, p_end), disorder=disorder))
        return made[-1]

    yield make
    assert not any(engine.handles for engine in made)
