"""The prompts of evaluation files, by whatever columns they have."""

import gzip
import json

import pyarrow
import pytest
from pyarrow import feather

from stair_jax.data.held_out_files import goal_of, prompts_of, read_held_out
from stair_jax.errors import UserError


@pytest.mark.parametrize(
    ("row", "prompts"),
    [
        ({"Behavior": "a", "ContextString": "c"}, ["a"]),
        ({"Goal": "a", "Target": "Sure"}, ["a"]),
        ({"prompt": "wrapped a", "goal": "a"}, ["wrapped a", "a"]),
        ({"instruction": "do", "input": "this"}, ["do\n\nthis"]),
        ({"instruction": "do", "input": "", "output": "o"}, ["do"]),
        ({"input": "a", "chosen": "b"}, ["a"]),
        ({"forbidden_prompt": "a", "jailbroken_prompt_pair": "b"}, ["a", "b"]),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant"}]}, ["a"]),
        ({"conversations": [{"from": "human", "value": "a"}, "odd"]}, ["a"]),
        ({"question": "  ", "prompt": 3}, []),
        ({"target": "Sure"}, []),
    ],
)
def test_all_that_a_row_asks_is_found(row, prompts):
    assert list(prompts_of(row)) == prompts


def test_a_goal_is_that_of_a_wrapper_or_of_an_attack():
    assert goal_of({"prompt": "x", "goal": "a"}) == "a"
    assert goal_of({"jailbreak_query": "x", "redteam_query": "a"}) == "a"
    assert goal_of({"prompt": "x", "goal": None}) == ""


def test_a_folder_gives_its_data_files_but_those_that_are_compared(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "own.jsonl").write_text('{"prompt": "mine"}\n')
    (tmp_path / "sub" / "a.csv").write_text("goal,target\nfirst,x\nsecond,y\n")
    (tmp_path / "b.json.gz").write_bytes(gzip.compress(json.dumps([{"question": "q"}]).encode()))
    (tmp_path / "c.txt.gz").write_bytes(gzip.compress(b"one line\n\nanother\n"))
    feather.write_feather(pyarrow.table({"prompt": ["d"]}), tmp_path / "d.feather")
    (tmp_path / "labels.csv").write_text("label\nsafe\n")
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "README.md").write_text("prompt")
    found = read_held_out([str(tmp_path)], [str(tmp_path / "own.jsonl")])
    assert found.counts == {"b.json.gz": 1, "c.txt.gz": 2, "d.feather": 1, "sub/a.csv": 2}
    assert found.texts[0] == ("b.json.gz", "q") and ("sub/a.csv", "second") in found.texts
    assert found.without.keys() == {"labels.csv", "broken.json"}
    assert "hold prompts" in found.without["labels.csv"]


def test_files_of_one_name_are_counted_together(tmp_path):
    for folder, text in (("a", "one\ntwo\n"), ("b", "three\n")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "test.txt").write_text(text)
    found = read_held_out([str(tmp_path / "a"), str(tmp_path / "b")])
    assert found.counts == {"test.txt": 3} and len(found.texts) == 3


def test_what_is_named_must_have_prompts(tmp_path):
    labels = tmp_path / "labels.csv"
    labels.write_text("label\nsafe\n")
    (tmp_path / "empty").mkdir()
    for path, said in ((labels, "hold prompts"), (tmp_path / "empty", "no file of data")):
        with pytest.raises(UserError, match=said):
            read_held_out([str(path)])
    with pytest.raises(UserError, match="no file"):
        read_held_out([str(tmp_path / "absent.jsonl")])
