"""Log-likelihoods are those of transformers, whatever else is in the batch."""

import numpy as np
import pytest
import torch
import transformers
from jax.sharding import Mesh

from stair_jax.decoding.driver import Driver, run_tasks
from stair_jax.decoding.no_engine import NoEngine
from stair_jax.errors import UserError
from stair_jax.inference import likelihood
from stair_jax.inference.likelihood import (
    LikelihoodRequest,
    LikelihoodScorer,
    LikelihoodService,
    LikelihoodTask,
    chat_likelihoods,
)
from stair_jax.models.huggingface import load_config, load_params
from stair_jax.models.layout import fit_to_mesh
from stair_jax.parallel.mesh import MeshShape, make_mesh

VOCABULARY = 130


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    config = transformers.Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.3,
        tie_word_embeddings=False,
    )
    folder = tmp_path_factory.mktemp("qwen2")
    transformers.Qwen2ForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def reference(folder):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def score(tokens, start):
        with torch.no_grad():
            logits = model(torch.tensor([tokens])).logits[0, start - 1 : -1]
        logps, scored = torch.log_softmax(logits, -1), torch.tensor(tokens[start:])
        is_greedy = bool((logits.argmax(-1) == scored).all())
        return logps.gather(-1, scored[:, None])[:, 0].numpy(), is_greedy

    def greedy(tokens, count):
        with torch.no_grad():
            for _ in range(count):
                tokens = [*tokens, int(model(torch.tensor([tokens])).logits[0, -1].argmax())]
        return tokens

    score.greedy = greedy
    return score


def make_scorer(folder, mesh: Mesh | None = None):
    config = load_config(folder)
    config = config if mesh is None else fit_to_mesh(config, mesh, 16)
    return LikelihoodScorer(config, load_params(folder, config, mesh), mesh, batch_tokens=256)


@pytest.fixture(scope="module")
def cases(reference):
    """(tokens, start): lengths around a power of two, and some that greedy decoding gives."""
    rng = np.random.default_rng(0)
    lengths = (2, 3, 17, 63, 64, 65, 90, 128, 129)
    cases = [(rng.integers(0, VOCABULARY, n).tolist(), int(rng.integers(1, n))) for n in lengths]
    return cases + [(reference.greedy(tokens[:start], 5), start) for tokens, start in cases[:4]]


@pytest.mark.parametrize("shape", [None, MeshShape(2, 2, 2)], ids=str)
@pytest.mark.parametrize("logits_bytes", [2**28, 2**15], ids=["one chunk", "several chunks"])
def test_they_are_those_of_transformers(folder, reference, cases, shape, logits_bytes, monkeypatch):
    monkeypatch.setattr(likelihood, "_LOGITS_BYTES", logits_bytes)
    scorer = make_scorer(folder, None if shape is None else make_mesh(shape))
    service = LikelihoodService(scorer)
    service.submit(LikelihoodRequest((n,), tuple(case[0]), case[1]) for n, case in enumerate(cases))
    found = {}
    while service.pending:
        found |= {completion.id: completion for completion in service.step()}
    for number, case in enumerate(cases):
        logps, is_greedy = reference(*case)
        completion = found[(number,)]
        np.testing.assert_allclose(completion.logps, logps, atol=1e-4)
        assert completion.is_greedy == is_greedy
        assert completion.total == pytest.approx(float(logps.sum()), abs=1e-3)
    assert sum(completion.is_greedy for completion in found.values()) >= 4


def test_they_do_not_depend_on_what_else_is_in_the_batch(folder, cases):
    scorer = make_scorer(folder)
    together = [
        completion
        for completion in run_tasks(
            Driver(NoEngine(), scorer.services), (LikelihoodTask(*case) for case in cases)
        )
    ]
    for case, expected in zip(cases, together, strict=True):
        (alone,) = run_tasks(Driver(NoEngine(), scorer.services), [LikelihoodTask(*case)])
        assert alone == expected


def test_choices_are_summed_in_their_order(folder, reference):
    prompt, choices = [1, 2, 3], [(4,), (9, 8, 7), (4, 5)]
    driver = Driver(NoEngine(), make_scorer(folder).services)
    found, none = run_tasks(
        driver, [chat_likelihoods(prompt, choices), chat_likelihoods(prompt, [])]
    )
    expected = [reference([*prompt, *choice], 3)[0].sum() for choice in choices]
    assert found == pytest.approx(expected, abs=1e-4) and none == ()


def test_batches_hold_no_more_tokens_than_were_asked_for(folder):
    scorer = make_scorer(folder)
    buckets = [scorer.bucket(length) for length in (1, 64, 65, 256, 257, 1000)]
    assert buckets == [64, 64, 128, 256, 512, 1024]
    assert [scorer.rows(bucket) for bucket in buckets] == [4, 4, 2, 1, 1, 1]


@pytest.mark.parametrize("start", [0, 3])
def test_a_request_needs_a_token_before_those_that_are_scored(start):
    with pytest.raises(UserError, match="at least one token to score, and one before it"):
        LikelihoodRequest((), (1, 2, 3), start)
