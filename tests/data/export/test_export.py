"""Rows as other trainers read them: by hand, through `datasets`, and back as our own."""

import json

import pytest

from stair_jax.data.export.folder import Export, export_files, write_export
from stair_jax.data.export.formats import FORMATS, RECORDS
from stair_jax.data.export.found import read_records
from stair_jax.errors import UserError

TURNS = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
SYSTEM = {"role": "system", "content": "Be brief"}
ROWS = {
    "sft": [
        {"id": "a", "prompt": "1+1?", "answer": "2\n", "kind": "helpfulness"},
        {"id": "b", "prompt": "ü", "answer": "no", "kind": "safety"}
        | {"system": "Be brief", "history": TURNS},
    ],
    "dpo": [
        {"id": "a", "prompt": "1+1?", "path": ["s ", "t "], "chosen": "2", "rejected": "3"},
        {"id": "b", "prompt": "ü", "path": [], "chosen": "no", "rejected": "yes"}
        | {"system": "Be brief", "history": TURNS, "kind": "safety"},
    ],
    "prm": [
        {"id": "a", "prompt": "p", "chosen_path": ["s", "t"], "rejected_path": ["s", "u"]},
        {"id": "b", "prompt": "p", "chosen_path": ["v"], "rejected_path": ["w", "x"]},
    ],
}
USES = [(name, use) for name, known in FORMATS.items() for use in known.rows]


def asked(text):
    return {"role": "user", "content": text}


def said(text):
    return {"role": "assistant", "content": text}


@pytest.fixture
def sources(tmp_path):
    for use, rows in ROWS.items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{use}.jsonl").write_text(text, encoding="utf-8")
    return tmp_path


