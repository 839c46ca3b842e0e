"""Arms of the study in the pocket world: what they share with the recipe `pocket`."""

import pytest

from stair_jax import recipes
from stair_jax.run.run_config import read_config
from stair_jax.stages import STAGES


def stages_of(recipe):
    """The settings of each stage of a recipe by name."""
    run = read_config(recipes.get_config(recipe), STAGES)
    return {entry.name: entry for entry in run.stages}


@pytest.fixture(scope="module")
def grid():
    return stages_of("study_pocket")


def test_the_arms_of_the_recipe_pocket_are_its_own_stages(grid):
    """So that a run of the one is a part of a run of the other."""
    own = stages_of("pocket")
    del own["evaluate"]
    for name, entry in own.items():
        assert (entry.kind, entry.stage.identity()) == (
            grid[name].kind,
            grid[name].stage.identity(),
        )


def test_every_policy_is_evaluated(grid):
    policies = {name for name, entry in grid.items() if entry.kind in ("model", "sft", "dpo")}
    assert policies - {*grid["evaluate"].stage.models} == {"helpful"}  # the first half of SACPO


def test_arms_differ_from_their_neighbours_in_what_they_are_about(grid):
    """Each pair of stages has the same settings but for those named."""

    def differences(one, other):
        first, second = (grid[name].stage.identity() for name in (one, other))
        return {key for key in {*first, *second} if first.get(key) != second.get(key)}

    assert differences("iter1", "dpo_full") == {"preferences"}
    assert differences("pairs1", "full_pairs") == {"variant", "match_steps"}
    assert differences("helpful", "sacpo") == {"model", "file", "beta"}
    assert differences("sft", "sft_contrast") == {"data"}
    assert differences("data", "our_data") == {"contrasts", "forced_starts", "labels"}
    assert differences("search1", "our_search1") == {"model", "prompts", "judge"}
    assert differences("iter3", "ours3") == {"model", "preferences"}
