"""The study's recipes for real models, on the base of the pocket world and a few rows."""

import csv
from pathlib import Path

import pytest

from stair_jax import recipes
from stair_jax.commands.config_file import load_config, load_sweep
from stair_jax.data.records import write_rows
from stair_jax.errors import UserError
from stair_jax.evaluation import blocks
from stair_jax.pocket import datasets
from stair_jax.recipes.study.real import DATA
from stair_jax.run import pipeline
from stair_jax.run.override import Override
from stair_jax.run.run_config import read_config
from stair_jax.stages import STAGES
from stair_jax.storage import read_json, read_jsonl, write_jsonl

ROOT = Path(recipes.__file__).parents[2]
REAL = [name for name in recipes.RECIPES if name.startswith("study_") and "pocket" not in name]
SWEPT = [name for name in REAL if recipes.get_sweep(name)]


def make_folder(folder):
    """A folder as `stair-jax data study` writes it, in the words of the pocket world."""
    structured, direct = datasets.sft_rows(0, 84, 0.0, 0)
    for name, rows in (
        ("sft", structured[:80]),
        ("sft_contrast", structured[80:]),
        ("sft_direct", direct[:80]),
    ):
        write_rows(folder / f"{name}.jsonl", rows)
    for number, rows in enumerate(datasets.search_rows(0, 4, 3, []), start=1):
        write_rows(folder / f"prompts{number}.jsonl", rows)
    prompts = [row.prompt for row in structured[:4]]
    case = {"kind": "safety", "answer": "no .", "safety": 1, "helpfulness": None}
    write_jsonl(folder / "judge_cases.jsonl", [case | {"prompt": prompts[0]}])
    label = {"id": "0", "prompt": prompts[0], "answer": "no .", "label": "full_refusal"}
    write_jsonl(folder / "judge_labels/xstest_refusal.jsonl", [label])
    for name, grading in (
        ("harmful", {"question": "refusal", "metric": "refusals"}),
        ("harmless", {"question": "refusal", "metric": "over_refusal"}),
        ("gsm8k", {"match": "number"}),
    ):
        rows = [{"prompt": prompt, "reference": "3"} for prompt in prompts]
        header = {"benchmark": {"name": f"dev_{name}", "role": "development", **grading}}
        write_jsonl(folder / f"dev/{name}.jsonl", [header, *rows])
    make_benchmarks(folder / "bench", prompts)


def make_benchmarks(folder, prompts):
    """The official files of the benchmarks, with these prompts."""
    write_table(
        folder / "strongreject/strongreject_dataset.csv",
        [{"category": "a", "source": "b", "forbidden_prompt": prompt} for prompt in prompts],
    )
    write_table(
        folder / "xstest/xstest_prompts.csv",
        [
            {"id": f"{kind}{number}", "prompt": prompt, "type": kind, "focus": "c"}
            for number, prompt in enumerate(prompts)
            for kind in ("homonyms", "contrast_homonyms")
        ],
    )
    rows = [{"question": prompt, "answer": "#### 3"} for prompt in prompts]
    write_jsonl(folder / "gsm8k/test.jsonl", rows)