def export(sources, name, use, out=None):
    out = out or sources / "out"
    write_export(Export(str(sources / f"{use}.jsonl"), name, use), out)
    text = (out / f"{use}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_examples_are_chats_with_their_system_and_earlier_turns(sources):
    chat = [SYSTEM, *TURNS, asked("ü")]
    assert export(sources, "messages", "sft") == [
        {"messages": [asked("1+1?"), said("2\n")]},
        {"messages": [*chat, said("no")]},
    ]
    assert export(sources, "trl-sft", "sft")[1] == {"prompt": chat, "completion": [said("no")]}
    assert export(sources, "openrlhf", "sft")[1] == {"input": chat, "output": [said("no")]}
    assert export(sources, "llama-factory", "sft")[1] == {
        "conversations": [
            {"from": "system", "value": "Be brief"},
            {"from": "human", "value": "Hi"},
            {"from": "gpt", "value": "Hello"},
            {"from": "human", "value": "ü"},
            {"from": "gpt", "value": "no"},
        ]
    }


def test_both_sides_of_a_pair_of_steps_begin_with_its_path(sources):
    assert export(sources, "trl-dpo", "dpo")[0] == {
        "prompt": [asked("1+1?")],
        "chosen": [said("s t 2")],
        "rejected": [said("s t 3")],
    }
    assert export(sources, "openrlhf", "dpo")[1] == {
        "chosen": [SYSTEM, *TURNS, asked("ü"), said("no")],
        "rejected": [SYSTEM, *TURNS, asked("ü"), said("yes")],
    }
    assert export(sources, "llama-factory", "dpo")[0] == {
        "conversations": [{"from": "human", "value": "1+1?"}],
        "chosen": {"from": "gpt", "value": "s t 2"},
        "rejected": {"from": "gpt", "value": "s t 3"},
    }


def test_a_step_of_the_worse_path_is_good_as_long_as_the_better_one_has_it(sources):
    assert export(sources, "trl-prm", "prm") == [
        {"prompt": "p", "completions": ["s", "t"], "labels": [True, True]},
        {"prompt": "p", "completions": ["s", "u"], "labels": [True, False]},
        {"prompt": "p", "completions": ["v"], "labels": [True]},
        {"prompt": "p", "completions": ["w", "x"], "labels": [False, False]},
    ]


def test_a_path_with_contradictory_labels_is_left_out_and_counted(sources):
    middle = {"id": "c", "prompt": "p", "chosen_path": ["s", "u"], "rejected_path": ["y"]}
    with open(sources / "prm.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(middle) + "\n" + json.dumps(ROWS["prm"][1]) + "\n")
    paths = [row["completions"] for row in export(sources, "trl-prm", "prm")]
    assert paths == [["s", "t"], ["v"], ["w", "x"], ["y"]]
    record = json.loads((sources / "out" / "export.json").read_text())
    assert record["files"]["prm.jsonl"]["left_out"] == {"paths with contradictory labels": 1}


@pytest.mark.parametrize(("name", "use"), USES)
def test_datasets_reads_what_is_written(sources, name, use):
    import datasets

    rows = export(sources, name, use)
    cache = str(sources / "cache")
    out = sources / "out"
    by_file = datasets.load_dataset("json", data_files=str(out / f"{use}.jsonl"), cache_dir=cache)
    assert by_file["train"].to_list() == rows
    # As the hub does: the card says which files there are.
    by_card = datasets.load_dataset(str(out), use, cache_dir=cache)
    assert by_card["train"].to_list() == rows


@pytest.mark.parametrize(
    ("name", "use"), [each for each in USES if each[0] in ("messages", "llama-factory", "trl-dpo")]
)
def test_what_is_written_is_read_back_as_our_own_rows(sources, name, use):
    export(sources, name, use)
    back = read_records(str(sources / "out" / f"{use}.jsonl"), use).records
    texts = [record.better_texts if use == "dpo" else record.answer for record in back]
    own = [RECORDS[use].from_dict(row, "") for row in ROWS[use]]
    if use == "sft":
        assert texts == [row.answer for row in own]
        assert [row.messages for row in back] == [row.messages for row in own]
    else:  # pairs of chats are left out
        assert texts == [("s t 2",)] and back[0].rejected == "s t 3"


def test_a_run_gives_the_files_of_its_finished_stages(sources):
    run = sources / "run"
    for stage in ("files", "preferences", "later"):
        (run / stage).mkdir(parents=True)
    (sources / "sft.jsonl").rename(run / "files" / "sft.jsonl")
    for stage in ("preferences", "later"):
        (run / stage / "dpo.jsonl").write_text(json.dumps(ROWS["dpo"][0]) + "\n")
    for stage in ("files", "preferences"):
        (run / stage / "complete.json").write_text("{}")
    record = write_export(Export(str(run), "openrlhf"), sources / "out")
    assert {name: one["rows"] for name, one in record["files"].items()} == {
        "sft.jsonl": 2,
        "dpo.jsonl": 1,
    }
    (run / "later" / "complete.json").write_text("{}")
    with pytest.raises(UserError, match=r"preferences/dpo\.jsonl.*: name one of them"):
        write_export(Export(str(run), "openrlhf"), sources / "out")


def test_an_answer_with_a_start_is_not_given_to_trainers_that_would_learn_it(sources):
    with open(sources / "sft.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(ROWS["sft"][0] | {"id": "c", "start": ["Sure. "]}) + "\n")
    assert len(export(sources, "messages", "sft")) == 2
    assert "1 (the answer has a start" in (sources / "out" / "README.md").read_text()


def test_an_export_replaces_an_earlier_one_and_never_other_files(sources):
    export(sources, "llama-factory", "sft")
    export(sources, "trl-dpo", "dpo")
    assert sorted(export_files(sources / "out")) == ["README.md", "dpo.jsonl", "export.json"]
    assert not (sources / "out" / "sft.jsonl").exists()
    with pytest.raises(UserError, match="holds other files: name a new or an empty folder"):
        export(sources, "trl-dpo", "dpo", out=sources)


def test_the_same_rows_give_the_same_bytes_and_the_card_says_what_they_are(sources):
    export(sources, "llama-factory", "dpo")
    first = {name: (sources / "out" / name).read_bytes() for name in export_files(sources / "out")}
    export(sources, "llama-factory", "dpo")
    assert first == {name: (sources / "out" / name).read_bytes() for name in first}
    card = first["README.md"].decode()
    assert card.startswith("---\nconfigs:\n- config_name: dpo\n  data_files: dpo.jsonl\n---\n")
    assert "| `dpo.jsonl` | 2 | `conversations`, `chosen`, `rejected` |" in card
    info = json.loads(first["dataset_info.json"])["dpo"]
    assert info["ranking"] and info["columns"]["messages"] == "conversations"
