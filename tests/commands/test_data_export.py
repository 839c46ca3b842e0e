"""`stair-jax data export` from the command line, and to a hub that is not there."""

import json
from pathlib import Path
from typing import ClassVar

import pytest

from stair_jax import launch

PAIR = {"id": "a", "prompt": "p", "path": [], "chosen": "x", "rejected": "y"}


@pytest.fixture
def pairs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("dpo.jsonl").write_text(json.dumps(PAIR) + "\n")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    return "dpo.jsonl"


class FakeHub:
    """Notes what it is asked; refuses a name that is another's."""

    asked: ClassVar[list] = []

    def create_repo(self, name, **options):
        if name.startswith("other/"):
            raise RuntimeError("403 Forbidden:\nno rights")
        self.asked.append((name, options))

    def upload_folder(self, *, folder_path, allow_patterns, **options):
        assert all((folder_path / name).is_file() for name in allow_patterns)
        self.asked.append((sorted(allow_patterns), options))
        return "https://hub/commit/1"


@pytest.fixture
def hub(monkeypatch, pairs):
    monkeypatch.setattr(FakeHub, "asked", [])
    monkeypatch.setattr("huggingface_hub.HfApi", FakeHub)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_x")
    return FakeHub


def export(*flags):
    return launch.main(["stair-jax", "data", "export", *flags])


def test_an_export_prints_its_files(pairs, capsys):
    assert export(pairs, "--format=trl-dpo", "--out=out", "--licence=apache-2.0") == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "out/dpo.jsonl: 1 rows (prompt, chosen, rejected)"
    assert shown[1] == "what they are and how they are loaded: out/README.md"
    assert Path("out/README.md").read_text().startswith("---\nlicense: apache-2.0\nconfigs:\n")


@pytest.mark.parametrize("flags", [(), ("--public",)])
def test_a_push_is_one_commit_of_the_files_alone_and_private_unless_it_says_so(hub, capsys, flags):
    command = ("dpo.jsonl", "--format=openrlhf", "--out=out", "--push=me/pairs", *flags)
    assert export(*command) == 0
    Path("out/notes.txt").write_text("mine")
    assert export(*command) == 0
    (made, uploaded) = hub.asked[-2:]
    assert made == ("me/pairs", {"repo_type": "dataset", "private": not flags, "exist_ok": True})
    assert uploaded[0] == ["README.md", "dpo.jsonl", "export.json"]
    assert uploaded[1]["repo_type"] == "dataset" and len(hub.asked) == 4
    assert capsys.readouterr().out.endswith("pushed: https://hub/commit/1\n")


def test_a_push_that_is_refused_is_one_line_and_the_files_stay(hub, capsys):
    assert export("dpo.jsonl", "--format=openrlhf", "--out=out", "--push=other/x") == 2
    shown = capsys.readouterr().err
    assert "out is written, but cannot be pushed to other/x (403 Forbidden: no rights)" in shown
    assert shown.count("\n") == 1 and Path("out/dpo.jsonl").is_file()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "say what to export, as what and where: stair-jax data export RUN_OR_FILE"),
        (["dpo.jsonl", "--out=out"], "say what to export, as what and where"),
        (["dpo.jsonl", "--format=trl", "--out=out"], "no format 'trl': did you mean trl-"),
        (["none.jsonl", "--format=trl-dpo", "--out=out"], "there is no file none.jsonl"),
        (["dpo.jsonl", "--format=trl-dpo", "--out=."], "--out=. holds other files"),
        (["dpo.jsonl", "--format=trl-dpo", "--out=dpo.jsonl"], "is a file: name a folder"),
        (
            ["dpo.jsonl", "--format=trl-dpo", "--rows=sft", "--out=out"],
            "trl-dpo has no rows of sft: choose messages or trl-sft or",
        ),
        (
            ["dpo.jsonl", "--format=messages", "--out=out"],
            "dpo.jsonl has rows of dpo, which cannot",
        ),
        (["EMPTY", "--format=messages", "--out=out"], "EMPTY has no sft.jsonl, nor has a finished"),
        (
            ["pku.jsonl", "--format=openrlhf", "--out=out"],
            "may be exported as more than one: say --rows=sft or --rows=dpo",
        ),
        (["bad.jsonl", "--format=trl-dpo", "--out=out"], "bad.jsonl, line 2: column 2: not JSON"),
        (
            ["dpo.jsonl", "--format=trl-dpo", "--out=out", "--licence=My Own"],
            "--licence=My Own is no identifier such as apache-2.0",
        ),
        (
            ["dpo.jsonl", "--format=trl-dpo", "--out=out", "--public"],
            "--public says who may see what --push makes",
        ),
        (
            ["dpo.jsonl", "--format=trl-dpo", "--out=out", "--push=me"],
            "--push=me is no data set of the hub: write --push=OWNER/NAME",
        ),
        (
            ["dpo.jsonl", "--format=trl-dpo", "--out=out", "--push=me/x"],
            "--push needs a token that may write: set HF_TOKEN",
        ),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(pairs, capsys, flags, said):
    Path("EMPTY").mkdir()
    Path("bad.jsonl").write_text(json.dumps(PAIR) + "\n{\n")
    Path("pku.jsonl").write_text('{"prompt": "p", "chosen": "x", "rejected": "y"}\n')
    assert export(*flags) == 2
    shown = capsys.readouterr().err
    assert said in shown and shown.count("\n") == 1
    assert not Path("out").exists()
