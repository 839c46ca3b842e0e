"""What finished stages cost, by records that were written by hand."""

import pytest

from stair_jax import launch, storage
from stair_jax.reports.cost_page import run_section, run_total, unit_seconds
from stair_jax.reports.records import read_run
from stair_jax.reports.stage_costs import run_costs
from stair_jax.run.stage_times import TIMES_FILE, read_times, timed


@pytest.fixture
def costly(tmp_path, records):
    """A run of a search of two trees and of a DPO of three steps."""
    workdir = tmp_path / "runs" / "a"
    trees = [records.tree("t1"), records.tree("t2")]
    records.search(workdir, trees, ["t1:1:2"])
    rates = [{"step": 1, "trees_per_hour": 900.0}, {"step": 2, "trees_per_hour": 1200.0}]
    storage.write_jsonl(workdir / "search1" / "speed.jsonl", rates)
    steps = [{"step": step, "tokens": 100.0, "weight": 4.0, "loss": 0.5} for step in range(3)]
    storage.write_jsonl(workdir / "iter1" / "metrics.jsonl", [*steps, {"step": 2, "eval/loss": 1}])
    speed = [
        {"step": 0, "compile_seconds": 7.0},
        {"step": 1, "seconds": 2.0, "tokens_per_second": 50.0, "mfu": 0.4},
        {"step": 2, "seconds": 3.0, "mfu": 0.2},
        {"step": 2, "save_seconds": 1.0},
    ]
    storage.write_jsonl(workdir / "iter1" / "speed.jsonl", speed)
    records.finish(workdir / "iter1", "dpo")
    stages = ["search:search1", "preferences:pairs1", "dpo:iter1"]
    storage.write_json(workdir / "config.json", {"stages": stages})
    return workdir


def test_costs_are_put_together_from_what_stages_recorded(costly):
    search, pairs, dpo = run_costs(read_run(costly))
    assert (search.seconds, search.units, search.unit_seconds) == (6.0, 2, 3.0)  # 2 of 1200 an hour
    assert (search.generated, search.tokens_per_second) == (80, 80 / 6)
    assert (pairs.seconds, pairs.units, pairs.unit_seconds) == (None, 0, None)
    assert (dpo.seconds, dpo.compile_seconds) == (13.0, 7.0)  # 2 + 3 + 1 + 7
    assert (dpo.trained, dpo.tokens_per_second) == (300, 200 / 5)
    assert dpo.mfu == pytest.approx(0.3)
    assert (dpo.units, dpo.unit_seconds) == (12, 0.5)  # 6 s of 12 pairs
    assert not search.is_exact and not dpo.is_exact


def test_the_first_tree_of_a_search_that_went_on_does_not_stand_for_all(costly):
    """Trees are searched side by side, so that the first one of a start takes as long as many."""
    rates = [(1, 36.0), (2, 72.0), (3, 18.0), (4, 36.0)]  # 100, 100, 200 and 200 s of a start
    rows = [{"step": step, "trees_per_hour": rate} for step, rate in rates]
    storage.write_jsonl(costly / "search1" / "speed.jsonl", rows)
    assert run_costs(read_run(costly))[0].seconds == 400.0  # 4 trees of 36 an hour


def test_recorded_times_take_precedence_and_add_up(costly):
    """Of a stage that was stopped and went on."""
    times = [
        {"seconds": 20.0, "compile_seconds": 8.0, "device": "NVIDIA H200", "devices": 2},
        {"seconds": 10.0, "compile_seconds": 4.0, "device": "NVIDIA H200", "devices": 2},
    ]
    storage.write_jsonl(costly / "iter1" / TIMES_FILE, times)
    dpo = run_costs(read_run(costly))[-1]
    assert (dpo.seconds, dpo.compile_seconds, dpo.is_exact) == (30.0, 12.0, True)
    assert (dpo.devices, dpo.num_devices, dpo.unit_seconds) == ("2 x NVIDIA H200", 2, 18 / 12)
    assert run_total([dpo])["device_hours"] == pytest.approx(60 / 3600)
    assert run_total(run_costs(read_run(costly)))["device_hours"] is None  # not of the search


def test_trees_and_pairs_stand_beside_those_of_the_paper(costly):
    costs = run_costs(read_run(costly))
    assert unit_seconds(costs, "tree", "search") == 3.0
    assert unit_seconds(costs, "pair", "dpo") == 0.5
    page = run_section("a", costs)
    assert "| s a search tree | 3 | 15 |" in page
    assert "| s a pair of step-level DPO | 0.5 | 0.47 |" in page
    assert "without pairs1" in page
    assert "| iter1 | dpo | 13~ | 7 | 68.4% |" in page


def test_the_command_writes_markdown_and_json(costly, tmp_path, capsys):
    out, file = tmp_path / "costs.md", tmp_path / "costs.json"
    flags = [str(costly), f"--out={out}", f"--json={file}"]
    assert launch.main(["stair-jax", "cost", *flags]) == 0
    assert out.read_text().startswith("# Costs\n")
    (run,) = storage.read_json(file)["runs"]
    assert run["tree_seconds"] == 3.0 and run["total"]["trained"] == 300
    assert [stage["stage"] for stage in run["stages"]] == ["search1", "pairs1", "iter1"]


def test_a_stage_writes_down_how_long_it_took(tmp_path):
    """Also where it fails, and without becoming a part of what it made."""
    with timed(tmp_path):
        pass
    with pytest.raises(ZeroDivisionError), timed(tmp_path):
        _ = 1 / 0
    first, second = read_times(tmp_path)
    assert first.device == second.device == "cpu"
    assert first.devices >= 1 and 0 <= first.compile_seconds <= first.seconds + 0.001


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "name a run or a recipe"),
        (["--config.seed=1"], "name a run or a recipe"),
        (["{run}", "--config.seed=1"], "--config.seed=1 changes a config: name it with --config"),
        (["{run}", "--utilization=0.5"], "are of an estimate: name a recipe (--config)"),
        (["{run}", "--devices=h100:4"], "are of an estimate: name a recipe (--config)"),
        (["{run}/none"], "holds no run"),
        (["--config=llama8b_sft", "--devices=h1000"], "--devices=h1000 is not a known topology"),
        (["--config=llama8b_sft", "--devices=h100:9"], "--devices=h100:9: there can be 1 to 8"),
        (["--config=llama8b_sft", "--devices=v5p:3x2x2"], "--devices=v5p:3x2x2: a slice is made"),
        (["--config=llama8b_sft", "--devices=local"], "name devices, such as h100:8"),
        (["--config=llama8b_sft", "--utilization=2"], "--utilization"),
        (["--config=llama8b_sft", "--prices={{'h20': 2}}"], "--prices names 'h20'"),
        (["--config=llama8b_sft", "--watts={{'h100': 'x'}}"], "--watts"),
    ],
)
def test_a_mistake_is_one_line(costly, capsys, flags, message):
    words = [flag.format(run=costly) for flag in flags]
    assert launch.main(["stair-jax", "cost", *words]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in line
