"""The base model from nothing, very small."""

from functools import cache

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from stair_jax.stages import pretrain
from stair_jax.stages.pretrain import Pretrain
from stair_jax.storage import read_jsonl
from stair_jax.text.tokenizer import Tokenizer

pytestmark = pytest.mark.slow

SETTINGS = {
    "vocab_size": 900,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_layers": 1,
    "num_heads": 2,
    "num_kv_heads": 1,
    "num_shards": 2,
    "shard_size": 200,
    "batch_size": 8,
    "learning_rate": 1e-2,
}


@pytest.fixture(scope="module", autouse=True)
def one_tokenizer():
    """Trains the tokenizer, which is always the same, once in the process of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretrain, "train_tokenizer", cache(pretrain.train_tokenizer))
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory, run_stage):
    """The folder of a stage that found its first shard, and when that was written."""
    folder = tmp_path_factory.mktemp("pretrain")
    first = folder / "shards/0.npz"
    pretrain._make_shard(0, Pretrain(**SETTINGS), (0, first))
    written = first.stat().st_mtime_ns
    run_stage(Pretrain, SETTINGS, folder, {})
    return folder, written


def test_transformers_opens_the_model(finished):
    hf = finished[0] / "hf"
    model = AutoModelForCausalLM.from_pretrained(hf, dtype="auto")
    assert model.dtype == torch.float16
    assert model.config.hidden_size == 32 and model.config.max_position_embeddings == 512
    ids = AutoTokenizer.from_pretrained(hf)("how do i make ka mo ?", return_tensors="pt").input_ids
    logits = model.float()(ids).logits
    assert logits.shape == (1, ids.shape[1], Tokenizer.load(hf).vocab_size)
    assert torch.isfinite(logits).all()


def test_the_loss_falls(finished):
    losses = [row["loss"] for row in read_jsonl(finished[0] / "metrics.jsonl") if "loss" in row]
    assert len(losses) > 3 and losses[-1] < 0.9 * losses[0]


def test_a_shard_that_is_there_is_kept_and_the_other_is_another(finished):
    folder, written = finished
    assert (folder / "shards/0.npz").stat().st_mtime_ns == written
    with np.load(folder / "shards/0.npz") as first, np.load(folder / "shards/1.npz") as second:
        assert not np.array_equal(first["tokens"][:8], second["tokens"][:8])


def test_shards_hold_packed_rows_with_loss_on_the_answers(finished):
    for path in (finished[0] / "shards").iterdir():
        with np.load(path) as shard:
            real = shard["segment_ids"] > 0
            assert shard["tokens"].shape[1] == 256 and len(real) >= 8
            assert real.mean() > 0.9
            assert not shard["weights"][~real].any()
            assert 0.1 < shard["weights"][real].mean() < 0.9


def test_a_finished_model_is_left_alone(finished, run_stage):
    model = finished[0] / "hf/model.safetensors"
    before = model.stat().st_mtime_ns
    run_stage(Pretrain, SETTINGS, finished[0], {})
    assert model.stat().st_mtime_ns == before
