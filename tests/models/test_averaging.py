"""Means of models: against means of numpy, and of the products of adapters."""

import jax.numpy as jnp
import numpy as np
import pytest

from stair_jax.errors import UserError
from stair_jax.models.averaging import average, average_adapters
from stair_jax.models.lora import Lora

WEIGHTS = (0.5, 0.3, 0.2)
RANKS, SCALES = (2, 3, 2), (2.0, 0.5, 2.0)


def draws(*shape, dtype=jnp.float32):
    rng = np.random.default_rng(sum(shape))
    return [jnp.asarray(rng.normal(size=shape), dtype) for _ in WEIGHTS]


def test_parameters_are_averaged_in_float32_and_keep_their_dtypes():
    """.5 x 256 + .3 x 257 + .2 x 258 in bfloat16 steps of 2 would lose what the others add."""
    halves = [jnp.full((2,), value, jnp.bfloat16) for value in (256, 258, 258)]
    trees = [{"a": {"b": b}, "c": c} for b, c in zip(draws(3, 4), halves, strict=True)]
    found = average(iter(trees), WEIGHTS)
    expected = sum(w * np.asarray(tree["a"]["b"]) for w, tree in zip(WEIGHTS, trees, strict=True))
    np.testing.assert_allclose(found["a"]["b"], expected, rtol=1e-6)
    assert found["c"].dtype == jnp.bfloat16 and found["c"].tolist() == [256, 256]  # 257, to even


def adapters(**more):
    """Adapters of two layers beside a kernel with two input axes, and rows of two tokens."""
    found = []
    for i, (rank, scale) in enumerate(zip(RANKS, SCALES, strict=True)):
        layers = {"out_lora_a": draws(2, 3, 4, rank)[i], "out_lora_b": draws(2, rank, 5)[i]}
        lora = Lora(rank, scale, ("out",), **{"token_ids": (7, 9)} | more)
        found.append(({"layers": layers, "embedding_rows": draws(2, 6)[i]}, lora))
    return found


def test_the_product_of_the_adapters_is_the_mean_of_their_products():
    def product(params, lora):
        a, b = params["layers"]["out_lora_a"], params["layers"]["out_lora_b"]
        return lora.scale * np.einsum("lhdr,lro->lhdo", a, b)

    given = adapters()
    params, lora = average_adapters(given, WEIGHTS)
    assert (lora.rank, lora.scale, lora.targets) == (7, 2.0, ("out",))
    expected = sum(w * product(*each) for w, each in zip(WEIGHTS, given, strict=True))
    np.testing.assert_allclose(product(params, lora), expected, rtol=1e-5, atol=1e-6)
    rows = sum(w * each["embedding_rows"] for w, (each, _) in zip(WEIGHTS, given, strict=True))
    np.testing.assert_allclose(params["embedding_rows"], rows, rtol=1e-5, atol=1e-6)


def test_adapters_with_rows_of_other_tokens_are_not_averaged():
    first, *rest = adapters()
    other = adapters(token_ids=(7, 8))[1]
    with pytest.raises(UserError, match="rows of other tokens: set form to merged"):
        average_adapters([first, other, *rest[1:]], WEIGHTS)
