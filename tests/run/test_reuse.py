"""Finished stages of other runs are taken over where they are the same, and nowhere else."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from stair_jax import storage
from stair_jax.errors import UserError
from stair_jax.monitoring import Metrics
from stair_jax.run import pipeline, reuse, source_hashes
from stair_jax.run.pipeline import Anew, Others
from stair_jax.run.run_config import read_config
from stair_jax.run.stage import Artifact, Stage, stage_input
from stair_jax.run.stage_records import COMPLETE_FILE, check_bytes
from stair_jax.run.unneeded_models import remove_unneeded_models
from stair_jax.settings import setting

HF = "hf/model.safetensors"
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 8,
    "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1,
    "num_key_value_heads": 1, "max_position_embeddings": 8, "rms_norm_eps": 1e-5,
}  # fmt: skip


@dataclass(frozen=True)
class Make(Stage):
    """Trains as `sft` does: metrics that are appended to, a state, a model.

    Attributes:
      size: a number.
      epochs: its length.
      workers: changes the cost alone.
      path: a file of the user's.
      model: a stage that it starts from.
    """

    LENGTH: ClassVar[str] = "epochs"
    runs: ClassVar[list[str]] = []

    size: int = 1
    epochs: int = 1
    workers: int = setting(1, cost=True)
    path: str = ""
    model: str = stage_input(Artifact.MODEL, required=False)

    def makes(self):
        return {"hf": Artifact.MODEL}

    def sources(self):
        return {self.path: [Path(self.path)]} if self.path else {}

    def run(self, context):
        self.runs.append(f"{context.folder.parent.name}/{context.name}")
        with Metrics(context.folder) as metrics:
            metrics.write(self.epochs, {"loss": self.size})
        with open(context.folder / "log.jsonl", "ab") as file:
            file.write(b"{}\n")
        storage.write_text(context.folder / "checkpoints/1/state", str(self.size))
        storage.write_json(context.folder / "hf/config.json", CONFIG)
        storage.write_text(context.folder / HF, f"{self.size} {self.epochs} {context.seed}")

    def reopen(self, folder):
        shutil.rmtree(folder / "hf", ignore_errors=True)


STAGES = {"make": Make}


@pytest.fixture
def runs(monkeypatch):
    """The stages that ran, as RUN/STAGE."""
    monkeypatch.setattr(Make, "runs", [])
    return Make.runs


def run(workdir, donors=(), anew=None, share=lambda: None, seed=0, **fields):
    values = {"seed": seed, "stages": ("make:a", "make:b"), "a": {}, "b": {"model": "a"}}
    for name, value in fields.items():
        section, field = name.split("_", 1)
        values.setdefault(section, {})[field] = value
    others = Others(donors, share)
    pipeline.run(read_config(values, STAGES), workdir, anew or Anew(), others=others)


def content(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in (".lock", ".sources.json")
    }


@pytest.fixture
def done(tmp_path, runs):
    """A finished run; nothing has run since."""
    run(tmp_path / "one")
    runs.clear()
    return tmp_path / "one"


def test_what_is_the_same_is_taken_over_with_the_same_bytes_and_not_run(done, tmp_path, runs):
    run(tmp_path / "two", [done], a_workers=5)
    assert runs == []
    assert content(tmp_path / "two" / "a") == content(done / "a")
    assert content(tmp_path / "two" / "b") == content(done / "b")
    assert (tmp_path / "two/a" / HF).samefile(done / "a" / HF)
    for name in ("a", "b"):
        check_bytes(tmp_path / "two" / name)
    run(tmp_path / "two")  # without the other one
    assert runs == []


@pytest.mark.parametrize(
    ("fields", "ran"),
    [
        ({"b_size": 2}, ["two/b"]),
        ({"a_size": 2}, ["two/a", "two/b"]),  # what b reads is another model then
        ({"seed": 1}, ["two/a", "two/b"]),
        ({"b_model": ""}, ["two/b"]),
        ({"runtime_slots": 4}, []),
    ],
)
def test_what_differs_is_run(done, tmp_path, runs, fields, ran):
    run(tmp_path / "two", [done], **fields)
    assert runs == ran


def test_another_content_of_a_users_file_is_another_stage(tmp_path, runs):
    file = tmp_path / "rows.jsonl"
    file.write_text("1")
    run(tmp_path / "one", a_path=str(file))
    run(tmp_path / "two", [tmp_path / "one"], a_path=str(file))
    file.write_text("2")
    run(tmp_path / "three", [tmp_path / "one"], a_path=str(file))
    assert runs == ["one/a", "one/b", "three/a", "three/b"]


def test_what_a_donor_has_hashed_is_not_hashed_again(tmp_path, runs, monkeypatch):
    file = tmp_path / "rows.jsonl"
    file.write_text("1")
    monkeypatch.setattr(source_hashes, "_SETTLED", -(10**9))  # young files are remembered too
    run(tmp_path / "one", a_path=str(file))
    hashed = []
    real = storage.fingerprint_file
    monkeypatch.setattr(storage, "fingerprint_file", lambda path: hashed.append(path) or real(path))
    run(tmp_path / "two", [tmp_path / "one"], a_path=str(file))
    assert runs == ["one/a", "one/b"] and file not in hashed


def test_a_run_that_began_the_same_work_takes_the_finished_one(done, tmp_path, runs):
    shutil.copytree(done / "a", tmp_path / "two/a")
    record = tmp_path / "two/a" / COMPLETE_FILE
    record.rename(record.with_name("started.json"))
    (tmp_path / "two/a/half.json").write_text("")
    run(tmp_path / "two", [done])
    assert runs == [] and not (tmp_path / "two/a/half.json").exists()


def test_what_began_otherwise_is_left_and_named(done, tmp_path, runs):
    run(tmp_path / "two", a_size=2)
    runs.clear()
    with pytest.raises(UserError, match=r"the stage a was finished with config\.make\.size = 2"):
        run(tmp_path / "two", [done])
    assert runs == [] and (tmp_path / "two/a" / HF).read_text() == "2 1 0"


@pytest.mark.parametrize("links", [True, False])
def test_files_are_copied_where_links_fail(done, tmp_path, runs, monkeypatch, links):
    def fail(*arguments):
        raise OSError(18, "Invalid cross-device link")

    if not links:
        monkeypatch.setattr(os, "link", fail)
    run(tmp_path / "two", [done])
    assert runs == []
    assert (tmp_path / "two/a" / HF).samefile(done / "a" / HF) == links
    assert content(tmp_path / "two" / "a") == content(done / "a")
    for name in ("a", "b"):
        check_bytes(tmp_path / "two" / name)


@pytest.mark.parametrize("which", ["one", "two"])
@pytest.mark.parametrize(
    "change",
    [
        lambda workdir: run(workdir, anew=Anew(redo=["a"]), a_size=2),
        lambda workdir: run(workdir, anew=Anew(lengthen=["b"]), b_epochs=2),
        lambda workdir: remove_unneeded_models(
            read_config(
                {"stages": ("make:a", "make:b"), "b": {"model": "a"}, "a": {}}, STAGES
            ).stages,
            ["a", "b"],
            workdir,
        ),
    ],
    ids=["redo", "lengthen", "keep_models"],
)
def test_what_one_run_does_later_leaves_the_bytes_of_the_other(done, tmp_path, runs, which, change):
    """Redone, lengthened (whose files are appended to), or without a model."""
    run(tmp_path / "two", [done])
    other = tmp_path / {"one": "two", "two": "one"}[which]
    before, changed = content(other), content(tmp_path / which)
    change(tmp_path / which)
    assert content(other) == before
    assert content(tmp_path / which) != changed
    for name in ("a", "b"):
        check_bytes(other / name)


def test_lengthened_work_goes_on_with_files_of_its_own_after_a_kill(done, tmp_path, runs):
    """The record says that it goes on, and the links are still there."""
    run(tmp_path / "two", [done])
    before = content(done)
    config = read_config(
        {"stages": ("make:a", "make:b"), "a": {}, "b": {"model": "a", "epochs": 2}}, STAGES
    )
    pipeline.clear(config.stages, tmp_path / "two", Anew(lengthen=["b"]))
    assert (tmp_path / "two/b/log.jsonl").samefile(done / "b/log.jsonl")
    run(tmp_path / "two", b_epochs=2)
    assert runs == ["two/b"] and content(done) == before
    assert (tmp_path / "two/b/log.jsonl").read_text() == "{}\n{}\n"


def test_what_was_lengthened_is_not_taken_over(done, tmp_path, runs):
    """Its training went another way than one of the whole length."""
    run(done, anew=Anew(lengthen=["b"]), b_epochs=2)
    runs.clear()
    run(tmp_path / "two", [done], b_epochs=2)
    assert runs == ["two/b"]


def test_a_model_that_was_removed_is_made_again(done, tmp_path, runs, capsys):
    entries = read_config({"stages": ("make:a", "make:b"), "b": {"model": "a"}, "a": {}}, STAGES)
    remove_unneeded_models(entries.stages, ["a", "b"], done)
    run(tmp_path / "two", [done])
    assert runs == ["two/a"] and "its model was removed" in capsys.readouterr().err


def test_stages_that_are_made_anew_are_not_taken_over(done, tmp_path, runs):
    run(tmp_path / "two", [done], Anew(redo=["b"]))
    assert runs == ["two/b"]


def test_a_damaged_stage_is_not_taken_over_and_named(done, tmp_path, runs, capsys):
    (done / "a" / HF).write_text("other size")
    run(tmp_path / "two", [done])
    assert runs == ["two/a"]
    said = capsys.readouterr().err
    assert f"{done / 'a'} is not taken over" in said and "has changed since then" in said


def test_bytes_that_changed_are_found_before_a_stage_reads_them(done, tmp_path, runs):
    """As those of any finished stage."""
    (done / "a" / HF).write_text("9 1 0")
    with pytest.raises(UserError, match=f"{tmp_path / 'two/a' / HF} has changed"):
        run(tmp_path / "two", [done], b_size=3)


def test_a_stage_that_its_run_removes_meanwhile_is_run(done, tmp_path, runs, monkeypatch):
    link_file = os.link

    def link(source, target):
        shutil.rmtree(done / "a", ignore_errors=True)
        link_file(source, target)

    monkeypatch.setattr(os, "link", link)
    run(tmp_path / "two", [done])
    assert runs == ["two/a"] and not list((tmp_path / "two").glob(".*.taken"))


def test_models_are_shared_before_they_are_removed(tmp_path, runs):
    shared = []
    run(
        tmp_path / "one",
        share=lambda: shared.append((tmp_path / "one/a" / HF).exists()),
        runtime_keep_models="needed",
    )
    assert shared[-1] and not (tmp_path / "one/a" / HF).exists()


def test_donors_are_runs_or_all_cells_of_a_sweep(done, tmp_path):
    cells = {"x": {"a.size": "1"}, "y": {"a.size": "2"}}
    manifest = {"schema": 1, "config": "c.py", "overrides": [], "cells": cells}
    storage.write_json(tmp_path / "sweep/sweep.json", manifest)
    found = reuse.donor_folders([str(done), str(tmp_path / "sweep")], tmp_path / "sweep/x")
    assert found == [done, tmp_path / "sweep/y"]
    with pytest.raises(UserError, match="there is no run in"):
        reuse.donor_folders([str(tmp_path)], tmp_path / "two")
    with pytest.raises(UserError, match="is the --workdir itself"):
        reuse.donor_folders([str(done)], done)
