import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stair_jax.errors import UserError
from stair_jax.training.optimizer import Schedule, make_optimizer


def test_schedule_by_hand():
    schedule = Schedule(peak=1.0, warmup_steps=3, num_steps=11, final=0.2)
    assert [schedule(step) for step in range(4)] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert schedule(5) == pytest.approx(0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi / 4)))
    assert schedule(7) == pytest.approx(0.6)
    assert 0.2 < schedule(10) < schedule(9)


def test_warmup_ratio_counts_steps(settings):
    assert make_optimizer(settings, 50).schedule.warmup_steps == 5
    none = dataclasses.replace(settings, warmup_ratio=0.0)
    assert make_optimizer(none, 50).schedule(0) == settings.learning_rate


def test_updates_are_those_of_adamw(settings):
    settings = dataclasses.replace(settings, weight_decay=0.1, clip_norm=0.5)
    ours = make_optimizer(settings, 4)
    rates = jnp.array([ours.schedule(step) for step in range(4)])
    theirs = optax.chain(
        optax.clip_by_global_norm(0.5), optax.adamw(lambda step: rates[step], weight_decay=0.1)
    )
    params = {"w": jnp.array([1.0, -2.0]), "b": jnp.array(0.5)}
    our_state, their_state = ours.tx.init(params), theirs.init(params)
    for step in range(4):
        gradients = jax.tree.map(lambda param, factor=step + 1: param * factor, params)
        updates, our_state = ours.tx.update(gradients, our_state, params)
        expected, their_state = theirs.update(gradients, their_state, params)
        for name in params:
            np.testing.assert_allclose(rates[step] * updates[name], expected[name], rtol=1e-5)
        params = optax.apply_updates(params, expected)


def test_equal_settings_share_one_transformation(settings):
    other = dataclasses.replace(settings, learning_rate=1.0, warmup_ratio=0.5, batch_size=1)
    assert make_optimizer(settings, 10).tx is make_optimizer(other, 99).tx


@pytest.mark.parametrize(
    ("name", "value"),
    [("learning_rate", 0.0), ("warmup_ratio", 1.5), ("b2", 1.0), ("clip_norm", -1.0)],
)
def test_a_setting_that_cannot_be_is_named(settings, name, value):
    with pytest.raises(UserError, match=f"{name} is {value}"):
        make_optimizer(dataclasses.replace(settings, **{name: value}), 10)
