import jax
import jax.numpy as jnp
import numpy as np

from stair_jax.models.config import ModelConfig
from stair_jax.models.heads import init_score_head, score


def test_score_is_the_product_at_the_index():
    hidden = np.arange(12.0).reshape(2, 3, 2)
    head = {"kernel": jnp.array([1.0, -2.0])}
    assert score(jnp.array(hidden), head, jnp.array([2, 0])).tolist() == [4 - 10, 6 - 14]


def test_score_of_bfloat16_states_is_summed_in_float32():
    hidden = jnp.ones((1, 1, 1000), jnp.bfloat16)
    head = {"kernel": jnp.full(1000, 1.0)}
    assert score(hidden, head, jnp.array([0])).tolist() == [1000.0]


def test_a_new_head_is_small_and_depends_on_the_key():
    config = ModelConfig(32, 4000, 8, 1, 4, 2, 8)
    first, second = (init_score_head(config, jax.random.key(i))["kernel"] for i in range(2))
    assert first.shape == (4000,) and abs(float(first.std()) / 0.02 - 1) < 0.1
    assert not np.array_equal(first, second)