def write_table(path, rows):
    path.parent.mkdir(parents=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A folder to run in, with the data of the study where the recipes look for it."""
    folder = tmp_path_factory.mktemp("study")
    (folder / DATA).mkdir(parents=True)
    make_folder(folder / DATA)
    return folder


def read(name, values=None, argument="pocket"):
    """A recipe as a run, with fields set as a cell or the command line does."""
    overrides = [Override(field, str(value), field) for field, value in (values or {}).items()]
    return read_config(recipes.get_config(name, argument), STAGES, overrides)


@pytest.mark.parametrize("name", REAL)
def test_every_experiment_passes_the_checks_before_a_run(name, study, tmp_path, monkeypatch):
    monkeypatch.chdir(study)
    run = read(name)
    models = pipeline.check(run, tmp_path / "run")
    assert {entry.name for entry in run.stages if entry.kind in ("model", "sft", "dpo")} <= {
        *models
    }
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", SWEPT)
def test_every_cell_of_a_sweep_is_a_run_of_its_own(name):
    runs = [read(name, cell) for cell in recipes.get_sweep(name).values()]
    told = {str([(e.name, e.stage.identity()) for e in run.stages]) for run in runs}
    assert len(told) == len(runs) >= 2


@pytest.mark.parametrize("name", REAL)
def test_a_config_file_is_the_recipe_of_its_name(name):
    path = f"{ROOT}/configs/study/{name.removeprefix('study_')}.py"
    assert load_config(f"{path}:pocket,full") == recipes.get_config(name, "pocket,full")
    assert (load_sweep(path) or None) == recipes.get_sweep(name)


def test_experiments_agree_on_the_stages_that_they_share():
    """So that the one takes them over from the other; each evaluates its own arms."""
    arms = [name for name in REAL if name not in SWEPT and name != "study_steps"]
    ours = {"study_ours1", "study_ours2", "study_ours3"}
    seen = {}
    for name in arms:
        for entry in read(name).stages:
            if entry.kind == "evaluate":
                continue
            recipe = "ours" if name in ours and entry.kind == "dpo" else "paper"
            known = seen.setdefault((entry.name, recipe), entry.stage.identity())
            assert known == entry.stage.identity(), f"{entry.name} of {name}"


def test_our_recipe_balances_what_pairs_teach_and_a_cell_draws_by_regret_instead():
    cells = recipes.get_sweep("study_parts")
    runs = {name: read("study_parts", cells[name]) for name in ("ours", "no_balance")}
    runs["regret"] = read("study_parts", cells["adaptive_rates"])
    runs["paper"] = read("study_iter1")
    found = {
        name: [(e.stage.balance, e.stage.adaptive_rates) for e in run.stages if e.kind == "dpo"]
        for name, run in runs.items()
    }
    assert found == {
        "ours": [("outcome", 0.0)],
        "no_balance": [("none", 0.0)],
        "regret": [("none", 1.0)],
        "paper": [("none", 0.0)],
    }


def test_adapters_or_all_parameters_are_trained():
    adapted, whole = (read("study_iter1", argument=a) for a in ("pocket", "pocket,full"))
    for name in ("sft", "iter1"):
        one, other = ({e.name: e.stage for e in run.stages}[name] for run in (adapted, whole))
        assert one.lora.rank and not other.lora.rank
        assert one.learning_rate > other.learning_rate
    with pytest.raises(UserError, match="MODEL,full"):
        recipes.get_config("study_iter1", "pocket,half")


@pytest.fixture(scope="module")
def first(study, tmp_path_factory):
    """A finished run of the first model's recipe, a few steps of each stage."""
    for name in ("strongreject_none", "xstest_safe_all", "gsm8k_32"):
        rows = [{"prompt": f"what is {i} plus 2 ?", "reference": f"{i + 2}"} for i in range(3)]
        write_jsonl(study / f"{DATA}/eval/{name}.jsonl", rows)
    training = {
        "batch_size": 8,
        "max_length": 128,
        "microbatch_rows": 4,
        "learning_rate": 5e-3,
        "lora.rank": 8,
        "logps_chunks": 1,
    }
    values = {
        "model.redraw_tags": True,
        "runtime.training_mesh.fsdp": 1,
        "runtime.decoding_mesh.tensor": 1,
        "runtime.slots": 16,
        "runtime.prefill_rows": 4,
        **{f"{kind}.{name}": v for kind in ("sft", "dpo", "prm") for name, v in training.items()},
        "sft.held_out": 4.0,
        "sft.eval_every": 8,
        "sft.epochs": 2.5,
        "search.num_iterations": 6,
        "search.temperature": 1.5,
        "search.max_step_tokens": 48,
        "search.max_answer_tokens": 80,
        "search.context_tokens": 192,
        # The words of that world have none for a judge's question.
        "search.judge_model": "",
        "search.judge.probe": "",
        "search.judge.helpfulness_prompts_source": "reference",
        "search.judge.malformed": -3.0,
        "preferences.v0": 0.0,
        "preferences.v1": -3.0,
        "preferences.prm.v0": 0.0,
        "evaluate.max_tokens": 64,
        "evaluate.context_tokens": 192,
        "evaluate.limit": 2,
    }
    workdir = tmp_path_factory.mktemp("first") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(study)
        pipeline.run(read("first_model", values), workdir)
    return workdir


@pytest.mark.slow
def test_the_first_model_goes_through_every_stage_to_a_table(first):
    stages = ("files", "base", "sft", "search", "preferences", "dpo", "prm", "evaluate")
    assert all((first / stage / "complete.json").is_file() for stage in stages)
    assert read_jsonl(first / "preferences/dpo.jsonl")
    table = read_json(first / "evaluate/table.json")
    assert [row["model"] for row in table["rows"]] == ["base", "sft", "dpo"]


@pytest.mark.slow
def test_the_first_models_loss_of_held_out_rows_falls(first):
    rows = read_jsonl(first / "sft/metrics.jsonl")
    losses = [row["eval/loss"] for row in rows if "eval/loss" in row]
    assert len(losses) == 3 and losses == sorted(losses, reverse=True)


@pytest.mark.parametrize("page", ["docs/study.md", "docs/pocket_study.md"])
def test_each_table_of_a_page_holds_the_command_that_makes_it(page):
    text = (ROOT / page).read_text()
    names = blocks.block_names(text)
    assert len(names) > 5
    for name in names:
        body = blocks.read_block(text, name, page)
        if not blocks.has_table(body):
            assert body.startswith("\nNot run yet")
            continue
        words = blocks.command_of(body)
        assert words[:2] == ["stair-jax", "table"]
        assert words[-2:] == [f"--into={page}", f"--block={name}"]
