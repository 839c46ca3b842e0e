"""Sweeps: cells, what they share, and how they go on."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import jax
import jax.numpy as jnp
import pytest

from stair_jax import launch, storage
from stair_jax.commands import sweep as sweep_command
from stair_jax.errors import UserError
from stair_jax.evaluation.benchmarks.refusal import OVER_REFUSALS
from stair_jax.evaluation.case import Answer, Case, Graded
from stair_jax.evaluation.graded_rows import graded_rows
from stair_jax.evaluation.tabulate import Result, tabulate
from stair_jax.evaluation.writers import write_table
from stair_jax.run import sweep_grid
from stair_jax.run.lock import locked
from stair_jax.run.stage import Artifact, Stage, stage_input
from stair_jax.run.sweep import save_manifest
from stair_jax.run.sweep_manifest import Manifest, read_manifest, write_manifest

ROOT = Path(launch.__file__).parents[1]
CONFIG = """
    from ml_collections import ConfigDict

    def get_config(size="1"):
        return ConfigDict({
            "seed": 0,
            "stages": ("work:first", "work:second"),
            "first": {"size": int(size)},
            "second": {"base": "first"},
        })
"""


@dataclass(frozen=True)
class Work(Stage):
    """Does what a test says.

    Attributes:
      size: a number.
      rate: another one.
      names: some texts.
      rates: of some names.
      base: an earlier stage.
    """

    size: int = 1
    rate: float = 0.1
    names: tuple[str, ...] = ()
    rates: Mapping[str, float] | None = None
    base: str = stage_input(Artifact.PROMPTS, required=False)
    runs: ClassVar[list[str]] = []
    act: ClassVar[Callable] = staticmethod(lambda stage, context: None)

    def makes(self):
        return {"out.json": Artifact.PROMPTS}

    def run(self, context):
        self.runs.append(f"{context.folder.parent.name}/{context.name}")
        self.act(self, context)
        storage.write_json(context.folder / "out.json", self.size)


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.py"
    path.write_text(textwrap.dedent(CONFIG))
    return path


@pytest.fixture
def work(monkeypatch, no_users_cache):
    """A kind of stage whose `act` a test sets, and whose runs are listed."""
    monkeypatch.setattr(sweep_command, "STAGES", {"work": Work})
    monkeypatch.setattr(Work, "runs", [])
    monkeypatch.setattr(Work, "act", staticmethod(lambda stage, context: None))
    return Work


@pytest.fixture
def sweep(config, tmp_path, work):
    """`sweep(*flags)`: the exit status; the cells are in tmp_path/s."""

    def sweep(*flags):
        command = ("sweep", f"--config={config}", f"--workdir={tmp_path / 's'}", *flags)
        return launch.main(["stair-jax", *command])

    return sweep


def cells_of(folder):
    return storage.read_json(folder / "sweep.json")["cells"]


def test_each_combination_is_a_cell_and_what_they_share_is_run_once(sweep, tmp_path, work):
    assert sweep("--vary=second.rate=0.1,0.2", "--vary=second.size=3,4") == 0
    cells = cells_of(tmp_path / "s")
    assert list(cells) == [
        "rate-0.1_size-3", "rate-0.1_size-4", "rate-0.2_size-3", "rate-0.2_size-4",
    ]  # fmt: skip
    assert cells["rate-0.1_size-4"] == {"second.rate": "0.1", "second.size": "4"}
    first = "rate-0.1_size-3/first"
    assert work.runs == [first, *(f"{cell}/second" for cell in cells)]
    for name in cells:
        assert (tmp_path / f"s/{name}/first/out.json").samefile(tmp_path / "s" / first / "out.json")
        assert storage.read_json(tmp_path / f"s/{name}/second/out.json") == int(name[-1])


def test_pairs_are_the_places_of_all_fields(sweep, tmp_path):
    assert sweep("--pairs", "--vary=second.rate=0.1,0.2", "--vary=second.size=3,4") == 0
    assert list(cells_of(tmp_path / "s")) == ["rate-0.1_size-3", "rate-0.2_size-4"]
    with pytest.raises(UserError, match=r"second.rate has 1, second.size has 2"):
        sweep_grid.pairs(sweep_grid.parse_vary(["second.rate=1", "second.size=3,4"]))


def test_the_seed_and_overrides_of_all_cells(sweep, tmp_path, work):
    assert sweep("--vary=seed=0,1", "--config.second.size=7") == 0
    assert work.runs == [f"seed-{n}/{name}" for n in (0, 1) for name in ("first", "second")]
    assert storage.read_json(tmp_path / "s/seed-1/second/out.json") == 7
    assert storage.read_json(tmp_path / "s/seed-1/second/complete.json")["seed"] == 1


def test_a_larger_grid_adds_cells_and_runs_no_more_than_these(sweep, tmp_path, work):
    assert sweep("--vary=second.size=3") == 0
    work.runs.clear()
    assert sweep("--vary=second.size=4,5") == 0
    assert work.runs == ["size-4/second", "size-5/second"]  # the first stage is that of size-3
    assert list(cells_of(tmp_path / "s")) == ["size-3", "size-4", "size-5"]
    work.runs.clear()
    assert sweep("--vary=second.size=3,4,5") == 0
    assert work.runs == []


def test_some_cells_alone_take_over_what_others_have_done(sweep, tmp_path, work, capsys):
    grid = "--vary=second.size=3,4,5"
    assert sweep(grid, "--only=size-4") == 0
    assert work.runs == ["size-4/first", "size-4/second"]
    assert list(cells_of(tmp_path / "s")) == ["size-3", "size-4", "size-5"]
    assert sweep(grid, "--only=size-[35]") == 0
    assert work.runs[2:] == ["size-3/second", "size-5/second"]
    assert sweep(grid, "--only=size-3,rate-*") == 2
    assert "--only=rate-*: no cell has this name" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("sweep_of", "cells"),
    [
        (
            '{"second.size": [3, 4], "second.names": [("a", "b"), ()]}',
            {
                "size-3_names-a-b": (3, ["a", "b"]),
                "size-3_names-empty": (3, []),
                "size-4_names-a-b": (4, ["a", "b"]),
                "size-4_names-empty": (4, []),
            },
        ),
        (
            '{"plain": {}, "ours": {"second.size": 9, "second.rates": {"x": 0.5}}}',
            {"plain": (1, []), "ours": (9, [])},
        ),
    ],
)
def test_a_config_file_may_have_cells_of_its_own(sweep, config, tmp_path, work, sweep_of, cells):
    config.write_text(config.read_text() + f"\ndef get_sweep():\n    return {sweep_of}\n")
    assert sweep() == 0
    for name, (size, names) in cells.items():
        record = storage.read_json(tmp_path / f"s/{name}/second/complete.json")
        assert (record["settings"]["size"], record["settings"]["names"]) == (size, names)
    assert set(cells) == set(cells_of(tmp_path / "s"))
    assert len(work.runs) == 1 + len(cells)


def test_cells_of_the_config_file_with_each_seed(sweep, config, tmp_path, work, capsys):
    own = '{"plain": {}, "ours": {"second.size": 9}, "named": {"second.names": ("a", "b")}}'
    config.write_text(config.read_text() + f"\ndef get_sweep():\n    return {own}\n")
    assert sweep("--vary=seed=0,1", "--list") == 0
    assert capsys.readouterr().out.splitlines() == [
        "plain_seed-0  --config.seed=0",
        "plain_seed-1  --config.seed=1",
        "ours_seed-0   --config.second.size=9 --config.seed=0",
        "ours_seed-1   --config.second.size=9 --config.seed=1",
        """named_seed-0  '--config.second.names=('"'"'a'"'"', '"'"'b'"'"')' --config.seed=0""",
        """named_seed-1  '--config.second.names=('"'"'a'"'"', '"'"'b'"'"')' --config.seed=1""",
    ]
    assert not (tmp_path / "s").exists() and work.runs == []


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--vary=second.size=3,x",), "cell size-x: second.size=x: size is 'x': it must be a wh"),
        (("--vary=second.sise=3",), "config.second has no field sise: did you mean size"),
        (("--vary=second.size",), "--vary=second.size: write FIELD=VALUE,VALUE"),
        (("--vary=second.size=3,3",), "the value '3' comes twice"),
        (("--vary=second.size=3,03",), "the cells size-3 and size-03 are the same run"),
        ((), "nothing is varied: name a field and its values"),
        (("--vary=second.size=3,4", "--redo=frist"), "no cell of the sweep has such a stage"),
        (("--vary=first.base=first",), "which does not come before it"),
        (("--vary=runtime.cluster=,local:1",), "runtime.cluster is set in the cell"),
    ],
)
def test_all_cells_are_checked_before_the_first_runs(sweep, tmp_path, work, capsys, flags, said):
    assert sweep(*flags) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert said in last
    assert work.runs == [] and not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--config=pockt", "--workdir=s"), "there is no config file pockt; of the recipes"),
        (("--workdir=s",), "--config is missing"),
        (("--config=pocket", "--vary=seed=0,1"), "--workdir is missing"),
        (("--list", "--tables"), "--workdir is missing"),
    ],
)
def test_what_a_sweep_needs_is_asked_for_in_one_line(flags, said, capsys):
    assert launch.main(["stair-jax", "sweep", *flags]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_a_cell_whose_name_has_other_values_is_refused(sweep, config, capsys):
    own = "\ndef get_sweep():\n    return {{'ours': {{'second.size': {size}}}}}\n"
    text = config.read_text()
    config.write_text(text + own.format(size=3))
    assert sweep() == 0
    config.write_text(text + own.format(size=4))
    assert sweep() == 2
    assert "has second.size = 3, and now second.size = 4" in capsys.readouterr().err


def test_a_cell_that_fails_does_not_lose_the_others(sweep, tmp_path, work, capsys):
    def fail(stage, context):
        if stage.size == 3:
            raise UserError("the loss is\nnot finite")

    work.act = staticmethod(fail)
    assert sweep("--vary=second.size=2,3,4") == 2
    said = capsys.readouterr().err.splitlines()
    assert said[-1] == (
        "stair_jax: error: 1 of 3 cells failed, and the others are done: "
        "size-3: stage second: the loss is not finite"
    )
    assert (tmp_path / "s/size-4/second/complete.json").exists()
    reports = {path.parent.name for path in (tmp_path / "s").glob("*/report.html")}
    assert reports == {"size-2", "size-4"}
    work.act = staticmethod(lambda stage, context: None)
    work.runs.clear()
    assert sweep("--vary=second.size=2,3,4") == 0
    assert work.runs == ["size-3/second"]


def test_a_fault_of_ours_ends_the_sweep(sweep, work):
    def fail(stage, context):
        raise ZeroDivisionError("ours")

    work.act = staticmethod(fail)
    with pytest.raises(ZeroDivisionError, match="ours"):
        sweep("--vary=second.size=2,3")


def test_stages_are_made_anew_in_all_cells_once(sweep, tmp_path, work, capsys):
    flags = ("--vary=second.size=2,3",)
    assert sweep(*flags) == 0
    work.runs.clear()
    assert sweep(*flags, "--redo=first") == 2
    assert "size-2/first, size-2/second, size-3/first, size-3/second" in capsys.readouterr().err
    assert work.runs == []
    assert sweep(*flags, "--redo=first", "--yes") == 0
    assert work.runs == ["size-2/first", "size-2/second", "size-3/second"]


def test_models_that_are_removed_are_handed_to_later_cells_before(sweep, work, monkeypatch):
    """As with `runtime.keep_models` "needed": here by what the pipeline calls for that."""
    from stair_jax.run import pipeline

    handed = []

    def remove(entries, finished, workdir):
        handed.append((workdir.name, (workdir.parent / "size-3/first/complete.json").exists()))

    monkeypatch.setattr(pipeline, "remove_unneeded_models", remove)
    assert sweep("--vary=second.size=2,3", "--config.runtime.keep_models=needed") == 0
    assert ("size-2", True) in handed
    assert work.runs == ["size-2/first", "size-2/second", "size-3/second"]


def test_what_a_cell_had_on_the_devices_is_freed_before_the_next(sweep, work):
    """Also where it is in a cycle, which only the garbage collector finds."""
    alive = []

    class Held:
        pass

    def hold(stage, context):
        alive.append([each() is not None for each in held])
        cycle = Held()
        cycle.itself, cycle.array = cycle, jnp.ones(3)
        held.append(weakref.ref(cycle))

    held = []
    work.act = staticmethod(hold)
    assert sweep("--vary=seed=0,1") == 0
    assert alive[2][:2] == [False, False]
    assert jax.devices()


@dataclass(frozen=True)
class Evaluate(Stage):
    """Writes what an evaluation does, in which `rate` of ten answers are refusals.

    Attributes:
      rate: a share.
    """

    rate: float = 0.5

    def run(self, context):
        graded = [
            Graded(
                Case(f"c{n}", ""),
                Answer("xstest_safe", f"c{n}", model="m"),
                {"refused": float(n < 10 * self.rate), "fully_refused": 0.0},
            )
            for n in range(10)
        ]
        result = Result("m", "greedy", "xstest_safe", "none", OVER_REFUSALS, graded, judge="rule")
        storage.write_jsonl(context.folder / "graded.jsonl", graded_rows([result]))
        write_table(tabulate([result]), context.folder)


def test_what_is_evaluated_has_a_table_at_the_end(sweep, config, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sweep_command, "STAGES", {"work": Work, "evaluate": Evaluate})
    text = config.read_text().replace('"work:second")', '"work:second", "evaluate")')
    config.write_text(text)
    flags = ("--vary=evaluate.rate=0.1,0.4", "--vary=seed=0,1")
    assert sweep(*flags) == 0
    lines = (tmp_path / "s/sweep.md").read_text().splitlines()
    assert [line.split(" ")[1] for line in lines[2:4]] == ["rate-0.1", "rate-0.4"]
    assert lines[2].startswith("| rate-0.1 | 0.100 [") and lines[2].endswith("| 2 |")
    assert (tmp_path / "s/sweep.csv").exists() and (tmp_path / "s/table.json").exists()
    (tmp_path / "s/sweep.md").unlink()
    (tmp_path / "s/rate-0.4_seed-1/evaluate/complete.json").unlink()
    capsys.readouterr()
    assert sweep("--tables") == 0
    assert "rate-0.4_seed-1 has no finished evaluation yet" in capsys.readouterr().err
    again = (tmp_path / "s/sweep.md").read_text().splitlines()
    assert again[2] == lines[2] and again[3].endswith("| 1 |")


def test_tables_need_a_sweep(sweep, tmp_path, capsys):
    assert sweep("--tables") == 2
    assert f"{tmp_path / 's'} is no folder of a sweep" in capsys.readouterr().err


def test_the_state_of_a_sweep_is_shown(sweep, tmp_path, work, capsys):
    def fail(stage, context):
        if stage.size == 30:
            raise UserError("no")

    work.act = staticmethod(fail)
    assert sweep("--vary=second.size=2,30") == 2
    capsys.readouterr()
    assert launch.main(["stair-jax", "show", str(tmp_path / "s")]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path / 's'}: a sweep of {tmp_path / 'config.py'}",
        "  size-2   2 of 2 stages done",
        "  size-30  1 of 2 stages done",
    ]


def test_values_are_separated_outside_of_brackets():
    cases = {
        "0.1, 1e-6,-2": ["0.1", "1e-6", "-2"],
        "(1, 2),(3,)": ["(1, 2)", "(3,)"],
        "{'a': 5},{'a': 2, 'b': 1}": ["{'a': 5}", "{'a': 2, 'b': 1}"],
        "a,b;c": ["a,b", "c"],
        "a,b;": ["a,b"],
        "['x;)'],('y',)": ["['x;)']", "('y',)"],
        "": [],
    }
    assert {text: sweep_grid.split_values(text) for text in cases} == cases


def test_names_are_safe_readable_and_different():
    values = sweep_grid.parse_vary(["dpo.beta=-1,1", "x.names=a/b,a b", "y.path=" + 90 * "p"])
    names = list(sweep_grid.grid(values))
    assert len(set(names)) == 4 and names[0].startswith("beta--1_names-a-b_path-pppp")
    assert all(sweep_grid._NAME.fullmatch(name.replace(".", "_")[:100]) for name in names)
    same = sweep_grid.grid(sweep_grid.parse_vary(["a.rate=1", "b.rate=2"]))
    assert list(same) == ["a.rate-1_b.rate-2"]


SCRIPT = """
    import dataclasses, os, sys, time
    from pathlib import Path
    from stair_jax import launch, storage
    from stair_jax.commands import sweep
    from stair_jax.run.stage import Artifact, Stage, stage_input

    LOG = Path(sys.argv.pop(1))

    @dataclasses.dataclass(frozen=True)
    class Work(Stage):
        size: int = 1
        base: str = stage_input(Artifact.PROMPTS, required=False)

        def makes(self):
            return {"out.json": Artifact.PROMPTS}

        def run(self, context):
            with open(LOG, "a") as log:
                log.write(f"{context.folder.parent.name}/{context.name}\\n")
            if self.size == 3 and not LOG.with_name("go").exists():
                time.sleep(60)
            storage.write_json(context.folder / "out.json", self.size)

    sweep.STAGES = {"work": Work}
    sys.exit(launch.main())
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143)])
def test_a_sweep_that_was_stopped_goes_on(config, tmp_path, number, status):
    script, log = tmp_path / "script.py", tmp_path / "log"
    script.write_text(textwrap.dedent(SCRIPT))
    command = [
        sys.executable, script, log, "sweep", f"--config={config}", f"--workdir={tmp_path / 's'}",
        "--vary=second.size=2,3,4",
    ]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    process = subprocess.Popen(
        list(map(str, command)), env=environment, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while "size-3/second" not in (log.read_text() if log.exists() else ""):
        assert time.monotonic() < deadline and process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(number)
    said = process.communicate()[1]
    assert process.returncode == status
    if number == signal.SIGTERM:
        assert "terminated: the same command goes on where it stopped" in said
    (tmp_path / "go").write_text("")
    again = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    ran = ["size-2/first", "size-2/second", "size-3/second", "size-3/second", "size-4/second"]
    assert log.read_text().split() == ran
    assert storage.read_json(tmp_path / "s/size-4/second/out.json") == 4


def test_processes_that_share_a_sweep_wait_for_each_other_and_keep_all_cells(tmp_path):
    mine = Manifest("c", (), {"mine": {"first.size": "1"}})
    theirs = Manifest("c", (), {"theirs": {"first.size": "2"}})
    entered = threading.Event()

    def write():
        with locked(tmp_path):
            entered.set()
            time.sleep(0.2)
            write_manifest(tmp_path, theirs)

    other = threading.Thread(target=write)
    other.start()
    entered.wait()
    with pytest.raises(UserError, match="is in use"), locked(tmp_path):
        pass
    save_manifest(tmp_path, mine)
    other.join()
    assert read_manifest(tmp_path).cells == {**theirs.cells, **mine.cells}
