"""Import: sharded, in parts, with errors that name what is wrong."""

import dataclasses
import json
import logging
import shutil

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from transformers import AutoModelForCausalLM

from stair_jax.errors import UserError
from stair_jax.models import huggingface
from stair_jax.models.config import ModelConfig
from stair_jax.models.huggingface import loading, safetensors_files
from stair_jax.models.layout import fit_to_mesh
from stair_jax.models.transformer import logical_axes
from stair_jax.parallel import rules
from stair_jax.parallel.mesh import MeshShape, make_mesh

QUERY = "model.layers.1.self_attn.q_proj.weight"
MESHES = [MeshShape(1, 4, 2), MeshShape(2, 1, 4), MeshShape(8, 1, 1), MeshShape(1, 8, 1)]


# Together they have all kinds of tensors; rope scaling is irrelevant here.
@pytest.fixture(params=["llama", "llama_tied", "qwen2", "qwen3"])
def layout(request, make_checkpoint):
    """(folder, transformers model) for each set of tensors."""
    return make_checkpoint(request.param)


@pytest.fixture
def damaged(checkpoint, tmp_path):
    """A function that modifies the tensors of a copy of the checkpoint, and returns its folder."""

    def change(edit, source=checkpoint[0]):
        shutil.copytree(source, tmp_path / "copy")
        tensors = load_file(tmp_path / "copy/model.safetensors")
        edit(tensors)
        save_file(tensors, tmp_path / "copy/model.safetensors", metadata={"format": "pt"})
        return tmp_path / "copy"

    return change


@pytest.fixture
def in_small_parts(monkeypatch):
    """Reads files row by row, and parameters layer by layer."""
    monkeypatch.setattr(loading, "_CHUNK_BYTES", 1)
    monkeypatch.setattr(loading, "_PIECE_BYTES", 1)


@pytest.fixture
def blocks_read(monkeypatch):
    """A list of the sizes in bytes of all reads from the files, in order."""
    sizes = []

    class Counted:
        def __init__(self, stored):
            self.stored = stored

        def __getattr__(self, name):
            return getattr(self.stored, name)

        def __getitem__(self, index):
            values = self.stored[index]
            sizes.append(values.nbytes)
            return values

    class Opened:
        def __init__(self, *args, **kwargs):
            self.opened = safe_open(*args, **kwargs)

        def __enter__(self):
            self.tensors = self.opened.__enter__()
            return self

        def __exit__(self, *error):
            return self.opened.__exit__(*error)

        def keys(self):
            return self.tensors.keys()

        def get_slice(self, name):
            return Counted(self.tensors.get_slice(name))

    safe_open = safetensors_files.safe_open
    monkeypatch.setattr(safetensors_files, "safe_open", Opened)
    return sizes


def load(folder):
    config = huggingface.load_config(folder)
    return huggingface.load_params(folder, config), config


def padded_to(params, config):
    """Parameters padded with zero rows to the padded vocabulary of `config`."""
    added = ((0, config.padded_vocab_size - config.vocab_size), (0, 0))
    tables = {
        name: jnp.pad(params[name], added) for name in ("embedding", "head") if name in params
    }
    return params | tables


@pytest.mark.parametrize("shape", MESHES, ids=str)
def test_each_parameter_is_made_with_its_sharding(layout, shape):
    params, config = load(layout[0])
    mesh = make_mesh(shape)
    config = fit_to_mesh(config, mesh, vocab_multiple=12)
    sharded = huggingface.load_params(layout[0], config, mesh)
    expected = rules.shardings(logical_axes(config), mesh)
    jax.tree.map(lambda x, y: np.testing.assert_equal(x.sharding, y), sharded, expected)
    jax.tree.map(np.testing.assert_array_equal, sharded, padded_to(params, config))


