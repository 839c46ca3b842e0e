"""Adapter folders: what is written is the same model in transformers with peft, and back."""

import dataclasses
import json
from copy import deepcopy

import jax
import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from stair_jax.models import huggingface, lora
from stair_jax.models.heads import score
from stair_jax.models.huggingface import loading
from stair_jax.models.layout import fit_to_mesh
from stair_jax.models.transformer import apply, init_params, output_head
from stair_jax.parallel.mesh import MeshShape, make_mesh
from stair_jax.training.logits import products

TOKENS = np.array([[5, 7, 9, 24, 11], [2, 2, 3, 8, 25]])
POSITIONS = np.tile(np.arange(5), (2, 1))
ATTENTION = ("query", "key", "value", "out")
ALL = tuple(lora.KERNELS)

hidden_states = jax.jit(apply, static_argnums=0)


def logits(params, config):
    hidden = hidden_states(config, params, TOKENS, POSITIONS)
    head = output_head(params, config)
    return np.asarray(products(hidden, head, head))[..., : config.vocab_size]


def peft_logits(model):
    with torch.no_grad():
        return model.eval()(torch.tensor(TOKENS)).logits.numpy()


def adapted(folder, adapters):
    """(config, parameters) of a checkpoint with adapters none of which is zero."""
    config = dataclasses.replace(huggingface.load_config(folder), lora=adapters)
    new = lora.split(init_params(config, jax.random.key(1)))[1]
    keys = iter(jax.random.split(jax.random.key(2), len(jax.tree.leaves(new))))
    new = jax.tree.map(lambda value: 0.3 * jax.random.normal(next(keys), value.shape), new)
    return config, lora.join(huggingface.load_params(folder, config), new)


RSLORA = lora.Lora(3, 2.0 / 3**0.5, ("query", "value", "down"))


@pytest.mark.parametrize(
    ("name", "adapters"),
    [
        ("llama", lora.Lora(4, 2.0)),
        ("qwen2", RSLORA),
        ("gemma", lora.Lora(2, 0.3, ("gate", "up"))),
        ("qwen3", lora.Lora(3, 1.0, ATTENTION)),
        ("phi3", lora.Lora(3, 0.5)),
        ("phi3", lora.Lora(2, 0.5, ("query", "value", "up"))),
        ("llama", lora.Lora(2, 0.7, ("query",), token_ids=(7, 24))),
        ("llama_tied", lora.Lora(2, 0.7, ("query",), token_ids=(7, 24))),
    ],
)
def test_a_written_folder_is_the_same_model_in_peft(
    name, adapters, make_checkpoint, tokenizer, tmp_path
):
    base, _ = make_checkpoint(name)
    config, params = adapted(base, adapters)
    huggingface.save_adapter(tmp_path / "out", params, config, tokenizer, base)

    reference = AutoModelForCausalLM.from_pretrained(base)
    expected = peft_logits(PeftModel.from_pretrained(reference, tmp_path / "out"))
    np.testing.assert_allclose(logits(params, config), expected, rtol=1e-5, atol=1e-5)
    assert np.abs(expected - peft_logits(AutoModelForCausalLM.from_pretrained(base))).max() > 0.1

    again = huggingface.load_config(tmp_path / "out")
    assert again == config
    assert huggingface.adapter_base(tmp_path / "out") == base
    back = huggingface.load_params(tmp_path / "out", again)
    jax.tree.map(np.testing.assert_array_equal, back, params)
    merged = dataclasses.replace(again, lora=None)
    found = logits(huggingface.load_params(tmp_path / "out", merged), merged)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_rslora_is_written_by_its_name(make_checkpoint, tokenizer, tmp_path):
    base, _ = make_checkpoint("qwen2")
    config, params = adapted(base, RSLORA)
    huggingface.save_adapter(tmp_path / "out", params, config, tokenizer, base)
    values = json.loads((tmp_path / "out/adapter_config.json").read_text())
    assert (values["r"], values["lora_alpha"], values["use_rslora"]) == (3, 2, True)
    assert values["target_modules"] == ["down_proj", "q_proj", "v_proj"]
    assert values["base_model_name_or_path"] == str(base)


def test_a_scalar_head_beside_adapters_scores_as_in_peft(make_checkpoint, tokenizer, tmp_path):
    base, _ = make_checkpoint("llama")
    config, params = adapted(base, lora.Lora(4, 2.0))
    head = {"kernel": jax.random.normal(jax.random.key(5), (config.hidden_size,))}
    huggingface.save_adapter(tmp_path / "out", params, config, tokenizer, base, head)

    reference = AutoModelForSequenceClassification.from_pretrained(
        base, num_labels=1, pad_token_id=tokenizer.pad_id
    )
    expected = peft_logits(PeftModel.from_pretrained(reference, tmp_path / "out"))[:, 0]
    hidden = hidden_states(config, params, TOKENS, POSITIONS)
    np.testing.assert_allclose(
        score(hidden, head, np.array([4, 4])), expected, rtol=1e-5, atol=1e-5
    )

    assert huggingface.has_score_head(tmp_path / "out")
    assert not huggingface.has_score_head(base)
    again = huggingface.load_params(tmp_path / "out", config)
    assert "head" not in again  # of the vocabulary, which a reward model has none of
    kernel = huggingface.load_score_head(tmp_path / "out")["kernel"]
    np.testing.assert_array_equal(kernel, head["kernel"])


