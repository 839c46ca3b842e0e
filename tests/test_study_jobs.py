"""The study as a list of jobs, the choice among variants, its pages and its archive."""

import io
import json
import os
import re
import tarfile
from pathlib import Path

import pytest

from stair_jax import launch, recipes, storage
from stair_jax.commands.config_file import load_config, load_sweep
from stair_jax.commands.flags import make_parser, read_arguments
from stair_jax.commands.help import verb_module
from stair_jax.commands.study_tables import make_tables, page_files
from stair_jax.errors import UserError
from stair_jax.evaluation import blocks
from stair_jax.recipes.study.choice import DevFigures, choose, chosen_overrides
from stair_jax.recipes.study.jobs import PARTS, Study, study_jobs
from stair_jax.recipes.study.tables import PAGES
from stair_jax.run import sweep_grid
from stair_jax.run.job_list import in_order
from stair_jax.run.run_config import read_config
from stair_jax.stages import STAGES

ROOT = Path(recipes.__file__).parents[2]
STUDY = Study(Path("runs/study"), "elsewhere/data", "models/own")
JOBS = study_jobs(STUDY)
CHOOSES = "choice"


def read_job(job):
    """The run of a job, as its command reads it; None: it is none."""
    verb, *words = job.words
    module = verb_module(verb)
    arguments = read_arguments(make_parser(verb, module.SUMMARY, module.add_flags), words)
    if verb == "study":
        return None
    overrides = list(arguments.overrides)
    if verb == "sweep":
        options = arguments.options
        own = sweep_grid.read_own(load_sweep(options.config), options.config)
        varied = sweep_grid.grid(sweep_grid.parse_vary(options.vary))
        cells = sweep_grid.product(own, varied)
        (name,) = sweep_grid.chosen(list(cells), options.only)
        assert job.name == f"{Path(options.workdir).relative_to(STUDY.workdir)}/{name}"
        overrides += sweep_grid.overrides_of(cells[name])
    else:
        assert job.name == str(Path(arguments.options.workdir).relative_to(STUDY.workdir))
    return read_config(load_config(arguments.options.config), STAGES, overrides)


@pytest.fixture(scope="module")
def runs():
    return {name: read_job(job) for name, job in JOBS.items()}


def test_each_job_is_a_command_that_can_be_read(runs):
    for name, run in runs.items():
        if name == CHOOSES:
            continue
        assert JOBS[name].product.parent.name == run.stages[-1].name, name
        assert run.stages[-1].kind == "evaluate"
        assert "data/study/" not in str(run.effective()).replace("elsewhere/data", "")
        seed = re.search(r"seed-?(\d)|^(\d)/", name)
        assert run.seed == int(seed[1] or seed[2]) if seed else run.seed == 0


def test_every_recipe_of_the_study_has_its_jobs():
    used = {word for job in JOBS.values() for word in job.words if word.startswith("--config=")}
    used = {word.removeprefix("--config=").partition(":")[0] for word in used}
    assert used == {name for name in recipes.RECIPES if name.startswith("study_")}
    swept = {
        "judges": "study_judges",
        "parts": "study_parts",
        "pocket_parts/seed2": "study_pocket_parts",
    }
    for folder, recipe in swept.items():
        cells = {name.removeprefix(f"{folder}/") for name in JOBS if name.startswith(f"{folder}/")}
        assert cells == set(recipes.get_sweep(recipe))


def test_what_a_job_waits_for_makes_stages_that_it_takes_over(runs):
    """Among these is the stage of which the list says that it is enough."""
    for name, job in JOBS.items():
        if name == CHOOSES:
            continue
        own = {e.name: e.stage.identity() for e in runs[name].stages if e.kind != "evaluate"}
        for other in job.waits_for:
            if other == CHOOSES:
                continue
            theirs = {e.name: e.stage.identity() for e in runs[other].stages}
            shared = {stage for stage in own if own[stage] == theirs.get(stage)}
            assert shared, (name, other)
            early = job.enough.get(other)
            if early is None:
                assert other.startswith("pocket"), (name, other)
                continue
            stage = early.parent.name
            assert early == STUDY.workdir / other / stage / "complete.json"
            assert stage in shared, (name, other)
    for seed in STUDY.seeds:  # the plain recipe, which may be chosen
        mine, cell = runs[f"{seed}/our_average"], runs[f"rates/plain_seed-{seed}"]
        for one, other in zip(mine.stages[:-2], cell.stages[:-1], strict=True):
            assert (one.name, one.stage.identity()) == (other.name, other.stage.identity())


def test_the_table_of_arms_goes_first_seed_by_seed_and_only_pocket_jobs_run_on_cpus():
    order = in_order(JOBS)
    arms = [name.partition("/")[0] for name in order if JOBS[name].part == "arms"]
    assert arms[arms.index("1") + 2 :] == sorted(arms[arms.index("1") + 2 :])
    parts = [JOBS[name].part for name in order if JOBS[name].place == "gpu"]
    last = max(i for i, part in enumerate(parts) if part == "arms")
    assert set(parts[: last + 1]) == {"arms", "dev"}
    on_cpus = {job.part for job in JOBS.values() if job.place == "cpu"}
    assert on_cpus == {"pocket", "pocket_ablations"}
    assert {job.part for job in JOBS.values()} == set(PARTS)


