"""The user's files are part of what a stage is made of: an edited one is told by its content."""

import json
import os
from dataclasses import dataclass

import pytest
from ml_collections import ConfigDict

from stair_jax import storage
from stair_jax.errors import UserError
from stair_jax.run import pipeline, source_hashes
from stair_jax.run.pipeline import Anew
from stair_jax.run.run_config import read_config
from stair_jax.run.source_hashes import SourceHashes
from stair_jax.run.stage import Artifact, Stage, stage_input
from stair_jax.stages import Files, Model

ROW = {"id": "a", "prompt": "How?", "kind": "safety", "source": "mine"}
YEAR = 365 * 24 * 3600 * 10**9  # nanoseconds


@dataclass(frozen=True)
class Count(Stage):
    """Counts the prompts of a stage.

    Attributes:
      data: the stage.
      file: in its folder.
    """

    data: str = stage_input(Artifact.PROMPTS, file="file")
    file: str = "prompts1.jsonl"

    def run(self, context):
        rows = storage.read_jsonl(context.input("data") / self.file)
        storage.write_json(context.folder / "count.json", len(rows))


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps(ROW) + "\n")
    return path


@pytest.fixture
def run(tmp_path, data):
    """`run(**anew)` runs `files` on `data`, and a stage that reads it."""

    def run(**anew):
        values = {
            "seed": 0,
            "stages": ("files", "count"),
            "files": {"prompts": (str(data),)},
            "count": {"data": "files"},
            "runtime": {},
        }
        config = read_config(ConfigDict(values), {"files": Files, "count": Count})
        pipeline.run(config, tmp_path / "work", Anew(**anew))
        return storage.read_json(tmp_path / "work" / "count" / "count.json")

    return run


@pytest.fixture
def settled(monkeypatch):
    """Files are remembered at once, as if they were old."""
    monkeypatch.setattr(source_hashes, "_SETTLED", -YEAR)


@pytest.fixture
def hashed(monkeypatch):
    """The names of the files that are read to be hashed."""
    names = []
    real = storage.fingerprint_file

    def fingerprint_file(path):
        names.append(path.name)
        return real(path)

    monkeypatch.setattr(storage, "fingerprint_file", fingerprint_file)
    return names


def test_an_edited_file_under_a_finished_stage_is_refused_like_a_changed_config(run, data):
    assert run() == 1
    assert run() == 1
    before = data.read_text()
    data.write_text(before.replace("How?", "Why?"))  # of the same size
    message = (
        rf"the stage files was finished with another content of {data} than it has now: "
        r"use another --workdir, or --redo=files; --redo deletes and makes anew files, count"
    )
    with pytest.raises(UserError, match=message):
        run()
    data.write_text(before)
    assert run() == 1
    data.write_text(before + before.replace('"a"', '"b"'))
    assert run(redo=("files",)) == 2


def test_the_content_decides_and_not_the_time(run, data, hashed):
    assert run() == 1
    os.utime(data, (10**9, 10**9))
    assert run() == 1


def test_a_file_that_is_gone_is_no_edited_one(run, data):
    assert run() == 1
    data.unlink()
    assert run() == 1


def test_a_stage_that_failed_reads_the_corrected_file(run, data):
    data.write_text("{")
    with pytest.raises(UserError, match=r"line 1: column 2: not JSON"):
        run()
    data.write_text(json.dumps(ROW) + "\n")
    assert run() == 1


def test_a_record_of_before_there_were_hashes_is_still_known(run, tmp_path, data):
    assert run() == 1
    path = tmp_path / "work" / "files" / "complete.json"
    record = storage.read_json(path)
    assert list(record.pop("sources")) == [str(data)]
    storage.write_json(path, record)
    data.write_text(data.read_text() * 2)
    assert run() == 1


def test_a_file_that_is_edited_while_the_stage_reads_it_is_told(run, data, monkeypatch):
    real = Files.run

    def run_and_edit(stage, context):
        real(stage, context)
        data.write_text(data.read_text().replace("How?", "Who?"))

    monkeypatch.setattr(Files, "run", run_and_edit)
    with pytest.raises(UserError, match=r"mine\.jsonl was changed meanwhile: run again"):
        run()
    monkeypatch.setattr(Files, "run", real)
    assert run() == 1


def test_a_file_is_hashed_once_and_again_when_it_changes(tmp_path, data, settled, hashed):
    stage = Files(prompts=(str(data),))
    first = SourceHashes(tmp_path).of(stage)
    assert SourceHashes(tmp_path).of(stage) == first and hashed == ["mine.jsonl"]
    assert first == {str(data): storage.fingerprint_file(data)}
    hashed.clear()
    stat = data.stat()
    data.write_text(data.read_text().replace("How?", "Why?"))
    os.utime(data, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # the size is the same too
    assert SourceHashes(tmp_path).of(stage) != first and hashed == ["mine.jsonl"]


def test_a_file_of_this_moment_is_not_remembered_and_a_damaged_cache_is_none(
    tmp_path, data, hashed
):
    stage = Files(prompts=(str(data),))
    SourceHashes(tmp_path).of(stage)
    SourceHashes(tmp_path).of(stage)
    assert hashed == ["mine.jsonl"] * 2
    (tmp_path / ".sources.json").write_text("{")
    assert SourceHashes(tmp_path).of(stage) == {str(data): storage.fingerprint_file(data)}


def test_a_checkpoint_is_known_by_the_files_that_are_read(tmp_path):
    folder = tmp_path / "base"
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "README.md", "pytorch_model.bin"):
        (folder / name).write_text(name)
    template = tmp_path / "mine.jinja"
    template.write_text("{{ messages }}")
    stage = Model(init=str(folder), chat_template=str(template))
    first = SourceHashes(tmp_path).of(stage)
    assert list(first) == [str(folder), str(template)]
    (folder / "README.md").write_text("other")
    assert SourceHashes(tmp_path).of(stage) == first
    (folder / "model.safetensors").write_text("other")
    second = SourceHashes(tmp_path).of(stage)
    assert second[str(folder)] != first[str(folder)]
    assert second[str(template)] == first[str(template)]
    assert SourceHashes(tmp_path).of(Model()) == {}


def test_a_checkpoint_of_the_hub_is_known_by_its_commit_and_not_read(tmp_path, monkeypatch, hashed):
    from huggingface_hub import constants

    commit = "0123456789abcdef" * 2 + "01234567"
    root = tmp_path / "hub" / "models--owner--name"
    (root / "snapshots" / commit).mkdir(parents=True)
    (root / "snapshots" / commit / "config.json").write_text("{}")
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(root.parent))
    assert SourceHashes(tmp_path).of(Model(init="owner/name")) == {"owner/name": commit}
    assert SourceHashes(tmp_path).of(Model(init="owner/other")) == {}
    assert hashed == []