PEFT = {
    "patterns": LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules=["q_proj", "k_proj", "down_proj"],
        rank_pattern={"layers.1.self_attn.q_proj": 2, "down_proj": 6},
        alpha_pattern={"^model.layers.0.mlp.down_proj": 3},
    ),
    "rslora of one layer": LoraConfig(
        r=4, lora_alpha=8, use_rslora=True, target_modules=["up_proj"], layers_to_transform=[1]
    ),
    "by a pattern": LoraConfig(r=2, lora_alpha=5, target_modules=r".*\.0\..*(o|gate)_proj"),
    "tokens of the embedding": LoraConfig(
        r=2, lora_alpha=5, target_modules=["v_proj"], trainable_token_indices=[9, 5]
    ),
    "all": LoraConfig(r=2, lora_alpha=5, target_modules="all-linear", lora_dropout=0.1),
}


def foreign(base, config, folder):
    """Writes random adapters with peft, and returns its model."""
    torch.manual_seed(4)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    for name, values in model.named_parameters():
        if "lora_" in name or "delta" in name:
            values.data.normal_(std=0.3)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize(
    ("kind", "name"), [*((kind, "llama") for kind in PEFT), ("all", "phi3"), ("all", "qwen2_tied")]
)
def test_adapters_of_peft_are_read(kind, name, make_checkpoint, tmp_path):
    base, _ = make_checkpoint(name)
    expected = peft_logits(foreign(base, deepcopy(PEFT[kind]), tmp_path / "peft"))
    config = huggingface.load_config(tmp_path / "peft")
    params = huggingface.load_params(tmp_path / "peft", config)
    np.testing.assert_allclose(logits(params, config), expected, rtol=1e-5, atol=1e-5)
    merged = dataclasses.replace(config, lora=None)
    params = huggingface.load_params(tmp_path / "peft", merged)
    np.testing.assert_allclose(logits(params, merged), expected, rtol=1e-5, atol=1e-5)


def test_adapters_go_over_a_mesh_and_back(make_checkpoint, tokenizer, tmp_path):
    base, _ = make_checkpoint("qwen2")
    config, params = adapted(base, lora.Lora(2, 0.7, token_ids=(3, 20)))
    huggingface.save_adapter(tmp_path / "one", params, config, tokenizer, base, dtype="bfloat16")
    mesh = make_mesh(MeshShape(1, 4, 2))
    config = fit_to_mesh(huggingface.load_config(tmp_path / "one"), mesh, 12)
    sharded = huggingface.load_params(tmp_path / "one", config, mesh)
    a = sharded["layers"]["down_lora_a"].sharding.spec
    assert a == jax.sharding.PartitionSpec(None, "tensor", None)
    huggingface.save_adapter(tmp_path / "two", sharded, config, tokenizer, base, dtype="bfloat16")
    one, two = (tmp_path / name / "adapter_model.safetensors" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()

    merged = dataclasses.replace(config, lora=None)
    kernels = huggingface.load_params(tmp_path / "one", merged, mesh)
    plain = huggingface.load_params(tmp_path / "one", dataclasses.replace(merged, vocab_multiple=1))
    huggingface.save(tmp_path / "three", kernels, merged, tokenizer)
    huggingface.save(tmp_path / "four", sharded, config, tokenizer)
    huggingface.save(tmp_path / "five", plain, merged, tokenizer)
    saved = [load_file(tmp_path / name / "model.safetensors") for name in ("three", "four", "five")]
    for name, values in saved[0].items():
        np.testing.assert_allclose(saved[1][name], values, atol=1e-6)
        np.testing.assert_array_equal(saved[2][name], values)


@pytest.mark.parametrize("piece_bytes", [1, 2**20])
def test_merged_kernels_are_rounded_once(
    piece_bytes, make_checkpoint, tokenizer, tmp_path, monkeypatch
):
    """A base in float32 that is read in bfloat16: the sum is rounded, not the kernel before."""
    monkeypatch.setattr(loading, "_PIECE_BYTES", piece_bytes)  # a layer at a time, or all
    base, _ = make_checkpoint("llama")
    config, params = adapted(base, lora.Lora(3, 0.01))
    huggingface.save_adapter(tmp_path / "out", params, config, tokenizer, base)
    narrow = dataclasses.replace(config, lora=None, param_dtype="bfloat16")
    found = huggingface.load_params(tmp_path / "out", narrow)["layers"]
    for name in config.lora.targets:
        a, b = (np.asarray(params["layers"][name + half], np.float64) for half in (lora.A, lora.B))
        depth, rank = len(a), 3
        product = a.reshape(depth, -1, rank) @ b.reshape(depth, rank, -1)
        kernel = np.asarray(params["layers"][name], np.float64)
        exact = kernel + 0.01 * product.reshape(kernel.shape)
        rounded = exact.astype(np.float32).astype(found[name].dtype)
        # Of values in the middle of two, float32 sums may fall to the other side.
        assert np.mean(np.asarray(found[name]) != rounded) < 1e-3
        twice = (np.asarray(kernel, rounded.dtype).astype(np.float64) + exact - kernel).astype(
            np.float32
        )
        assert np.mean(twice.astype(rounded.dtype) != rounded) > 0.1
