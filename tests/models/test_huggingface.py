import json
import shutil

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    LlamaForSequenceClassification,
)

from stair_jax.errors import UserError
from stair_jax.models import huggingface
from stair_jax.models.config import ModelConfig
from stair_jax.models.heads import score
from stair_jax.models.transformer import apply, output_embedding
from stair_jax.text.tokenizer import Tokenizer

TOKENS = np.array([[5, 7, 9, 24, 11], [2, 2, 3, 8, 25]])
POSITIONS = np.tile(np.arange(5), (2, 1))
QUERY = "model.layers.1.self_attn.q_proj.weight"


@pytest.fixture
def damaged(checkpoint, tmp_path):
    """A function that rewrites the tensors of a copy of the checkpoint, and gives its folder."""

    def change(edit):
        shutil.copytree(checkpoint[0], tmp_path / "copy")
        tensors = load_file(tmp_path / "copy/model.safetensors")
        edit(tensors)
        save_file(tensors, tmp_path / "copy/model.safetensors", metadata={"format": "pt"})
        return tmp_path / "copy"

    return change


def load(folder):
    config = huggingface.load_config(folder)
    return huggingface.load_params(folder, config), config


def logits(params, config):
    return apply(config, params, TOKENS, POSITIONS)[0] @ output_embedding(params, config).T


@pytest.mark.parametrize("shard_bytes", [5 * 10**9, 5000])
def test_export_is_the_same_model_in_transformers(checkpoint, tokenizer, tmp_path, shard_bytes):
    params, config = load(checkpoint[0])
    huggingface.save(tmp_path / "out", params, config, tokenizer, shard_bytes=shard_bytes)
    reference, report = AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    with torch.no_grad():
        expected = reference.eval()(torch.tensor(TOKENS)).logits.numpy()
    np.testing.assert_allclose(logits(params, config), expected, atol=1e-4)
    assert reference.generation_config.eos_token_id == tokenizer.eos_id
    assert reference.config.pad_token_id == tokenizer.pad_id

    again, same = load(tmp_path / "out")
    assert same == config
    jax.tree.map(np.testing.assert_array_equal, again, params)
    assert Tokenizer.load(tmp_path / "out").tags == tokenizer.tags
    shards = list((tmp_path / "out").glob("*.safetensors"))
    sizes = [sum(values.nbytes for values in load_file(shard).values()) for shard in shards]
    # No tensor of this model is larger than 5000 bytes.
    assert max(sizes) <= shard_bytes and (len(shards) > 3) == (shard_bytes == 5000)
    assert sum(sizes) == sum(values.nbytes for values in jax.tree.leaves(params))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_tensors_go_in_and_out_byte_for_byte(checkpoint, tokenizer, tmp_path, dtype):
    params, config = load(checkpoint[0])
    huggingface.save(tmp_path / "first", params, config, tokenizer, dtype=dtype)
    huggingface.save(tmp_path / "second", *load(tmp_path / "first"), tokenizer, dtype=dtype)
    first, second = (tmp_path / name / "model.safetensors" for name in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()
    assert load_file(first)[QUERY].dtype == jnp.dtype(dtype)
    original = load_file(checkpoint[0] / "model.safetensors")
    assert load_file(first).keys() == original.keys()
    for name, values in load_file(first).items():
        np.testing.assert_array_equal(values, original[name].astype(jnp.dtype(dtype)))


def test_bfloat16_checkpoint_of_transformers_is_read(checkpoint, tmp_path):
    folder, model = checkpoint
    AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(tmp_path)
    params, _ = load(tmp_path)
    assert params["final_norm"].dtype == jnp.float32
    exact = model.state_dict()["model.embed_tokens.weight"].numpy().astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(params["embedding"], exact.astype(np.float32))


def test_score_head_gives_the_score_of_transformers(checkpoint, tokenizer, tmp_path):
    params, config = load(checkpoint[0])
    head = {"kernel": jax.random.normal(jax.random.key(0), (config.hidden_size,))}
    huggingface.save(tmp_path / "prm", params, config, tokenizer, score_head=head)
    reference, report = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "prm", output_loading_info=True
    )
    assert isinstance(reference, LlamaForSequenceClassification)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    padded = TOKENS.copy()
    padded[1, 3:] = tokenizer.pad_id
    with torch.no_grad():
        expected = reference.eval()(
            torch.tensor(padded), attention_mask=torch.tensor(padded != tokenizer.pad_id).long()
        ).logits[:, 0]
    assert huggingface.has_score_head(tmp_path / "prm")
    loaded, same = load(tmp_path / "prm")
    assert same == config and "head" not in loaded
    hidden, _ = apply(config, loaded, padded, POSITIONS)
    found = score(hidden, huggingface.load_score_head(tmp_path / "prm"), jnp.array([4, 2]))
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)


