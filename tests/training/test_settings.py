import pytest

from stair_jax.errors import UserError
from stair_jax.parallel.mesh import MeshShape, make_mesh
from stair_jax.training.keep import Keep
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
        ("checkpoint_every", -1, "at least 0"),
        ("checkpoint_minutes", float("nan"), "a finite number at least 0"),
    ],
)
def test_settings_of_checkpoints_that_cannot_be_are_named(name, value, rule):
    with pytest.raises(UserError, match=f"{name} is {value}: it must be {rule}"):
        TrainingSettings(**{name: value})


@pytest.mark.parametrize("others", [{}, {"keep_best": "loss", "checkpoint_every": 0}])
def test_the_best_checkpoint_cannot_be_used_where_none_is_kept(others):
    with pytest.raises(UserError, match="use_best needs keep_best, and checkpoint_every or"):
        TrainingSettings(use_best=True, **others)


def test_the_state_cannot_be_kept_where_none_is_saved():
    TrainingSettings(keep_state=True, checkpoint_every=0, checkpoint_minutes=5)
    with pytest.raises(UserError, match="keep_state needs checkpoint_every or checkpoint_minutes"):
        TrainingSettings(keep_state=True, checkpoint_every=0)


def test_rows_of_a_micro_batch_follow_the_mesh_unless_they_are_set():
    mesh = make_mesh(MeshShape(data=2, fsdp=2, tensor=2))
    assert TrainingSettings(microbatch_rows=0).rows_on(mesh) == 8
    assert TrainingSettings(microbatch_rows=12).rows_on(mesh) == 12
    with pytest.raises(UserError, match="microbatch_rows is 6: it must be a multiple of 4, data x"):
        TrainingSettings(microbatch_rows=6).rows_on(mesh)
