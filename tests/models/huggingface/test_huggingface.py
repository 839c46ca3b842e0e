"""An exported model is the same model in transformers, with and without a scalar head."""

import jax
import numpy as np
import torch
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from stair_jax.models import huggingface
from stair_jax.models.heads import score
from stair_jax.models.layout import fit_to_mesh
from stair_jax.models.transformer import apply, output_embedding
from stair_jax.parallel.mesh import MeshShape, make_mesh, use_mesh
from stair_jax.text.tokenizer import Tokenizer

TOKENS = np.array([[5, 7, 9, 24, 11], [2, 2, 3, 8, 25]])
POSITIONS = np.tile(np.arange(5), (2, 1))
TROUBLES = ("missing_keys", "unexpected_keys", "mismatched_keys")


def load(folder):
    config = huggingface.load_config(folder)
    return huggingface.load_params(folder, config), config


hidden_states = jax.jit(apply, static_argnums=0)


def logits(params, config):
    hidden = np.asarray(hidden_states(config, params, TOKENS, POSITIONS))
    return hidden @ np.asarray(output_embedding(params, config)).T


def test_export_is_the_same_model_in_transformers(family, tokenizer, tmp_path):
    # No tensor of these models is larger than 5000 bytes.
    shard_bytes = 5000 if "qwen" in family[1].config.model_type else 10**9
    params, config = load(family[0])
    huggingface.save(tmp_path / "out", params, config, tokenizer, shard_bytes=shard_bytes)
    reference, report = AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert type(reference) is type(family[1])
    assert not any(report[kind] for kind in TROUBLES)
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
    assert max(sizes) <= shard_bytes and (len(shards) > 3) == (shard_bytes == 5000)
    assert sum(sizes) == sum(values.nbytes for values in jax.tree.leaves(params))


def test_score_head_gives_the_score_of_transformers(family, tokenizer, tmp_path):
    """Answers of different lengths that end with an end-of-sequence token, right-padded."""
    params, config = load(family[0])
    head = {"kernel": jax.random.normal(jax.random.key(0), (config.hidden_size,))}
    huggingface.save(tmp_path / "prm", params, config, tokenizer, score_head=head)
    reference, report = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "prm", output_loading_info=True
    )
    assert type(reference).__name__ == config.scoring_architecture
    assert not any(report[kind] for kind in TROUBLES)
    padded = TOKENS.copy()
    padded[0, 4] = padded[1, 2] = tokenizer.eos_id
    padded[1, 3:] = tokenizer.pad_id
    with torch.no_grad():
        expected = reference.eval()(
            torch.tensor(padded), attention_mask=torch.tensor([[1] * 5, [1] * 3 + [0] * 2])
        ).logits
    assert expected.shape == (2, 1)

    assert huggingface.has_score_head(tmp_path / "prm")
    loaded, same = load(tmp_path / "prm")
    assert same == config and "head" not in loaded
    hidden = hidden_states(config, loaded, padded, POSITIONS)
    found = score(hidden, huggingface.load_score_head(tmp_path / "prm"), np.array([4, 2]))
    np.testing.assert_allclose(found, expected[:, 0].numpy(), atol=1e-4)


def test_scalar_head_goes_over_a_mesh_and_back(checkpoint, tokenizer, tmp_path):
    params, config = load(checkpoint[0])
    head = {"kernel": jax.random.normal(jax.random.key(0), (config.hidden_size,))}
    huggingface.save(tmp_path / "one", params, config, tokenizer, score_head=head)
    mesh = make_mesh(MeshShape(1, 4, 2))
    config = fit_to_mesh(config, mesh, 12)
    params = huggingface.load_params(tmp_path / "one", config, mesh)
    sharded = huggingface.load_score_head(tmp_path / "one", mesh)
    assert sharded["kernel"].sharding.spec == jax.sharding.PartitionSpec("fsdp")
    np.testing.assert_array_equal(sharded["kernel"], head["kernel"])
    huggingface.save(tmp_path / "two", params, config, tokenizer, score_head=sharded)
    one, two = (tmp_path / name / "model.safetensors" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_sharded_parameters_compute_the_logits_of_transformers(make_checkpoint):
    folder, reference = make_checkpoint("qwen2")
    mesh = make_mesh(MeshShape(1, 4, 2))
    config = fit_to_mesh(huggingface.load_config(folder), mesh, vocab_multiple=12)
    params = huggingface.load_params(folder, config, mesh)
    with use_mesh(mesh):
        hidden = jax.jit(lambda p: apply(config, p, TOKENS, POSITIONS))(params)
    found = np.asarray(hidden) @ np.asarray(output_embedding(params, config)).T
    with torch.no_grad():
        expected = reference(torch.tensor(TOKENS)).logits.numpy()
    np.testing.assert_allclose(found[..., : config.vocab_size], expected, atol=1e-4)
    assert not found[..., config.vocab_size :].any()