def test_parts_of_any_size_make_the_same_parameters(layout, in_small_parts, monkeypatch):
    mesh = make_mesh(MeshShape(1, 4, 2))
    config = dataclasses.replace(huggingface.load_config(layout[0]), vocab_multiple=6)
    in_parts = huggingface.load_params(layout[0], config, mesh)
    expected = rules.shardings(logical_axes(config), mesh)
    jax.tree.map(lambda x, y: np.testing.assert_equal(x.sharding, y), in_parts, expected)
    alone = huggingface.load_params(layout[0], config)
    monkeypatch.undo()
    at_once = huggingface.load_params(layout[0], config)
    jax.tree.map(np.testing.assert_array_equal, in_parts, at_once)
    jax.tree.map(np.testing.assert_array_equal, alone, at_once)


@pytest.mark.parametrize("shape", [None, *MESHES], ids=str)
def test_each_value_is_read_once(checkpoint, blocks_read, shape):
    config = huggingface.load_config(checkpoint[0])
    mesh = None
    if shape is not None:
        mesh = make_mesh(shape)
        config = fit_to_mesh(config, mesh, vocab_multiple=12)
    huggingface.load_params(checkpoint[0], config, mesh)
    tensors = load_file(checkpoint[0] / "model.safetensors")
    assert sum(blocks_read) == sum(values.nbytes for values in tensors.values())


def test_no_more_than_a_chunk_is_read_at_a_time(checkpoint, blocks_read, monkeypatch):
    monkeypatch.setattr(loading, "_CHUNK_BYTES", 500)
    load(checkpoint[0])
    assert max(blocks_read) <= 500


def test_a_second_load_compiles_nothing(checkpoint, in_small_parts, caplog):
    config = huggingface.load_config(checkpoint[0])
    mesh = make_mesh(MeshShape(1, 2, 2))
    huggingface.load_params(checkpoint[0], config, mesh)
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        jax.jit(lambda x: x + 1)(0)
        assert "Compiling" in caplog.text
        caplog.clear()
        huggingface.load_params(checkpoint[0], config, mesh)
    assert "Compiling" not in caplog.text


def test_bfloat16_checkpoint_of_transformers_is_read(checkpoint, tmp_path):
    folder, model = checkpoint
    AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(tmp_path)
    params, _ = load(tmp_path)
    assert params["final_norm"].dtype == jnp.float32
    exact = model.state_dict()["model.embed_tokens.weight"].numpy().astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(params["embedding"], exact.astype(np.float32))
    assert huggingface.stored_dtype(tmp_path) == "bfloat16"
    assert huggingface.stored_dtype(folder) == "float32"


def test_a_model_without_a_scalar_head_is_told(checkpoint):
    assert not huggingface.has_score_head(checkpoint[0])
    with pytest.raises(UserError, match=r"score\.weight"):
        huggingface.load_score_head(checkpoint[0])


EDITS = {
    "missing": (lambda t: t.pop(QUERY), QUERY),
    "surplus": (lambda t: t.update(odd=np.zeros(1, np.float32)), "odd"),
    "shape": (lambda t: t.update({QUERY: np.zeros((3, 4), np.float32)}), rf"{QUERY}.*\[3, 4\]"),
    "dtype": (lambda t: t.update({QUERY: t[QUERY].astype(np.int8)}), f"{QUERY}.*I8"),
    "nan": (lambda t: t.update({QUERY: t[QUERY] * np.nan}), f"{QUERY}.*damaged.*finite"),
}


@pytest.mark.parametrize(("edit", "named"), EDITS.values(), ids=EDITS)
def test_a_wrong_tensor_is_named(damaged, edit, named):
    with pytest.raises(UserError, match=named):
        load(damaged(edit))


@pytest.mark.parametrize(
    ("family_name", "name"),
    [
        ("qwen2", "model.layers.1.self_attn.k_proj.bias"),
        ("qwen3", "model.layers.0.self_attn.q_norm.weight"),
    ],
)
def test_a_missing_tensor_of_a_family_is_named(make_checkpoint, damaged, family_name, name):
    with pytest.raises(UserError, match=name):
        load(damaged(lambda tensors: tensors.pop(name), make_checkpoint(family_name)[0]))


