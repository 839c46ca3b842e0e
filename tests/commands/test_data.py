"""`stair-jax data study` from the command line."""

import json

import pytest

from stair_jax import launch
from stair_jax.commands.completion import words
from stair_jax.commands.data_study import read_revisions


def test_a_build_prints_the_rows_of_each_file(tmp_path, capsys, monkeypatch):
    seen = {}

    def build_study(options, out):
        seen.update(options=options, out=out)
        counts = {"prompts x": {"taken": 2, "left out: repeats a prompt of y (equal)": 3}}
        return {"rows": {"sft": 12, "eval/z": 3}, "counts": counts}

    monkeypatch.setattr("stair_jax.data.study.build.build_study", build_study)
    flags = ["--small", "--seed=3", "--max-tokens=90", "--without=dolly", "--require=star1,hhh"]
    command = ["stair-jax", "data", "study", f"--out={tmp_path}/out", f"--sources={tmp_path}"]
    assert launch.main([*command, *flags]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[:2] == ["sft         12 rows", "eval/z       3 rows"]
    assert out[2].startswith("3 prompts left out that repeat held-out ones")
    options = seen["options"]
    assert (options.small, options.seed, options.max_tokens) == (True, 3, 90)
    assert options.required == ("star1", "hhh") and options.sources.without == ("dolly",)
    assert options.sources.folder == tmp_path and not options.sources.remote
    assert launch.main([*command, "--fetch"]) == 0
    assert seen["options"].sources.remote


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "say what to do: stair-jax data check, data split, data study"),
        (["study"], "say what to build and where"),
        (["chek"], "invalid choice: 'chek'"),
        (["study", "--out=OUT", "--sources=none"], "--sources=none is no folder"),
        (["study", "--out=OUT", "--without=dolli"], "no data set 'dolli': did you mean dolly?"),
        (["study", "--out=OUT", "--require=dolli"], "no data set 'dolli': did you mean dolly?"),
        (["study", "--out=OUT", "--revisions=star1"], "has 'star1': write SET=REVISION"),
        (["study", "--out=OUT", "--revisions=a=b"], "there is no data set 'a'"),
        (["study", "--out=OUT", "--max-tokens=-1"], "--max-tokens is negative"),
        (["study", "--out=FULL"], "FULL holds other files: name a new or an empty folder"),
        (
            ["study", "--out=OUT", "--sources=EMPTY", "--tokenizer=EMPTY"],
            "EMPTY",
        ),
        (
            ["study", "--out=OUT", "--sources=EMPTY"],
            "sft.jsonl would be empty: bring star1/STAR-1.json "
            "(https://huggingface.co/datasets/UCSC-VLAA/STAR-1) or gsm8k/train.jsonl",
        ),
    ],
)
def test_a_mistake_is_one_line(tmp_path, capsys, monkeypatch, flags, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "FULL").mkdir()
    (tmp_path / "FULL" / "mine").write_text("x")
    assert launch.main(["stair-jax", "data", *flags]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("stair_jax: error: ") and said in last
    assert not (tmp_path / "OUT").exists()


def test_revisions_are_a_list_or_those_of_an_earlier_build(tmp_path):
    assert read_revisions("star1=abc,dolly=v1") == {"star1": "abc", "dolly": "v1"}
    record = {"sources": {"star1": {"revision": "abc"}, "dolly": {"revision": ""}}}
    path = tmp_path / "data.json"
    path.write_text(json.dumps(record))
    assert read_revisions(str(path)) == {"star1": "abc"}


def test_help_and_completion_know_the_command(capsys):
    assert launch.main(["stair-jax", "data", "--help"]) == 0
    text = capsys.readouterr().out
    assert "stair-jax data" in text and "--sources DIR" in text
    assert {"data", "--sources=", "--small"} <= set(words())
