import pytest

from stair_jax.errors import UserError
from stair_jax.training.checkpoints import Keep
from stair_jax.training.settings import TrainingSettings


def test_which_checkpoints_are_kept():
    assert TrainingSettings().kept == Keep(newest=1, best="", num_best=1)
    settings = TrainingSettings(keep=3, keep_best="accuracy", num_best=2)
    assert settings.kept == Keep(newest=3, best="accuracy", num_best=2)


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
