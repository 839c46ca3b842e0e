"""A tiny model as a target that shows its tokens, log-probabilities and weights."""

import pytest

from stair_jax.decoding.engine import Engine
from stair_jax.evaluation.local_target import ChatEncoder, LocalTarget
from stair_jax.evaluation.target import Weights
from stair_jax.inference.answers import Answering
from stair_jax.inference.candidates import TestTimeSettings
from stair_jax.testing.tiny_models import tiny_model
from stair_jax.testing.tiny_tokenizers import bpe_tokenizer


class NotingTarget(LocalTarget):
    """Notes the chats that are scored and asked."""

    def __init__(self, is_structured=True):
        tokenizer = bpe_tokenizer()
        config, params = tiny_model(tokenizer.vocab_size)
        self.engine = Engine(
            config, params, num_slots=4, max_length=256, prefill_rows=4, prefill_width=64
        )
        settings = TestTimeSettings(max_answer_tokens=3, max_step_tokens=3)
        answering = Answering(self.engine, tokenizer, settings, 0, 256)
        weights = Weights(config, params)
        super().__init__(
            "tiny", ChatEncoder(tokenizer, is_structured), {False: answering}, weights=weights
        )
        self.scored, self.asked = [], []

    def ask(self, asked, key, method="greedy"):
        self.asked.append((asked, key))
        return super().ask(asked, key, method)

    def score_first(self, messages, texts, place="answer"):
        self.scored.append((messages, texts, place))
        return super().score_first(messages, texts, place)


@pytest.fixture(scope="session")
def shared_target():
    return NotingTarget()


@pytest.fixture
def target(shared_target):
    shared_target.scored, shared_target.asked = [], []
    return shared_target