@pytest.mark.parametrize("name", ["qwen2", "qwen3"])
def test_tensors_of_another_family_are_surplus(make_checkpoint, tmp_path, name):
    """A Qwen checkpoint whose config.json says Llama would lose its biases or norms."""
    shutil.copytree(make_checkpoint(name)[0], tmp_path / "copy")
    config = json.loads((tmp_path / "copy/config.json").read_text())
    config = {k: v for k, v in config.items() if k not in ("use_sliding_window", "layer_types")}
    (tmp_path / "copy/config.json").write_text(json.dumps(config | {"model_type": "llama"}))
    with pytest.raises(UserError, match=r"self_attn\.\S+ and \d+ more, which a model of"):
        load(tmp_path / "copy")


def test_values_beyond_the_dtype_are_told(damaged):
    folder = damaged(lambda tensors: tensors.update({QUERY: tensors[QUERY] * 1e6}))
    config = dataclasses.replace(huggingface.load_config(folder), param_dtype="float16")
    with pytest.raises(UserError, match=f"{QUERY}.*not finite in float16"):
        huggingface.load_params(folder, config)


def test_constants_of_old_checkpoints_are_ignored(checkpoint, damaged):
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    params, _ = load(damaged(lambda tensors: tensors.update({name: np.zeros(5, np.float32)})))
    jax.tree.map(np.testing.assert_array_equal, params, load(checkpoint[0])[0])


def test_a_stored_head_must_agree_with_the_embedding_it_is_tied_to(make_checkpoint, damaged):
    embedding = "model.embed_tokens.weight"
    folder = damaged(
        lambda t: t.update({"lm_head.weight": t[embedding].copy()}),
        make_checkpoint("llama_tied")[0],
    )
    load(folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"][-1, 0] += 1
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


@pytest.fixture
def in_shards(checkpoint, tokenizer, tmp_path):
    """A checkpoint in several files: (folder, content of its index)."""
    huggingface.save(tmp_path / "out", *load(checkpoint[0]), tokenizer, shard_bytes=5000)
    return tmp_path / "out", json.loads((tmp_path / "out/model.safetensors.index.json").read_text())


def test_a_tensor_that_a_shard_lacks_is_named(in_shards):
    folder, index = in_shards
    file = index["weight_map"][QUERY]
    tensors = load_file(folder / file)
    save_file({k: v for k, v in tensors.items() if k != QUERY}, folder / file)
    with pytest.raises(UserError, match=f"{QUERY} in {file}, which does not contain it"):
        load(folder)
    (folder / file).unlink()
    with pytest.raises(UserError, match=f"names '{file}'"):
        load(folder)


def test_a_tensor_in_two_shards_is_named(in_shards):
    folder, index = in_shards
    file = index["weight_map"][QUERY]
    other = next(name for name in index["weight_map"].values() if name != file)
    save_file(load_file(folder / other) | {QUERY: load_file(folder / file)[QUERY]}, folder / other)
    with pytest.raises(UserError, match=QUERY):
        load(folder)


@pytest.mark.parametrize("name", ["../elsewhere.safetensors", 3, None])
def test_an_index_names_files_of_its_folder_only(in_shards, checkpoint, name):
    folder, index = in_shards
    shutil.copy(checkpoint[0] / "model.safetensors", folder.parent / "elsewhere.safetensors")
    index["weight_map"][QUERY] = name
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="which is not in the folder"):
        load(folder)


@pytest.mark.parametrize("content", ["[]", "{}", "{"])
def test_a_damaged_index_is_named(in_shards, content):
    (in_shards[0] / "model.safetensors.index.json").write_text(content)
    with pytest.raises(UserError, match=r"index\.json is damaged"):
        load(in_shards[0])


def test_a_folder_without_safetensors_is_told(tmp_path):
    with pytest.raises(UserError, match=r"no model\.safetensors"):
        huggingface.load_params(tmp_path, ModelConfig(32, 24, 40, 1, 4, 2, 6))
