import pytest

from stair_jax.errors import UserError
from stair_jax.training.checkpoints import Keep
from stair_jax.training.settings import TrainingSettings


def test_which_checkpoints_are_kept():
    assert TrainingSettings().kept == Keep(newest=1, best="", num_best=1)
    settings = TrainingSettings(keep=3, keep_best="accuracy", num_best=2, use_best=True)
    assert settings.kept == Keep(newest=3, best="accuracy", num_best=2, use_best=True)


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("keep", 0, "at least 1"),
        ("num_best", 0, "at least 1"),
        ("checkpoint_every", -1, r"0 \(none\) or more"),
        ("checkpoint_minutes", float("nan"), r"0 \(none\) or more"),
    ],
)
def test_settings_of_checkpoints_that_cannot_be_are_named(name, value, rule):
    with pytest.raises(UserError, match=f"{name} is {value}: it must be {rule}"):
        TrainingSettings(**{name: value})


@pytest.mark.parametrize("others", [{}, {"keep_best": "loss", "checkpoint_every": 0}])
def test_the_best_checkpoint_cannot_be_used_where_none_is_kept(others):
    with pytest.raises(UserError, match="use_best needs keep_best, and checkpoint_every or"):
        TrainingSettings(use_best=True, **others)
