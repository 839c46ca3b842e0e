"""Arms of the study in the pocket world: what they share with the recipe `pocket`."""

from pathlib import Path

import pytest

from stair_jax import recipes
from stair_jax.commands.config_file import load_config, load_sweep
from stair_jax.run import pipeline
from stair_jax.run.run_config import read_config
from stair_jax.run.sweep import read_cells
from stair_jax.run.sweep_grid import read_own
from stair_jax.stages import STAGES

ROOT = Path(__file__).parents[1]


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


@pytest.mark.parametrize(
    "recipe",
    ["study_pocket", "study_pocket_ablations", "study_pocket_parts", "study_pocket_narrow"],
)
def test_the_runs_pass_the_checks_before_a_run(recipe, tmp_path):
    models = pipeline.check(read_config(recipes.get_config(recipe), STAGES), tmp_path / "run")
    assert {"base"} < {*models}


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
    assert differences("iter1", "once_3_epochs") == {"epochs"}
    assert differences("iter1", "all_at_once") == {"preferences"}
    assert differences("helpful", "sacpo") == {"model", "file", "beta"}
    assert differences("sft", "sft_contrast") == {"data"}
    assert differences("data", "our_data") == {"contrasts", "forced_starts", "labels"}
    assert differences("search1", "our_search1") == {"model", "prompts", "judge"}
    assert differences("iter3", "ours3") == {"model", "preferences", "adaptive_rates"}


def cells_of(name):
    """The cells of a sweep as runs, by name: the stages by theirs."""
    file = str(ROOT / f"configs/study/{name}.py")
    found = read_cells(load_config(file), STAGES, [], read_own(load_sweep(file), file), Path("."))
    return {cell.name: {entry.name: entry for entry in cell.config.stages} for cell in found}


def changed_stages(cells, first):
    """By cell, the stages whose own settings are not those of the cell `first`."""
    return {
        name: {
            stage
            for stage in stages
            if stages[stage].stage.identity() != cells[first][stage].stage.identity()
        }
        for name, stages in cells.items()
    }


@pytest.fixture(scope="module")
def cells():
    """The cells of the ablations."""
    return cells_of("pocket_ablations")


def test_a_cell_differs_from_the_recipe_in_what_its_name_says(cells):
    changed = changed_stages(cells, "paper")
    searches, pairs = ({f"{kind}{i}" for i in (1, 2, 3)} for kind in ("search", "pairs"))
    for name, stages in changed.items():
        prefix = name.partition("_")[0]
        if prefix in ("reward", "n", "m") or name in ("judge_expected", "judge_rule", "judge_base"):
            assert stages == searches, name
        if prefix == "safety":
            assert stages == {"sft"}, name
    assert changed["paper"] == set()
    assert changed["full_answers"] == pairs
    assert changed["judge_errs"] == {"data"}


def test_the_recipe_of_the_ablations_is_the_arm_of_the_paper(cells, grid):
    for name in ("data", "base", "sft", "search2", "pairs3", "iter3"):
        assert cells["paper"][name].stage.identity() == grid[name].stage.identity()


def test_a_part_of_our_recipe_is_left_out_in_the_stages_that_it_is_about(grid):
    parts = cells_of("pocket_parts")
    assert changed_stages(parts, "ours") == {
        "ours": set(),
        "no_contrasts": {"our_data"},
        "no_wrong_starts": {"our_data"},
        "no_harmless_refusals": {"our_search1", "our_search2", "our_search3"},
        "no_adaptive_rates": {"ours1", "ours2", "ours3"},
    }
    for name, entry in parts["ours"].items():
        if name != "evaluate":
            assert entry.stage.identity() == grid[name].stage.identity()


def test_what_mends_over_refusal_differs_from_the_paper_in_prompts_and_their_reward():
    stages = {
        name: entry.stage.identity() for name, entry in stages_of("study_pocket_narrow").items()
    }
    for i in (1, 2, 3):
        one, other = stages[f"narrow_search{i}"], stages[f"mended_search{i}"]
        changed = {key for key in {*one, *other} if one.get(key) != other.get(key)}
        assert changed == {"prompts", "judge", "model"} - ({"model"} if i == 1 else set())
    assert stages["narrow_data"]["lookalikes"] == stages["mended_data"]["lookalikes"] == 0.0
    assert "contrasts" not in stages["narrow_data"] and stages["mended_data"]["contrasts"] == 0.25
