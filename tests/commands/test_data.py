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
        ([], "say what to do: stair-jax data check, data filter, data split, "),
        (["study"], "say what to build and where"),
        (["study", "--out=OUT", "rows.jsonl"], "stair-jax data study takes no 'rows.jsonl'"),
        (["check"], "name what to check: stair-jax data check FILE"),
        (["check", "a.jsonl", "--seed=1"], "stair-jax data check takes no --seed"),
        (["check", "a.jsonl"], "there is no file a.jsonl"),
        (["check", "--json", "ROWS", "--against=EMPTY"], "the folder has no file of data in it"),
        (["check", "ROWS", "--tokenizer=EMPTY"], "EMPTY has no tokenizer.json"),
        (["check", "s3://bucket/a.jsonl"], "a file is s3://bucket/a.jsonl"),
        (["split", "ROWS", "--sft=2"], "say what to split and where to"),
        (["split", "ROWS", "--out=OUT"], "nothing is split: set --sft, or --iterations"),
        (["split", "ROWS", "--out=OUT", "--sft=2", "--small"], "data split takes no --small"),
        (["split", "ROWS", "--out=OUT", "--sft=2", "--kinds=good"], "--kinds has 'good'"),
        (["split", "ROWS", "--out=FULL", "--sft=2"], "FULL holds other files"),
        (["split", "ROWS", "--out=STUDY", "--sft=2"], "STUDY holds a study: name a new"),
        (["split", "ROWS", "--out=OUT", "--sft=2", "--jailbreaks=ROWS"], "or none of them"),
        (
            ["split", "ROWS", "--out=OUT", "--sft=2", "--jailbreaks-per-iteration=a,1"],
            "--jailbreaks-per-iteration=a,1: write whole numbers",
        ),
        (["chek"], "invalid choice: 'chek'"),
        (["study", "--out=OUT", "--sources=none"], "--sources=none is no folder"),
        (["study", "--out=OUT", "--without=dolli"], "no data set 'dolli': did you mean dolly?"),
        (["study", "--out=OUT", "--require=dolli"], "no data set 'dolli': did you mean dolly?"),
        (["study", "--out=OUT", "--revisions=star1"], "has 'star1': write SET=REVISION"),
        (["study", "--out=OUT", "--revisions=a=b"], "there is no data set 'a'"),
        (["study", "--out=OUT", "--sources=EMPTY", "--revisions=star1=b"], "is: add --fetch"),
        (["study", "--out=OUT", "--revisions=STUDY/data.json"], "that build fetched nothing"),
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
    (tmp_path / "STUDY").mkdir()
    (tmp_path / "STUDY" / "data.json").write_text('{"sources": {}, "rows": {}}')
    (tmp_path / "ROWS").write_text('{"id": "a", "prompt": "p", "kind": "safety", "source": ""}\n')
    (tmp_path / "FULL" / "mine").write_text("x")
    assert launch.main(["stair-jax", "data", *flags]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("stair_jax: error: ") and said in last
    assert not (tmp_path / "OUT").exists()


@pytest.fixture
def rows(tmp_path):
    """A file of two prompts of each kind."""
    path = tmp_path / "rows.jsonl"
    kinds = ("safety", "helpfulness", "safety", "helpfulness")
    found = [
        {"id": f"{n}", "prompt": f"prompt {n}", "kind": kind, "source": "s"}
        for n, kind in enumerate(kinds)
    ]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in found))
    return path


def test_a_check_prints_a_report_as_text_or_as_json(rows, capsys):
    command = ["stair-jax", "data", "check"]
    assert launch.main([*command, str(rows), f"--against={rows}"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"{rows}: JSON lines, 4 rows, ")
    assert "kinds       safety 2, helpfulness 2" in text
    assert "4 prompts repeat one of 4 held-out prompts of 1 files" in text
    assert launch.main([*command, "--json", str(rows)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["uses"]["prompts"]["rows"] == 4 and report["overlaps"] is None


def test_a_file_that_no_stage_reads_ends_with_2_behind_all_reports(rows, tmp_path, capsys):
    odd = tmp_path / "odd.csv"
    odd.write_text("target\nSure\n")
    files = [str(odd), str(tmp_path / "absent.jsonl"), str(rows)]
    assert launch.main(["stair-jax", "data", "check", *files]) == 2
    found = capsys.readouterr()
    assert f"{odd}: CSV, 1 rows" in found.out and f"{rows}: JSON lines" in found.out
    assert found.err.strip().endswith(
        f"{odd}: no stage could read it: its columns (target) are none that a stage knows; "
        "and 1 more"
    )


def test_a_split_prints_the_rows_of_each_file_and_may_be_made_anew(rows, tmp_path, capsys):
    flags = ["--sft=2", "--iterations=1", "--per-iteration=2", f"--out={tmp_path}/out"]
    for _ in range(2):
        assert launch.main(["stair-jax", "data", "split", *flags, str(rows)]) == 0
        out = capsys.readouterr().out.splitlines()
        assert out[0].split() == ["sft_prompts", "1", "safety,", "1", "helpfulness"]
        assert "prompts: 4 admitted" in out
        assert "nothing was held out: name evaluation files with --against" in out
    assert (tmp_path / "out/prompts1.jsonl").read_text().count("\n") == 2


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
