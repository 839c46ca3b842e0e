"""Adapter folders of others: what cannot be read, or would change results, is refused in a line."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from safetensors.numpy import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from stair_jax import adapter_folders
from stair_jax.errors import UserError
from stair_jax.inference.classifier import load_classifier
from stair_jax.models import huggingface
from stair_jax.models.huggingface import adapter_tensors, hub
from stair_jax.models.huggingface.adapter_config import AdapterConfig
from stair_jax.text.tokenizer import Tokenizer

Q = "base_model.model.model.layers.0.self_attn.q_proj.lora_"


@pytest.fixture(scope="module")
def made(make_checkpoint, tmp_path_factory):
    """A folder of adapters as peft writes it, of the queries of Llama."""
    base, _ = make_checkpoint("llama")
    config = LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj"], task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    torch.manual_seed(1)
    for name, values in model.named_parameters():
        if "lora_B" in name:
            values.data.normal_()
    folder = tmp_path_factory.mktemp("adapters")
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def edit(made, tmp_path):
    """`edit(fields, tensors)`: the folder with other fields and tensors; None takes one away."""

    def kept(values):
        return {name: value for name, value in values.items() if value is not Ellipsis}

    def make(fields=(), tensors=()):
        values = json.loads((made / "adapter_config.json").read_text()) | dict(fields)
        (tmp_path / "adapter_config.json").write_text(json.dumps(kept(values)))
        found = load_file(made / "adapter_model.safetensors") | dict(tensors)
        save_file(kept(found), tmp_path / "adapter_model.safetensors", {"format": "pt"})
        return tmp_path

    return make


def load(folder):
    return huggingface.load_params(folder, huggingface.load_config(folder))


def assert_refused(folder, said):
    with pytest.raises(UserError, match=said) as caught:
        load(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("peft_type", "IA3", "peft_type 'IA3': adapters of LORA alone"),
        ("use_dora", True, r"'use_dora' .* not supported \(DoRA .* merge_and_unload"),
        ("bias", "lora_only", "bias 'lora_only' .* is not supported"),
        ("lora_bias", True, "'lora_bias'"),
        ("modules_to_save", ["embed_tokens"], "modules_to_save .* 'embed_tokens': beside adapters"),
        ("modules_to_save", [["score"]], "modules_to_save"),
        ("task_type", "SEQ_2_SEQ_LM", "task_type"),
        ("init_lora_weights", "pissa", "init_lora_weights 'pissa' .* is not supported"),
        ("layer_replication", [[0, 1], [0, 2]], r"'layer_replication' .*\(layers of the base are"),
        ("target_parameters", ["mlp.experts.gate_up_proj"], "'target_parameters'"),
        ("something_new", 3, "'something_new' .* is not supported"),
        ("revision", "v2", "revision 'v2'"),
        ("r", 0, "r in .* must be a positive whole number up to 4096, not 0"),
        ("r", 10**6, "r in .* must be a positive whole number up to 4096"),
        ("r", "2", "r in .* must be a positive whole number"),
        ("r", ..., "adapter_config.json lacks r"),
        ("lora_alpha", float("nan"), "lora_alpha in .* must be a finite number"),
        ("lora_alpha", 1e30, "lora_alpha in .* must be a finite number"),
        ("use_rslora", "no", "use_rslora in .* must be true or false"),
        ("target_modules", ["q_proj", 3], "target_modules .* must be a list of module names"),
        ("target_modules", ["q_proj", "v_proj"], r"lacks the adapter of model.layers.0.*v_proj"),
        ("target_modules", ["v_proj"], r"lacks the adapter of model.layers.0.*v_proj"),
        ("layers_to_transform", [0], "has an adapter of model.layers.1.* does not name"),
        ("layers_to_transform", ["0"], "layers_to_transform .* must be a list of layers"),
        ("layers_pattern", "blocks", "layers_pattern 'blocks' .* not supported"),
        ("rank_pattern", {"q_proj": 3}, r"shape \[2, 24\], but .* asks for \[3, 24\]"),
        ("rank_pattern", {"(q|k)_proj": 2}, r"rank_pattern .* '\(q\|k\)_proj', a pattern"),
        ("rank_pattern", [3], "rank_pattern in .* must be an object"),
        ("alpha_pattern", {"q_proj": "4"}, "q_proj in .* must be a finite number"),
        ("r", 3, r"shape \[2, 24\], but .* asks for \[3, 24\]"),
        ("base_model_name_or_path", None, "does not say which model the adapters belong to"),
        ("base_model_name_or_path", "/none", "that is not at /none: put it there, or correct"),
        ("base_model_name_or_path", "x" * 5000, "has adapters of a model that is not at xxxx"),
        ("base_model_name_or_path", "\0", "has adapters of a model that is not at"),
        ("trainable_token_indices", [3, 3], "must name distinct token ids"),
        ("trainable_token_indices", {"mlp": [3]}, "must name distinct token ids"),
        ("trainable_token_indices", [3], "lacks tensor .*trainable_tokens_delta"),
    ],
)
def test_settings_that_change_results_are_refused(field, value, said, edit):
    assert_refused(edit({field: value}), said)


ONE = np.ones((2, 24), np.float32)


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({Q + "A.weight": ...}, "lacks tensor .*q_proj.lora_A.weight, the other half of"),
        ({Q + "A.weight": ..., Q + "B.weight": ...}, "lacks the adapter of model.layers.0"),
        ({Q + "A.weight": ONE.T}, r"has shape \[24, 2\], but .* asks for \[2, 24\]"),
        ({Q + "A.weight": ONE.astype(np.int32)}, "has dtype I32: only"),
        ({Q + "A.weight": ONE * np.inf}, "is damaged: it has values that are not finite"),
        ({Q + "A.bias": ONE}, "has tensor .*lora_A.bias.*, which is no adapter"),
        ({Q.replace("q_proj", "w_proj") + "A.weight": ONE}, "w_proj.* is no adapter"),
        ({Q.replace("s.0", "s.7") + "A.weight": ONE}, "layers.7.* is no adapter"),
        ({"base_model.model.lm_head.lora_A.weight": ONE}, "embedding and head are not adapted"),
        ({Q + "magnitude_vector": ONE}, "DoRA is not supported"),
        ({"base_model.model.score.weight": np.ones((1, 7), np.float32)}, r"\[1, 7\]"),
    ],
    ids=str,
)
def test_tensors_that_do_not_fit_are_refused(tensors, said, edit):
    folder = edit({}, tensors)
    with pytest.raises(UserError, match=said) as caught:
        load(folder)
        huggingface.load_score_head(folder)
    assert "\n" not in str(caught.value)


def test_pickles_and_damaged_files_are_refused(edit):
    folder = edit()
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5])
    assert_refused(folder, "adapter_model.safetensors is damaged")
    weights.rename(folder / "adapter_model.bin")
    for read in (load, lambda folder: hub.resolve(str(folder))):
        with pytest.raises(UserError, match=r"in a pickle .*, which is never opened"):
            read(folder)
    (folder / "adapter_config.json").write_text("[]")
    assert_refused(folder, "is damaged: it holds no JSON object|does not say|never opened")


def test_ranks_that_would_be_filled_up_without_measure_are_refused(made, edit, monkeypatch):
    monkeypatch.setattr(adapter_tensors, "_MOST_FILLED", 100)
    load(made)
    tensors = {Q + "A.weight": np.ones((99, 24)), Q + "B.weight": np.ones((40, 99))}
    wide = {name: values.astype(np.float32) for name, values in tensors.items()}
    folder = edit({"rank_pattern": {"layers.0.self_attn.q_proj": 99}}, wide)
    load(folder)
    monkeypatch.setattr(adapter_tensors, "_FILLING", 1.5)
    assert_refused(folder, "adapters of ranks up to 99, which take .* filled up to one rank")


def test_adapters_of_adapters_are_refused(edit, made):
    assert_refused(
        edit({"base_model_name_or_path": str(made)}), "which are adapters too: merge those"
    )


def test_what_has_no_effect_is_read_over(edit, made, capsys):
    folder = edit({"lora_dropout": 0.05, "fan_in_fan_out": True, "layers_pattern": "layers"})
    jax.tree.map(np.testing.assert_array_equal, load(folder), load(made))
    assert "lora_dropout 0.05 is left out" in capsys.readouterr().err


FIELDS = [
    *("r", "lora_alpha", "target_modules", "rank_pattern", "alpha_pattern", "layers_to_transform"),
    *("use_rslora", "bias", "modules_to_save", "peft_type", "task_type", "exclude_modules"),
    *("trainable_token_indices", "layers_pattern", "base_model_name_or_path", "lora_dropout"),
    "init_lora_weights",
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5000) | st.floats(-2, 9) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=4,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=3))
def test_any_content_is_read_or_refused(made, tmp_path_factory, changes):
    folder = tmp_path_factory.mktemp("fuzzed")
    values = json.loads((made / "adapter_config.json").read_text()) | changes
    (folder / "adapter_config.json").write_text(json.dumps(values))
    (folder / "adapter_model.safetensors").symlink_to(made / "adapter_model.safetensors")
    try:
        described = AdapterConfig.read(folder)
        huggingface.load_config(folder)
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert described.rank == 2 or described.ranks


def test_the_tokenizer_and_the_ends_are_those_of_the_base_where_there_are_no_others(
    made, make_checkpoint, tokenizer, tmp_path
):
    base = tmp_path / "base"
    config = huggingface.load_config(make_checkpoint("llama")[0])
    params = huggingface.load_params(make_checkpoint("llama")[0], config)
    huggingface.save(base, params, config, tokenizer)
    (base / "generation_config.json").write_text('{"eos_token_id": [0, 4], "top_k": 3}')
    folder = tmp_path / "adapters"
    folder.mkdir()
    values = json.loads((made / "adapter_config.json").read_text())
    values["base_model_name_or_path"] = str(base)
    (folder / "adapter_config.json").write_text(json.dumps(values))
    (folder / "adapter_model.safetensors").symlink_to(made / "adapter_model.safetensors")
    found = Tokenizer.load(folder)
    assert found.stop_ids == (0, 4) and found.generation == {"top_k": 3}
    tokenizer.hf.save_pretrained(folder)
    (folder / "generation_config.json").write_text('{"eos_token_id": [0, 5]}')
    assert Tokenizer.load(folder).stop_ids == (0, 5)
    assert huggingface.stored_dtype(folder) == "float32"
    sources = hub.source_files(str(folder))
    assert {path.parent.name for path in sources} == {"adapters", "base"}


def test_a_base_of_the_hub_is_fetched(made, make_checkpoint, tmp_path, monkeypatch):
    """And an id of adapters is found with it."""
    base, _ = make_checkpoint("llama")
    folder = tmp_path / "adapters"
    folder.mkdir()
    values = json.loads((made / "adapter_config.json").read_text())
    values["base_model_name_or_path"] = "some/base"
    (folder / "adapter_config.json").write_text(json.dumps(values))
    (folder / "adapter_model.safetensors").symlink_to(made / "adapter_model.safetensors")
    asked = []

    def fetch(name, patterns):
        asked.append((name, "model*.safetensors" in patterns))
        return {"some/base": base, "some/adapters": folder}[name]

    monkeypatch.setattr(hub, "_fetch", fetch)
    assert hub.resolve("some/adapters", weights=False) == folder
    assert asked == [("some/adapters", False), ("some/base", False)]
    assert hub.resolve("some/adapters") == folder
    assert asked[2:] == [("some/adapters", True), ("some/base", True)]
    jax.tree.map(np.testing.assert_array_equal, load(folder), load(made))


def test_files_are_hashed_again_only_when_they_change(tmp_path, monkeypatch):
    (tmp_path / "model.safetensors").write_bytes(b"a")
    count = []
    original = adapter_folders.storage.fingerprint_file
    monkeypatch.setattr(
        adapter_folders.storage, "fingerprint_file", lambda path: count.append(1) or original(path)
    )
    first = adapter_folders.weights_fingerprint(tmp_path)
    assert adapter_folders.weights_fingerprint(tmp_path) == first and len(count) == 1
    (tmp_path / "model.safetensors").write_bytes(b"bb")
    assert adapter_folders.weights_fingerprint(tmp_path) != first and len(count) == 2


def test_adapters_with_another_shape_than_asked_for_are_refused(made):
    config = huggingface.load_config(made)
    other = dataclasses.replace(config.lora, rank=3)
    said = r"are of rank 2 beside query with rows of 0 tokens, and rank 3"
    with pytest.raises(UserError, match=said):
        huggingface.load_params(made, dataclasses.replace(config, lora=other))
    doubled = dataclasses.replace(config.lora, scale=2 * config.lora.scale)
    ours = huggingface.load_params(made, dataclasses.replace(config, lora=doubled))["layers"]
    theirs = load(made)["layers"]
    np.testing.assert_array_equal(2 * ours["query_lora_b"], theirs["query_lora_b"])
    np.testing.assert_array_equal(ours["query_lora_a"], theirs["query_lora_a"])


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (
            {"path": "../x", "fingerprint": "", "targets": 3},
            "base.json is damaged: it needs a path",
        ),
        ([], "base.json is damaged: it needs a path"),
        ({"path": "x" * 5000, "fingerprint": "0", "targets": []}, "is another model than the one"),
        ({"path": "\0", "fingerprint": "0", "targets": [[]]}, "is another model than the one"),
    ],
    ids=str,
)
def test_a_damaged_record_of_the_base_is_refused(record, said, edit):
    folder = edit()
    (folder / "base.json").write_text(json.dumps(record))
    assert_refused(folder, said)


def test_adapters_of_a_quantised_base_are_refused(edit, make_checkpoint, tmp_path):
    base = tmp_path / "quantised"
    shutil.copytree(make_checkpoint("llama")[0], base)
    values = json.loads((base / "config.json").read_text())
    quantised = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (base / "config.json").write_text(json.dumps(values | {"quantization_config": quantised}))
    assert_refused(edit({"base_model_name_or_path": str(base)}), "quantization_config")


def test_a_classifier_of_peft_has_its_logits(make_checkpoint, tmp_path):
    base, _ = make_checkpoint("llama")
    torch.manual_seed(2)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=3, pad_token_id=1)
    config = LoraConfig(r=2, lora_alpha=4, target_modules=["v_proj"], task_type="SEQ_CLS")
    model = get_peft_model(model, config)
    for name, values in model.named_parameters():
        if "lora_B" in name or "score" in name:
            values.data.normal_()
    model.save_pretrained(tmp_path)
    tokens = [5, 7, 9, 24, 11]
    with torch.no_grad():
        expected = model.eval()(torch.tensor([tokens])).logits.numpy()
    classifier = load_classifier(tmp_path, dtype="float32", rows=1, buckets=(8,))
    assert classifier.labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    np.testing.assert_allclose(classifier.logits([tokens]), expected, rtol=1e-5, atol=1e-5)
