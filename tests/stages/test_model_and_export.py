"""A base checkpoint comes in, gets its tags, and goes out to a user's folder."""

import huggingface_hub
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from ml_collections import FrozenConfigDict
from safetensors.numpy import load_file
from stair_jax.stages.context import StageContext
from tokenizers import Tokenizer as Backend
from tokenizers.models import WordLevel
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from stair_jax.errors import UserError
from stair_jax.models import huggingface
from stair_jax.models.vocabulary import resize_vocab
from stair_jax.stages import export, model
from stair_jax.storage import read_json, write_json
from stair_jax.text.chat import prepare_tokenizer
from stair_jax.text.chat_settings import ChatSettings
from stair_jax.text.tokenizer import Tokenizer

EMBEDDING = "model.embed_tokens.weight"
NORM = "model.norm.weight"


@pytest.fixture
def base(tmp_path):
    """A checkpoint of 22 tokens and 24 rows without the tags; tokens 0 and 5 end an answer."""
    words = {word: index for index, word in enumerate(["</s>", *"abcdefghijklmnopqrstu"])}
    backend = Backend(WordLevel(words, unk_token="a"))
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>").save_pretrained(
        tmp_path / "base"
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=24,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        initializer_range=0.5,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "base")
    write_json(tmp_path / "base/generation_config.json", {"eos_token_id": [0, 5]})
    return tmp_path / "base"


def context(folder, settings, seed=0, runtime=None, **inputs):
    return StageContext(
        name=folder.name,
        settings=FrozenConfigDict(settings),
        runtime=FrozenConfigDict(runtime or {}),
        seed=seed,
        folder=folder,
        inputs=inputs,
    )


def run_model(base, folder, seed=0, **settings):
    model.run(context(folder, {"init": str(base)} | settings, seed))
    return load_file(folder / "hf/model.safetensors")


def test_tags_get_rows_around_the_mean_of_the_trained_ones(base, tmp_path):
    before = load_file(base / "model.safetensors")
    after = run_model(base, tmp_path / "start", tag_noise=0.0)
    tokenizer = Tokenizer.load(tmp_path / "start/hf")
    tags = list(vars(tokenizer.tags).values())
    assert tags == [22, 23, 24, 25] and tokenizer.stop_ids == (0, 5)
    assert tokenizer.pad_id == 26
    assert huggingface.load_config(tmp_path / "start/hf").vocab_size == 27
    for name in (EMBEDDING, "lm_head.weight"):
        np.testing.assert_array_equal(after[name][:22], before[name][:22])
        expected = np.tile(before[name][:22].mean(axis=0), (5, 1))
        np.testing.assert_allclose(after[name][22:], expected, atol=1e-6)
    np.testing.assert_array_equal(after[NORM], before[NORM])


def test_rows_of_the_tags_depend_on_the_seed_alone(base, tmp_path):
    first = run_model(base, tmp_path / "first", seed=1)
    again = run_model(base, tmp_path / "again", seed=1)
    other = run_model(base, tmp_path / "other", seed=2)
    np.testing.assert_array_equal(first[EMBEDDING], again[EMBEDDING])
    assert not np.array_equal(first[EMBEDDING][22:], other[EMBEDDING][22:])
    assert len(np.unique(first[EMBEDDING][22:], axis=0)) == 5


def test_tags_that_were_trained_are_kept(base, tmp_path):
    first = run_model(base, tmp_path / "first")
    second = run_model(tmp_path / "first/hf", tmp_path / "second", seed=5)
    for name, values in first.items():
        np.testing.assert_array_equal(second[name], values)


def test_tags_are_drawn_anew_in_place_where_that_is_asked_for(base, tmp_path):
    first = run_model(base, tmp_path / "first")
    second = run_model(tmp_path / "first/hf", tmp_path / "second", seed=5, redraw_tags=True)
    assert first[EMBEDDING].shape == second[EMBEDDING].shape
    np.testing.assert_array_equal(first[EMBEDDING][:22], second[EMBEDDING][:22])
    assert (first[EMBEDDING][22:26] != second[EMBEDDING][22:26]).any(axis=1).all()
    np.testing.assert_array_equal(first[EMBEDDING][26], second[EMBEDDING][26])  # padding


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"init": "/nowhere/at/all"}, "/nowhere/at/all"),
        ({"tag_noise": -1.0}, "tag_noise"),
        ({"dtype": "int8"}, "int8"),
        ({"noise": 1.0}, "noise"),
        ({"init": ""}, "model.init is empty"),
        ({"init": "no/where/at/all"}, "model.init: there is no folder no/where/at/all"),
        ({"chat_template": "/nowhere.jinja"}, "/nowhere.jinja"),
    ],
)
def test_a_wrong_setting_is_named(base, tmp_path, settings, named):
    with pytest.raises(UserError, match=named):
        run_model(base, tmp_path / "start", **settings)


def test_export_writes_the_model_in_the_dtype_asked_for(base, tmp_path):
    source = run_model(base, tmp_path / "start")
    settings = {"model": "start", "path": str(tmp_path / "mine"), "dtype": "bfloat16"}
    export.run(context(tmp_path / "export", settings, model=tmp_path / "start"))
    model = LlamaForCausalLM.from_pretrained(tmp_path / "mine", dtype="auto")
    assert model.dtype == torch.bfloat16
    expected = torch.tensor(source[EMBEDDING]).bfloat16()
    assert torch.equal(model.model.embed_tokens.weight, expected)
    assert Tokenizer.load(tmp_path / "mine").stop_ids == (0, 5)


