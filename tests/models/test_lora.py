"""Trees of adapters: splitting, joining, stacking, merging, and refusals."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stair_jax.errors import UserError
from stair_jax.models import flops, lora
from stair_jax.models.transformer import apply, init_params, logical_axes, new_adapters, output_head
from stair_jax.parallel.mesh import make_mesh
from stair_jax.testing.merging import merge
from stair_jax.testing.tiny_models import tiny_config
from stair_jax.training import adapters
from stair_jax.training.logits import narrowed, products
from stair_jax.training.lora_settings import LoraSettings

IDS = (3, 17)
LORA = lora.Lora(3, 1.5, token_ids=IDS)
TOKENS = np.array([[3, 5, 17, 9, 3]], np.int32)


def drawn(tree, seed=1):
    """A tree like this of normal numbers."""
    leaves, structure = jax.tree.flatten(tree)
    rng = np.random.default_rng(seed)
    return structure.unflatten(
        [jnp.asarray(rng.normal(size=leaf.shape, scale=0.3), leaf.dtype) for leaf in leaves]
    )


@pytest.fixture(scope="module")
def config():
    return tiny_config(lora=LORA)


@pytest.fixture(scope="module")
def model(config):
    """(frozen, trained)."""
    frozen, trained = lora.split(init_params(config, jax.random.key(0)))
    return frozen, drawn(trained)


def logits_of(config, params):
    def run(params):
        places = jnp.arange(TOKENS.shape[1])[None]
        hidden = apply(config, params, TOKENS, places)
        head = output_head(params, config)
        return products(hidden, narrowed(head, hidden), head)

    return jax.jit(run)(params)


def assert_same(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def plain(config):
    return dataclasses.replace(config, lora=None)


def test_what_is_split_is_joined_again(config, model):
    frozen, trained = model
    whole = lora.join(frozen, trained)
    parts = lora.split(whole)
    assert jax.tree.structure(parts) == jax.tree.structure(model)
    assert all(a is b for a, b in zip(jax.tree.leaves(parts), jax.tree.leaves(model), strict=True))
    assert set(trained) == {"layers", "embedding_rows", "head_rows"}
    assert set(frozen["layers"]) >= set(lora.KERNELS)
    assert lora.join({}, trained) is trained


@pytest.mark.parametrize("kind", ["arrays", "shapes", "axes"])
def test_the_first_ranks_are_kept_frozen(config, model, kind):
    whole = lora.join(*model)
    if kind == "shapes":
        whole = jax.eval_shape(lambda: whole)
    if kind == "axes":
        whole = logical_axes(config)
    frozen, trained = lora.split(whole, 2)
    rows = {"embedding_rows", "head_rows"}
    assert rows <= set(trained) and not rows & set(frozen)
    if kind == "axes":
        for part in (frozen, trained):
            assert part["layers"]["out_lora_a"] == whole["layers"]["out_lora_a"]
        return
    sizes = {
        name: [part["layers"][name].shape for part in (frozen, trained)]
        for name in ("out_lora_a", "query_lora_b")
    }
    assert sizes["out_lora_a"] == [(2, 2, 8, 2), (2, 2, 8, 1)]
    assert sizes["query_lora_b"] == [(2, 2, 2, 8), (2, 1, 2, 8)]
    if kind == "arrays":
        jax.tree.map(np.testing.assert_array_equal, lora.join(frozen, trained), whole)


def test_a_merged_model_is_the_one_with_adapters(config, model):
    whole = lora.join(*model)
    expected = logits_of(config, whole)
    bare = logits_of(plain(config), model[0])
    merged = merge(LORA, jax.tree.map(jnp.copy, whole))
    assert set(merged) == {"embedding", "final_norm", "head", "layers"}
    assert_same(logits_of(plain(config), merged), expected)
    assert np.abs(expected - bare).max() > 0.1
    np.testing.assert_array_equal(merged["head"][jnp.array(IDS)], whole["head_rows"])
    np.testing.assert_array_equal(merged["embedding"][4], whole["embedding"][4])


def test_merging_by_hand(config, model):
    whole = lora.join(*model)
    layers = jax.device_get(whole["layers"])
    merged = merge(LORA, jax.tree.map(jnp.copy, whole))["layers"]
    for name, spec in (("down", "lfr,lrd->lfd"), ("out", "lnhr,lrd->lnhd")):
        a, b = layers[name + "_lora_a"], layers[name + "_lora_b"]
        wanted = layers[name] + 1.5 * np.einsum(spec, a, b)
        np.testing.assert_allclose(merged[name], wanted, rtol=1e-5, atol=1e-6)


def test_new_adapters_change_nothing(config, model):
    whole = adapters.start(
        config, LoraSettings(rank=3, alpha=4.5, train_tags=True), None, model[0], make_mesh(), 0
    )
    np.testing.assert_array_equal(logits_of(config, whole), logits_of(plain(config), model[0]))
    a = np.asarray(whole["layers"]["up_lora_a"])
    assert np.abs(a).max() <= 16**-0.5 < 1.1 * np.abs(a).max()  # uniform, as in PEFT
    assert not np.any(whole["layers"]["up_lora_b"])


def test_stacked_adapters_change_nothing_at_first(config, model):
    """Those of rank 3 and scale 1.5 stay, with B in units of the new scale, 8 / sqrt(4)."""
    settings = LoraSettings(rank=4, alpha=8.0, rslora=True, stack=True, train_tags=True)
    both = dataclasses.replace(config, lora=settings.adapters_on(LORA, 40))
    assert both.lora == lora.Lora(7, 4.0, token_ids=IDS)
    before = lora.join(*model)
    whole = adapters.start(both, settings, LORA, before, make_mesh(), 0)
    assert_same(logits_of(both, whole), logits_of(config, before))
    frozen, trained = lora.split(whole, adapters.num_kept(both, settings))
    halves = frozen["layers"], trained["layers"]
    assert [each["down_lora_b"].shape for each in halves] == [(2, 3, 16), (2, 4, 16)]
    assert not np.any(trained["layers"]["down_lora_b"])
    np.testing.assert_allclose(
        frozen["layers"]["down_lora_b"], before["layers"]["down_lora_b"] * 1.5 / 4, rtol=1e-6
    )
    # Drawn apart from those of the first stage, which had the same seed.
    first = new_adapters(dataclasses.replace(config, lora=settings.adapters), make_mesh(), 0)
    assert np.any(first["layers"]["down_lora_a"] != trained["layers"]["down_lora_a"])


def test_adapters_of_the_same_kind_go_on():
    settings = LoraSettings(rank=3, alpha=4.5, targets=("value", "query"))
    before = lora.Lora(3, 1.5, ("query", "value"))
    assert settings.adapters_on(before, 40) == before == settings.adapters
    assert LoraSettings().adapters_on(before, 40) is None  # all of the merged model


@pytest.mark.parametrize(
    ("before", "changes", "said"),
    [
        (lora.Lora(8, 2.0), {}, r"of rank 8 and scale 2, .* lora\.stack .* or lora\.rank=0"),
        (lora.Lora(4, 1.0), {}, r"scale 1, and lora\.rank, alpha and rslora give 4 and 2:"),
        (lora.Lora(4, 2.0, ("query",)), {}, r"adapters on query, and lora\.targets are query, key"),
        (lora.Lora(4, 2.0, ("query",)), {"stack": True}, r"set lora\.targets to the same"),
        (lora.Lora(4, 2.0, token_ids=IDS), {}, r"set lora\.train_tags"),
    ],
)
def test_other_adapters_are_refused_in_one_line(before, changes, said):
    with pytest.raises(UserError, match=said) as refusal:
        LoraSettings(rank=4, **changes).adapters_on(before, 40)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("stack", True),
        ("alpha", 8.0),
        ("base_weights", "nf4"),
        ("save", "merged"),
        ("targets", ("query",)),
        ("train_tags", True),
    ],
)
def test_settings_without_a_rank_are_refused(name, value):
    with pytest.raises(UserError, match=rf"lora\.rank is 0, .* lora\.{name} is set"):
        LoraSettings(**{name: value}).check()


def test_adapters_need_targets():
    with pytest.raises(UserError, match=r"lora\.targets is empty"):
        LoraSettings(rank=4, targets=()).check()


def test_the_parameters_of_adapters_are_counted(config, model):
    layers = model[1]["layers"]
    assert flops.adapter_params(config) == sum(leaf.size for leaf in layers.values())
    some = dataclasses.replace(config, lora=lora.Lora(3, 1.0, ("key", "down")))
    wanted = [leaf.size for name, leaf in layers.items() if name.startswith(("key", "down"))]
    assert flops.adapter_params(some) == sum(wanted)
    assert flops.adapter_params(plain(config)) == 0