BASE = DevFigures(refusals=0.35, over_refusal=0.36, accuracy=0.15)


def test_the_choice_is_the_most_refusals_among_those_that_cost_nothing():
    candidates = {
        "refuses all": DevFigures(0.95, 0.60, 0.15),  # .24 above the base
        "forgets": DevFigures(0.90, 0.30, 0.09),  # .06 below
        "at both limits": DevFigures(0.70, 0.38, 0.10),
        "careful": DevFigures(0.60, 0.10, 0.20),
    }
    assert choose(BASE, candidates) == ("at both limits", True)


def test_without_one_that_qualifies_the_difference_of_refusals_counts():
    candidates = {
        "a": DevFigures(0.90, 0.70, 0.15),  # .20
        "b": DevFigures(0.75, 0.45, 0.15),  # .30
        "c": DevFigures(0.55, 0.30, 0.05),  # .25, and GSM8K is lost
    }
    assert choose(BASE, candidates) == ("b", False)


def write_table(folder, shares_by_model, run):
    """A finished stage `dev` with the shares of ten answers of each model, and its run."""
    names = ("dev_harmful.refusals", "dev_harmless.over_refusal", "dev_gsm8k.accuracy")
    columns = []
    for name in names:
        benchmark, metric = name.split(".")
        columns.append({"benchmark": benchmark, "attack": "none", "metric": metric})
    table = {
        "schema": 1,
        "rows": [{"model": model, "method": "greedy"} for model in shares_by_model],
        "columns": columns,
        "cells": [
            [
                {"value": share, "metric": column["metric"], "n": 10}
                for column, share in zip(columns, shares, strict=True)
            ]
            for shares in shares_by_model.values()
        ],
        "costs": [{"answers": 30} for _ in shares_by_model],
        "compared": [],
        "judges": {},
        "calibrations": [],
        "pairs": [],
        "num_samples": 10,
    }
    storage.write_json(folder / run / "dev/table.json", table)


def chain(*iterations):
    names = ("ours1", "ours2", "ours3", "our_average")
    return dict(zip(names, iterations, strict=True))


def test_the_choice_is_an_iteration_of_a_variant_by_the_tables_of_all_seeds(tmp_path, capsys):
    """A variant without a table of each seed counts for nothing."""
    write_table(tmp_path, {"base": (0.3, 0.3, 0.2)}, "0/base")
    swings = chain((0.5, 0.3, 0.2), (0.9, 0.6, 0.2), (0.2, 0.0, 0.2), (0.55, 0.3, 0.2))
    for seed in (0, 1, 2):
        write_table(tmp_path, swings, f"rates/plain_seed-{seed}")
    steady = chain((0.6, 0.3, 0.2), (0.64, 0.3, 0.2), (0.7, 0.5, 0.2), (0.63, 0.3, 0.2))
    words = ["stair-jax", "study", "--choose", f"--workdir={tmp_path}"]
    for seed, chosen in (
        (0, "plain/our_average of 4"),
        (1, "plain/our_average of 4"),
        (2, "rate_1e-05/ours2 of 8"),
    ):
        write_table(tmp_path, steady, f"rates/rate_1e-05_seed-{seed}")
        assert launch.main(words) == 0
        assert capsys.readouterr().out.startswith(f"{chosen}: ")
    made = json.loads((tmp_path / "choice.json").read_text())
    assert (made["variant"], made["policy"], made["qualifies"]) == ("rate_1e-05", "ours2", True)
    assert made["figures"]["rate_1e-05/ours2"] == pytest.approx(
        {"refusals": 0.64, "over_refusal": 0.3, "accuracy": 0.2}
    )
    assert chosen_overrides(tmp_path) == ["--config.dpo.learning_rate=1e-05"]
    assert launch.main(["stair-jax", "study", "--list", f"--workdir={tmp_path}"]) == 0
    listed = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    chosen = [name for name, line in listed.items() if line.endswith("dpo.learning_rate=1e-05")]
    assert sorted(chosen) == [f"{seed}/{name}" for seed in range(3) for name in sorted(swings)]


@pytest.mark.parametrize("page", PAGES)
def test_the_tables_of_a_page_are_those_of_the_list(page):
    assert blocks.block_names((ROOT / f"docs/{page}.md").read_text()) == [
        block.name for block in PAGES[page]
    ]


