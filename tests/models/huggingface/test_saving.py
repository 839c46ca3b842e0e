"""Export: the same bytes from any mesh, into a folder that is replaced entirely or not at all."""

import dataclasses
import json
import os

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file
from safetensors.numpy import save as serialize

from stair_jax.errors import UserError
from stair_jax.models import huggingface
from stair_jax.models.config import ModelConfig
from stair_jax.models.huggingface import saving
from stair_jax.models.huggingface.safetensors_files import write_file
from stair_jax.models.layout import fit_to_mesh
from stair_jax.parallel.mesh import MeshShape, make_mesh
from stair_jax.text.tokenizer import Tokenizer

DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


# Together they have all kinds of tensors; rope scaling is irrelevant here.
@pytest.fixture(params=["llama", "llama_tied", "qwen2", "qwen3"])
def layout(request, make_checkpoint):
    """(folder, transformers model) for each set of tensors."""
    return make_checkpoint(request.param)


def load(folder, mesh=None, vocab_multiple=1, **changes):
    config = dataclasses.replace(huggingface.load_config(folder), **changes)
    if mesh is not None:
        config = fit_to_mesh(config, mesh, vocab_multiple)
    return huggingface.load_params(folder, config, mesh), config


def tensors_of(folder):
    return {k: v for file in folder.glob("*.safetensors") for k, v in load_file(file).items()}


@given(
    st.sampled_from(sorted(DTYPES)),
    st.dictionaries(
        st.text('abc._"é0', min_size=1), st.lists(st.integers(1, 4), min_size=1, max_size=3)
    ),
)
def test_a_file_has_the_bytes_that_safetensors_writes(tmp_path, dtype, shapes):
    rng = np.random.default_rng(0)
    tensors = {
        name: rng.standard_normal(shape).astype(DTYPES[dtype])
        for name, shape in sorted(shapes.items())
    }
    write_file(tmp_path / "file", {k: v.shape for k, v in tensors.items()}, dtype, tensors.values())
    assert (tmp_path / "file").read_bytes() == serialize(tensors, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("dtype", "shard_bytes"), [("float32", 10**9), ("bfloat16", 5000), ("float16", 1)]
)
def test_tensors_go_in_and_out_byte_for_byte(layout, tokenizer, tmp_path, dtype, shard_bytes):
    """A checkpoint written by transformers, over a mesh with a padded vocabulary."""
    original = load_file(layout[0] / "model.safetensors")
    expected = {name: values.astype(DTYPES[dtype]) for name, values in original.items()}
    first, second = tmp_path / "first", tmp_path / "second"
    huggingface.save(first, *load(layout[0]), tokenizer, dtype=dtype, shard_bytes=shard_bytes)
    mesh = make_mesh(MeshShape(1, 4, 2))
    params, config = load(first, mesh, vocab_multiple=12, param_dtype=dtype)
    assert config.padded_vocab_size == 36 > config.vocab_size
    huggingface.save(second, params, config, tokenizer, dtype=dtype, shard_bytes=shard_bytes)
    names = sorted(file.name for file in first.iterdir())
    assert names == sorted(file.name for file in second.iterdir())
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    written = tensors_of(second)
    assert written.keys() == expected.keys()
    for name, values in expected.items():
        assert written[name].dtype == values.dtype
        assert written[name].tobytes() == values.tobytes(), name


@pytest.mark.parametrize("shape", [MeshShape(2, 1, 4), MeshShape(8, 1, 1)], ids=str)
def test_copies_of_a_parameter_are_written_once(layout, tokenizer, tmp_path, shape):
    huggingface.save(tmp_path / "one", *load(layout[0]), tokenizer)
    params, config = load(layout[0], make_mesh(shape), vocab_multiple=4)
    huggingface.save(tmp_path / "mesh", params, config, tokenizer)
    one, mesh = (tmp_path / name / "model.safetensors" for name in ("one", "mesh"))
    assert one.read_bytes() == mesh.read_bytes()


def test_small_chunks_make_the_same_file(layout, tokenizer, tmp_path, monkeypatch):
    params, config = load(layout[0])
    huggingface.save(tmp_path / "one", params, config, tokenizer)
    monkeypatch.setattr(saving, "_CHUNK_BYTES", 1)
    huggingface.save(tmp_path / "two", params, config, tokenizer)
    one, two = (tmp_path / name / "model.safetensors" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_config_has_what_serving_engines_read(family, tokenizer, tmp_path):
    huggingface.save(tmp_path / "out", *load(family[0]), tokenizer, dtype="bfloat16")
    written = json.loads((tmp_path / "out/config.json").read_text())
    source = family[1].config
    assert written["architectures"] == [type(family[1]).__name__]
    assert written["model_type"] == source.model_type
    assert written["torch_dtype"] == "bfloat16"
    assert written["pad_token_id"] == tokenizer.pad_id
    assert written["eos_token_id"] == tokenizer.eos_id != tokenizer.pad_id
    rope = source.rope_parameters
    assert written["rope_theta"] == rope["rope_theta"]
    if rope["rope_type"] == "default":
        assert written["rope_scaling"] is None
    else:
        scaling = {k: v for k, v in rope.items() if k != "rope_theta"}
        assert scaling.items() <= written["rope_scaling"].items()


def test_generation_config_keeps_what_the_source_had(checkpoint, tokenizer, tmp_path):
    fields = {"temperature": 0.6, "top_p": 0.9, "do_sample": True}
    several = Tokenizer(tokenizer.hf, (5,), generation=fields)
    huggingface.save(tmp_path / "out", *load(checkpoint[0]), several)
    written = json.loads((tmp_path / "out/generation_config.json").read_text())
    assert written == fields | {"eos_token_id": [0, 5], "pad_token_id": 1}
    assert Tokenizer.load(tmp_path / "out").stop_ids == (0, 5)


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


def test_a_replacement_that_fails_half_way_is_undone(checkpoint, tokenizer, tmp_path, monkeypatch):
    """The old folder has been moved away when the new one cannot take its place."""
    params, config = load(checkpoint[0])
    out = tmp_path / "out"
    huggingface.save(out, params, config, tokenizer)
    before = {f.name: f.read_bytes() for f in out.iterdir()}
    replace = os.replace

    def fail(source, target):
        if os.fspath(source).endswith(".partial"):
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        huggingface.save(out, params, config, tokenizer, dtype="bfloat16")
    assert {f.name: f.read_bytes() for f in out.iterdir()} == before
    assert [f.name for f in tmp_path.iterdir()] == ["out"]


def test_what_a_killed_replacement_set_aside_is_put_back(checkpoint, tokenizer, tmp_path):
    """Killed between the two renames: the only complete copy must survive the next attempt."""
    params, config = load(checkpoint[0])
    huggingface.save(tmp_path / "out", params, config, tokenizer)
    before = {f.name: f.read_bytes() for f in (tmp_path / "out").iterdir()}
    (tmp_path / "out").rename(tmp_path / ".out.old")
    (tmp_path / ".out.partial").mkdir()
    large = params | {"final_norm": params["final_norm"] + 1e5}
    with pytest.raises(UserError, match="float16"):
        huggingface.save(tmp_path / "out", large, config, tokenizer, dtype="float16")
    assert {f.name: f.read_bytes() for f in (tmp_path / "out").iterdir()} == before


def test_a_model_smaller_than_its_tokenizer_is_refused(tokenizer, tmp_path):
    config = ModelConfig(tokenizer.vocab_size - 1, 24, 40, 1, 4, 2, 6)
    with pytest.raises(UserError, match="26 tokens"):
        huggingface.save(tmp_path / "out", {}, config, tokenizer)
