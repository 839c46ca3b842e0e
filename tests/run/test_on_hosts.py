"""Which stages the driver of a cluster does itself, and which run on its machines."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar, Literal

import pytest

from stair_jax import storage
from stair_jax.cluster.host import Look
from stair_jax.commands.config_file import load_config
from stair_jax.errors import UserError
from stair_jax.run import on_hosts, pipeline
from stair_jax.run.devices import devices_of_worker
from stair_jax.run.lock import is_locked
from stair_jax.run.run_config import read_config
from stair_jax.run.stage import Artifact, Stage, stage_input
from stair_jax.settings import setting

FILE = "file.json"


class Seen:
    """What happened, in order."""

    is_part: ClassVar[bool] = False
    done: ClassVar[list] = []
    checked: ClassVar[list] = []
    parts: ClassVar[list] = []


@dataclass(frozen=True)
class Train(Stage):
    """Needs all devices.

    Attributes:
      of: an earlier stage.
      sizes: anything.
    """

    of: str = stage_input(Artifact.PROMPTS, required=False)
    sizes: tuple[int, ...] = (1,)

    def makes(self):
        return {FILE: Artifact.PROMPTS}

    def check_devices(self, context):
        Seen.checked.append((context.name, Seen.is_part))
        if self.sizes == (0,):
            raise UserError("it does not fit")

    def run(self, context):
        Seen.done.append((context.name, Seen.is_part, context.runtime.cluster))
        storage.write_json(context.folder / FILE, list(self.sizes))


@dataclass(frozen=True)
class Note(Train):
    """Needs no device.

    Attributes:
      rate: anything.
    """

    PROCESSES: ClassVar[Literal["all", "first"]] = "first"

    rate: float = setting(0.5)


@dataclass(frozen=True)
class Deal(Train):
    """Has workers do it."""

    DEALS: ClassVar[bool] = True


KINDS = {"train": Train, "note": Note, "deal": Deal}
STAGES = ("note:data", "train:base", "train:sft", "deal:search", "note:pairs", "train:dpo")


class Machine:
    """Runs what a machine would be told to run, in this process."""

    name = "here"

    def are_there(self, count):
        return True

    def take(self, count):
        return [self]

    def give_back(self):
        pass

    def start(self, words, environment, folder):
        assert words[:3] == ["-m", "stair_jax.launch", "run"]
        flags = dict(word.removeprefix("--").split("=", 1) for word in words[3:])
        config = read_config(load_config(flags["config"]), KINDS)
        names = [name for name in flags["only"].split(",") if name]
        workdir = Path(flags["workdir"])
        assert not is_locked(workdir)
        Seen.parts.append((names, config.effective()))
        Seen.is_part, status, lines = True, 0, []
        try:
            pipeline.run_part(config, workdir, names)
        except UserError as error:
            status, lines = 2, [f"stair_jax: error: {error}"]
        finally:
            Seen.is_part = False
        self._look = Look(lines, status)

    def look(self):
        return self._look


@pytest.fixture(autouse=True)
def seen(monkeypatch):
    for name in ("done", "checked", "parts"):
        monkeypatch.setattr(Seen, name, [])
    monkeypatch.setattr(on_hosts, "ThisMachine", Machine)
    monkeypatch.setattr(on_hosts, "cache_folder", lambda: None)  # another test may have set one
    return Seen


def values(**sections):
    order = [label.partition(":")[2] for label in STAGES]
    inputs = {name: {"of": before} for before, name in pairwise(order)}
    return {"stages": STAGES, "runtime": {"cluster": "local:2"}, **inputs, **sections}


def run(workdir, **sections):
    config = read_config(values(**sections), KINDS)
    pipeline.run(config, workdir)
    return config


def test_what_needs_devices_and_is_not_dealt_out_runs_on_the_machines(seen, tmp_path):
    config = run(tmp_path)
    assert seen.done == [
        ("data", False, "local:2"),
        ("base", True, ""),
        ("sft", True, ""),
        ("search", False, "local:2"),
        ("pairs", False, "local:2"),
        ("dpo", True, ""),
    ]
    assert [names for names, _ in seen.parts] == [[], ["base", "sft"], ["dpo"]]
    assert [settings for _, settings in seen.parts] == [config.effective()] * 3
    assert not list(tmp_path.glob(".config*")) and not is_locked(tmp_path)
    assert storage.read_json(tmp_path / "config.json")["runtime"]["cluster"] == "local:2"


def test_a_program_keeps_compiled_programs_where_its_driver_does(seen, tmp_path, monkeypatch):
    monkeypatch.setattr(on_hosts, "cache_folder", lambda: tmp_path / "sweep/.jax_cache")
    run(tmp_path / "sweep/cell")
    runtimes = [settings["runtime"] for _, settings in seen.parts]
    assert {each.compilation_cache for each in runtimes} == {str(tmp_path / "sweep/.jax_cache")}


def test_a_part_needs_what_it_is_made_of(tmp_path):
    config = read_config(values(runtime={}), KINDS)
    with pytest.raises(UserError, match=r"^stage sft needs base, which is not finished: name it"):
        pipeline.run_part(config, tmp_path, ["sft"])
    pipeline.run_part(config, tmp_path, ["data", "base", "sft"])
    pipeline.run_part(config, tmp_path, ["search", "sft"])
    assert (tmp_path / "search/complete.json").is_file()


def test_a_run_goes_on_where_its_driver_was_killed(seen, tmp_path, monkeypatch):
    def stop(self, context):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Deal, "run", stop)
        run(tmp_path)
    (tmp_path / ".config.0123.json").write_text("{}")
    done = list(seen.done)
    run(tmp_path)
    assert [name for name, *_ in seen.done[len(done) :]] == ["search", "pairs", "dpo"]
    assert [names for names, _ in seen.parts] == [[], ["base", "sft"], [], ["dpo"]]
    assert not list(tmp_path.glob(".config*"))


def test_the_files_are_those_of_a_run_of_one_process(tmp_path):
    run(tmp_path / "dealt")
    run(tmp_path / "alone", runtime={})
    for name in ("base", "dpo"):
        dealt, alone = (tmp_path / each / name / "complete.json" for each in ("dealt", "alone"))
        assert storage.read_json(dealt) == storage.read_json(alone)


def test_what_does_not_fit_the_machines_is_known_before_the_first_stage(seen, tmp_path):
    with pytest.raises(UserError, match=r"^stage dpo: it does not fit$"):
        run(tmp_path, dpo={"of": "pairs", "sizes": (0,)})
    assert seen.done == [] and all(is_part for _, is_part in seen.checked)


def test_nothing_is_started_for_workers_alone(seen, tmp_path):
    sections = {"stages": ("note:data", "deal:search"), "search": {"of": "data"}}
    pipeline.run(read_config(sections | {"runtime": {"cluster": "local:2"}}, KINDS), tmp_path)
    assert seen.parts == [] and [name for name, *_ in seen.done] == ["data", "search"]


def test_a_checkpoint_is_progress_and_another_start_is_not(tmp_path):
    def mark():
        return on_hosts._mark(tmp_path, ["sft"])

    folder, marks = tmp_path / "sft", [mark()]
    (folder / "checkpoints").mkdir(parents=True)
    for name in ("metrics.jsonl", "events.out.tfevents.1", "checkpoints/5.tmp"):
        (folder / name).write_text("1")
        marks.append(mark())
    assert all(each == marks[0] for each in marks)
    (folder / "checkpoints" / "5").mkdir()
    assert mark() != marks[0]


def test_a_worker_has_one_gpu_or_all_other_devices_of_its_machine():
    gpus = [SimpleNamespace(platform="gpu")] * 8
    tpus = [SimpleNamespace(platform="tpu")] * 4
    assert len(devices_of_worker(gpus)) == 1 and len(devices_of_worker(tpus)) == 4
