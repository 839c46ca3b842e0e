"""A base checkpoint comes in, gets its tags, and goes out to a user's folder."""

import jax
import numpy as np
import pytest
import torch
from ml_collections import FrozenConfigDict
from safetensors.numpy import load_file
from tokenizers import Tokenizer as Backend
from tokenizers.models import WordLevel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from stair_jax.errors import UserError
from stair_jax.models import huggingface
from stair_jax.models.vocabulary import resize_vocab
from stair_jax.stages import export, model
from stair_jax.stages.context import StageContext
from stair_jax.storage import write_json
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


def context(folder, settings, seed=0, **inputs):
    return StageContext(
        name=folder.name,
        settings=FrozenConfigDict(settings),
        runtime=FrozenConfigDict({}),
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
    assert huggingface.load_config(tmp_path / "start/hf").vocab_size == 26
    for name in (EMBEDDING, "lm_head.weight"):
        np.testing.assert_array_equal(after[name][:22], before[name][:22])
        expected = np.tile(before[name][:22].mean(axis=0), (4, 1))
        np.testing.assert_allclose(after[name][tags], expected, atol=1e-6)
    np.testing.assert_array_equal(after[NORM], before[NORM])


def test_rows_of_the_tags_depend_on_the_seed_alone(base, tmp_path):
    first = run_model(base, tmp_path / "first", seed=1)
    again = run_model(base, tmp_path / "again", seed=1)
    other = run_model(base, tmp_path / "other", seed=2)
    np.testing.assert_array_equal(first[EMBEDDING], again[EMBEDDING])
    assert not np.array_equal(first[EMBEDDING][22:], other[EMBEDDING][22:])
    assert len(np.unique(first[EMBEDDING][22:], axis=0)) == 4


def test_tags_of_a_base_that_has_them_are_drawn_anew_in_place(base, tmp_path):
    first = run_model(base, tmp_path / "first")
    second = run_model(tmp_path / "first/hf", tmp_path / "second", seed=5)
    assert first[EMBEDDING].shape == second[EMBEDDING].shape
    np.testing.assert_array_equal(first[EMBEDDING][:22], second[EMBEDDING][:22])
    assert (first[EMBEDDING][22:] != second[EMBEDDING][22:]).any(axis=1).all()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"init": "/nowhere/at/all"}, "/nowhere/at/all"),
        ({"tag_noise": -1.0}, "tag_noise"),
        ({"dtype": "int8"}, "int8"),
        ({"noise": 1.0}, "noise"),
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
    tokenizer = model.load_with_tags(base)
    params, config = resize_vocab(params, config, 26, [], jax.random.key(0))
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


def test_export_without_a_path_is_told(tmp_path):
    with pytest.raises(UserError, match=r"export\.path"):
        export.run(context(tmp_path / "export", {"model": "start"}, model=tmp_path))