def test_tables_without_runs_say_so_and_those_that_are_there_stay(tmp_path):
    runs, docs = tmp_path / "runs", tmp_path / "docs"
    runs.mkdir()
    kept = "\n| a |\n| --- |\n| 1 |\n\n"
    page = "# P\n<!-- table: judges -->\n\n<!-- end of table: judges -->\n"
    page += f"<!-- table: parts -->\n{kept}<!-- end of table: parts -->\n"
    storage.write_text(docs / "study.md", page)
    make_tables(page_files(str(docs), runs), runs)
    text = (docs / "study.md").read_text()
    assert blocks.read_block(text, "parts", "") == kept
    said = blocks.read_block(text, "judges", "")
    assert said.startswith("\nNot run yet: no run of judges in ") and "evaluate" in said
    made = (docs / "pocket_study.md").read_text()
    assert blocks.block_names(made) == [block.name for block in PAGES["pocket_study"]]
    with pytest.raises(UserError, match=r"study\.md or pocket_study\.md"):
        page_files("docs/other.md", runs)


def vanishing(path):
    """`os.walk` of a folder from which a run removes a file behind it."""
    walk = os.walk

    def walked(folder):
        yield from walk(folder)
        path.unlink(missing_ok=True)

    return walked


def make_stage(folder, kind, files):
    """A finished stage, as far as an archive looks at it."""
    for name in files:
        storage.write_text(folder / name, f"{folder.name} {name}" + bytes(range(256)).hex() * 40)
    described = {name: {"bytes": 1, "sha256": "0"} for name in files}
    record = {"kind": kind, "name": folder.name, "seed": 0, "settings": {}, "inputs": {}}
    storage.write_json(folder / "complete.json", record | {"fingerprint": "0", "files": described})


@pytest.fixture
def packed(tmp_path):
    """The folder of a study; and by flags: names, sizes of parts and links of its archive."""
    study, out = tmp_path / "study", tmp_path / "out"
    adapter = ["hf/adapter_config.json", "hf/adapter_model.safetensors"]
    make_stage(study / "0/i/dpo", "dpo", [*adapter, "metrics.jsonl", "reference.npz"])
    make_stage(study / "0/i/base", "model", ["hf/config.json", "hf/model.safetensors"])
    make_stage(study / "0/i/files", "files", ["sft.jsonl"])
    make_stage(study / "0/i/search", "search", ["trees.jsonl.gz", "probe.json"])
    for name in ("logs/0/i.log", "0/i/.jax_cache/x.json", "0/i/sft/metrics.jsonl"):
        storage.write_text(study / name, name)  # the last one of a stage that still runs
    (study / "1").mkdir()
    os.link(study / "0/i/search/probe.json", study / "1/probe.json")

    def pack(*flags):
        words = ["stair-jax", "study", f"--workdir={study}", f"--pack={out}/a.tar.xz", *flags]
        assert launch.main(words) == 0
        parts = sorted(out.iterdir())
        whole = io.BytesIO(b"".join(part.read_bytes() for part in parts))
        with tarfile.open(fileobj=whole) as archive:
            links = [member.name for member in archive if member.islnk()]
            return archive.getnames(), [part.stat().st_size for part in parts], links

    return study, pack


TABLES = [
    "0/i/base/complete.json",
    "0/i/dpo/complete.json",
    "0/i/search/complete.json",
    "0/i/search/probe.json",
    "1/probe.json",
    "0/i/dpo/metrics.jsonl",
    "0/i/sft/metrics.jsonl",
    "logs/0/i.log",
]


def test_an_archive_comes_in_parts_and_has_records_first(packed):
    _, pack = packed
    names, (_,), links = pack()
    assert names == TABLES and links == ["1/probe.json"]
    names, sizes, _ = pack("--part-megabytes=0.0002")
    assert names == TABLES and len(sizes) > 1 and max(sizes) <= 200


def test_an_archive_has_adapters_and_trees_or_all_to_go_on_with(packed):
    _, pack = packed
    adapter = [f"0/i/dpo/hf/adapter_{name}" for name in ("config.json", "model.safetensors")]
    assert pack("--what=adapters,trees")[0] == [*adapter, "0/i/search/trees.jsonl.gz"]
    more = {*adapter, "0/i/dpo/reference.npz", "0/i/search/trees.jsonl.gz"}
    names = pack("--what=runs")[0]
    assert set(names) == {*TABLES, *more} - {"0/i/base/complete.json"}
    assert len(names) == len(set(names))


def test_what_vanishes_while_an_archive_is_written_is_left_out(packed, monkeypatch):
    study, pack = packed
    gone = "0/i/dpo/metrics.jsonl"
    monkeypatch.setattr(os, "walk", vanishing(study / gone))
    assert pack()[0] == [name for name in TABLES if name != gone]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "--workdir is missing"),
        (["--workdir=w", "--seeds=0,0"], "different seeds"),
        (["--workdir=w", "--per-gpu=0"], "at least 1"),
        (["--workdir=w", "--gpus=9"], "this host shows"),
        (["--workdir=w", "--data=none"], "holds no sft.jsonl"),
        (["--workdir=w", "--parts=arm"], "no such part"),
        (["--workdir=w", "--pack=a.zip"], r"\.tar\.xz"),
    ],
)
def test_a_mistake_is_said_before_anything_is_written(flags, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert launch.main(["stair-jax", "study", *flags]) == 2
    assert re.search(said, capsys.readouterr().err)
    assert not any(tmp_path.iterdir())