def test_a_model_without_a_scalar_head_is_told(checkpoint):
    assert not huggingface.has_score_head(checkpoint[0])
    with pytest.raises(UserError, match=r"score\.weight"):
        huggingface.load_score_head(checkpoint[0])


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (lambda t: t.pop(QUERY), QUERY),
        (lambda t: t.update(odd=np.zeros(1, np.float32)), "odd"),
        (lambda t: t.update({QUERY: np.zeros((3, 4), np.float32)}), rf"{QUERY}.*\[3, 4\]"),
        (lambda t: t.update({QUERY: t[QUERY].astype(np.int8)}), f"{QUERY}.*I8"),
        (lambda t: t.update({QUERY: t[QUERY] * np.nan}), f"{QUERY}.*finite"),
    ],
    ids=["missing", "surplus", "shape", "dtype", "nan"],
)
def test_a_wrong_tensor_is_named(damaged, edit, named):
    with pytest.raises(UserError, match=named):
        load(damaged(edit))


def test_constants_of_old_checkpoints_are_ignored(checkpoint, damaged):
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    params, _ = load(damaged(lambda tensors: tensors.update({name: np.zeros(5, np.float32)})))
    jax.tree.map(np.testing.assert_array_equal, params, load(checkpoint[0])[0])


def test_a_stored_head_must_agree_with_the_embedding_it_is_tied_to(checkpoint, damaged):
    if not huggingface.load_config(checkpoint[0]).tie_word_embeddings:
        pytest.skip("for tied models")
    embedding = "model.embed_tokens.weight"
    folder = damaged(lambda t: t.update({"lm_head.weight": t[embedding].copy()}))
    load(folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"][0, 0] += 1
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(UserError, match="tie_word_embeddings"):
        load(folder)


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_a_truncated_file_is_named(checkpoint, tmp_path, keep):
    shutil.copytree(checkpoint[0], tmp_path / "copy")
    file = tmp_path / "copy/model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"model\.safetensors is damaged"):
        load(tmp_path / "copy")


def test_damage_of_a_sharded_checkpoint_is_named(checkpoint, tokenizer, tmp_path):
    params, config = load(checkpoint[0])
    huggingface.save(tmp_path / "out", params, config, tokenizer, shard_bytes=5000)
    index = tmp_path / "out/model.safetensors.index.json"
    content = json.loads(index.read_text())
    file = content["weight_map"][QUERY]
    tensors = load_file(tmp_path / "out" / file)
    save_file({k: v for k, v in tensors.items() if k != QUERY}, tmp_path / "out" / file)
    with pytest.raises(UserError, match=f"{QUERY} is not in {file}"):
        load(tmp_path / "out")
    (tmp_path / "out" / file).unlink()
    with pytest.raises(UserError, match=f"names {file}"):
        load(tmp_path / "out")
    content["weight_map"][QUERY] = "../elsewhere.safetensors"
    shutil.copy(checkpoint[0] / "model.safetensors", tmp_path / "elsewhere.safetensors")
    index.write_text(json.dumps(content))
    with pytest.raises(UserError, match="names"):
        load(tmp_path / "out")


def test_a_folder_without_safetensors_is_told(tmp_path):
    with pytest.raises(UserError, match=r"no model\.safetensors"):
        huggingface.load_params(tmp_path, ModelConfig(32, 24, 40, 1, 4, 2, 6))


def test_a_failed_export_leaves_what_was_there(checkpoint, tokenizer, tmp_path):
    params, config = load(checkpoint[0])
    huggingface.save(tmp_path / "out", params, config, tokenizer)
    before = {f.name: f.read_bytes() for f in (tmp_path / "out").iterdir()}
    large = params | {"final_norm": params["final_norm"] + 1e5}
    with pytest.raises(UserError, match=r"model\.norm\.weight.*float16"):
        huggingface.save(tmp_path / "out", large, config, tokenizer, dtype="float16")
    assert {f.name: f.read_bytes() for f in (tmp_path / "out").iterdir()} == before
    assert [f.name for f in tmp_path.iterdir()] == ["out"]
    huggingface.save(tmp_path / "out", large, config, tokenizer)
    np.testing.assert_array_equal(load(tmp_path / "out")[0]["final_norm"], large["final_norm"])


def test_a_model_smaller_than_its_tokenizer_is_refused(tokenizer, tmp_path):
    config = ModelConfig(tokenizer.vocab_size - 1, 24, 40, 1, 4, 2, 6)
    with pytest.raises(UserError, match="26 tokens"):
        huggingface.save(tmp_path / "out", {}, config, tokenizer)