def test_export_keeps_a_scalar_head(base, tmp_path):
    config = huggingface.load_config(base)
    params = huggingface.load_params(base, config)
    head = {"kernel": np.arange(16, dtype=np.float32)}
    tokenizer = prepare_tokenizer(base)
    params, config = resize_vocab(params, config, 27, [], jax.random.key(0))
    huggingface.save(tmp_path / "prm/hf", params, config, tokenizer, score_head=head)
    settings = {"model": "prm", "path": str(tmp_path / "mine")}
    export.run(context(tmp_path / "export", settings, model=tmp_path / "prm"))
    np.testing.assert_array_equal(
        huggingface.load_score_head(tmp_path / "mine")["kernel"], head["kernel"]
    )


def test_export_touches_no_folder_that_is_not_its_own(base, tmp_path):
    run_model(base, tmp_path / "start")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("years of work")
    stage = context(
        tmp_path / "export",
        {"model": "start", "path": str(tmp_path / "mine")},
        model=tmp_path / "start",
    )
    with pytest.raises(UserError, match="mine is there already"):
        export.run(stage)
    assert (tmp_path / "mine/thesis.tex").read_text() == "years of work"
    (tmp_path / "mine/thesis.tex").unlink()
    export.run(stage)
    export.run(stage)  # as after a kill before the completion record
    assert (tmp_path / "mine/model.safetensors").is_file()


def test_export_without_a_path_writes_into_its_stage(base, tmp_path):
    source = run_model(base, tmp_path / "start")
    stage = context(tmp_path / "export", {"model": "start", "dtype": ""}, model=tmp_path / "start")
    export.run(stage)
    export.run(stage)  # as after a kill before the completion record
    exported = load_file(tmp_path / "export/hf/model.safetensors")
    assert exported.keys() == source.keys()
    for name, values in source.items():
        np.testing.assert_array_equal(exported[name], values)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_an_empty_dtype_is_that_of_the_checkpoint(base, tmp_path, dtype):
    half = AutoModelForCausalLM.from_pretrained(base, dtype=getattr(torch, dtype))
    half.save_pretrained(base)
    before = load_file(base / "model.safetensors")
    after = run_model(base, tmp_path / "start", dtype="")
    assert after[NORM].dtype == before[NORM].dtype == jnp.dtype(dtype)
    np.testing.assert_array_equal(after[EMBEDDING][:22], before[EMBEDDING][:22])


def test_a_mesh_makes_the_same_model(base, tmp_path):
    """27 rows are no multiple of tensor: they are padded on the mesh, and on the mesh only."""
    alone = run_model(base, tmp_path / "alone")
    runtime = {"training_mesh": {"fsdp": 4, "tensor": 2}}
    model.run(context(tmp_path / "start", {"init": str(base)}, runtime=runtime))
    over_mesh = load_file(tmp_path / "start/hf/model.safetensors")
    for name, values in alone.items():
        np.testing.assert_allclose(over_mesh[name], values, atol=1e-6)
    settings = {"model": "start", "dtype": "float32"}
    stage = context(tmp_path / "export", settings, runtime=runtime, model=tmp_path / "start")
    export.run(stage)
    exported = load_file(tmp_path / "export/hf/model.safetensors")
    for name, values in over_mesh.items():
        np.testing.assert_array_equal(exported[name], values)


def test_a_mesh_that_does_not_divide_the_model_is_told(base, tmp_path):
    runtime = {"training_mesh": {"tensor": 4}}
    with pytest.raises(UserError, match=r"num_attention_heads 2 .* tensor 4"):
        model.run(context(tmp_path / "start", {"init": str(base)}, runtime=runtime))


def test_a_hub_id_is_taken_from_the_cache(base, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda name, **_: asked.append(name) or str(base)
    )
    found = run_model("org/name", tmp_path / "start")
    assert asked == ["org/name"]
    np.testing.assert_array_equal(found[EMBEDDING], run_model(base, tmp_path / "two")[EMBEDDING])


def test_chat_settings_go_with_the_model(base, tmp_path):
    template = "{% for message in messages %}{{ message['content'] }}!{% endfor %}"
    (tmp_path / "mine.jinja").write_text(template)
    settings = {"system": "Be brief.", "template_values": {"enable_thinking": False}}
    run_model(base, tmp_path / "start", chat_template=str(tmp_path / "mine.jinja"), **settings)
    tokenizer = Tokenizer.load(tmp_path / "start/hf")
    assert tokenizer.chat == ChatSettings(**settings)
    assert tokenizer.hf.chat_template == template
    # A further run keeps what it is not told to change.
    run_model(tmp_path / "start/hf", tmp_path / "again", system="Be thorough.")
    again = Tokenizer.load(tmp_path / "again/hf")
    assert again.chat == ChatSettings(**settings | {"system": "Be thorough."})
    assert again.hf.chat_template == tokenizer.hf.chat_template


def test_generation_settings_of_the_base_are_kept(base, tmp_path):
    fields = {"temperature": 0.6, "top_p": 0.9}
    write_json(base / "generation_config.json", fields | {"eos_token_id": [0, 5]})
    run_model(base, tmp_path / "start")
    settings = {"model": "start", "path": str(tmp_path / "mine")}
    export.run(context(tmp_path / "export", settings, model=tmp_path / "start"))
    written = read_json(tmp_path / "mine/generation_config.json")
    assert written["eos_token_id"] == [0, 5] and fields.items() <= written.items()
    assert written["pad_token_id"] not in (0, 5)
