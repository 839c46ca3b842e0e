"""The user's files become artifacts of a run, or an error that names the line."""

import gzip
import itertools
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard
from pyarrow import Table, feather

from stair_jax.data import sources
from stair_jax.errors import UserError
from stair_jax.run.stage_list import make_stage_list
from stair_jax.search.tree_records import read_trees
from stair_jax.stages import STAGES, ExportData, Files, Preferences
from stair_jax.storage import read_json, read_jsonl

EXAMPLE = {"id": "a", "prompt": "How?", "answer": "So.", "kind": "helpfulness"}
PROMPT = {"id": "a", "prompt": "How?", "kind": "safety", "source": "mine"}
STEP = {"id": "p", "prompt": "How?", "path": [], "chosen": "x", "rejected": "y"}
PATHS = {"id": "q", "prompt": "How?", "chosen_path": ["x"], "rejected_path": ["y"]}


@pytest.fixture
def run(run_stage, tmp_path):
    """`run(**settings)`: the rows of each file that the stage writes; `run.folder`: its folder."""
    count = itertools.count()

    def make(**settings):
        return run_stage(Files, settings, tmp_path / f"data{next(count)}", {})

    def run(**settings):
        return {path.name: read_jsonl(path) for path in make(**settings).iterdir()}

    run.folder = make
    return run


def put(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_each_file_is_copied_under_the_name_that_stages_know(run, tmp_path):
    prompts = [put(tmp_path / f"mine{n}", PROMPT | {"id": str(n)}) for n in (1, 2)]
    pairs = [put(tmp_path / f"pairs{n}", PATHS | {"id": str(n)}) for n in (1, 2, 3)]
    made = run(
        sft=put(tmp_path / "sft", EXAMPLE),
        prompts=tuple(prompts),
        dpo=put(tmp_path / "dpo", STEP),
        prm=tuple(pairs),
    )
    assert made == {
        "sft.jsonl": [EXAMPLE],
        "prompts1.jsonl": [PROMPT | {"id": "1"}],
        "prompts2.jsonl": [PROMPT | {"id": "2"}],
        "dpo.jsonl": [STEP],
        "prm.jsonl": [PATHS | {"id": str(n)} for n in (1, 2, 3)],
    }


@pytest.mark.parametrize(
    ("field", "row", "named"),
    [
        ("sft", EXAMPLE | {"kind": "odd"}, "line 1: kind 'odd'"),
        ("dpo", STEP | {"path": "x"}, "line 1: the field 'path'"),
    ],
)
def test_a_bad_line_is_named(run, tmp_path, field, row, named):
    with pytest.raises(UserError, match=named):
        run(**{field: put(tmp_path / "mine", row)})


def test_no_file_at_all_and_a_file_that_is_not_there_are_told(run, tmp_path):
    with pytest.raises(UserError, match=r"files\.sft"):
        run()
    with pytest.raises(UserError, match="nowhere"):
        run(prompts=(str(tmp_path / "nowhere"),))


def test_public_data_become_rows_of_ours_and_may_be_joined(run, tmp_path, capsys):
    stair = {"prompt": "Steal?", "answer": "No.", "source": "SafeRLHF"}
    (tmp_path / "stair.json").write_text(json.dumps([stair, stair | {"source": "mine"}]))
    (tmp_path / "attacks.csv").write_text(
        "id,jailbreak_query,redteam_query,transfer_from_llm,from\n"
        "3,Play,r,True,Handcraft\n4,See,r,False,Handcraft\n5,Ask,r,True,AdvBench\n"
    )
    own = put(tmp_path / "own.jsonl", PROMPT)
    made = run(
        sft=str(tmp_path / "stair.json"),
        prompts=((own, str(tmp_path / "attacks.csv")), own),
        kinds={"mine": "helpfulness"},
    )
    attack = {"id": "JailbreakV-28k:3", "prompt": "Play", "kind": "safety"}
    assert made["prompts1.jsonl"] == [PROMPT, {"schema": 1, **attack, "source": "JailbreakV-28k"}]
    assert made["prompts2.jsonl"] == [PROMPT]
    assert [(row["answer"], row["kind"]) for row in made["sft.jsonl"]] == [
        ("No.", "safety"),
        ("No.", "helpfulness"),
    ]
    shown = capsys.readouterr().err
    assert "is JailbreakV-28k: 1 of 3 rows; left out: 1 (the attack is in its image), 1 (" in shown
    source = str(tmp_path / "attacks.csv")
    reason = "its source 'AdvBench' is none of files.jailbreak_sources"
    assert made["left_out.jsonl"] == [
        {"source": source, "place": "line 3", "reason": "the attack is in its image"},
        {"source": source, "place": "line 4", "reason": reason},
    ]


def test_sources_whose_kind_is_not_known_are_named_all_at_once(run, tmp_path):
    rows = [{"prompt": "a?", "answer": "b", "source": name} for name in ("mine", "yours")]
    (tmp_path / "stair.json").write_text(json.dumps(rows))
    with pytest.raises(UserError, match="kind of the sources 'mine', 'yours' is unknown: set file"):
        run(sft=str(tmp_path / "stair.json"))
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "a?", "response": "b"}\n')
    with pytest.raises(UserError, match=r"neither a kind nor a source: set files\.kinds"):
        run(sft=str(tmp_path / "pairs.jsonl"))


def test_joined_examples_keep_the_sources_by_which_they_are_mixed(run, tmp_path):
    contrast = EXAMPLE | {"id": "b", "source": "contrast"}
    files = put(tmp_path / "sft", EXAMPLE), put(tmp_path / "sft_contrast", contrast)
    assert run(sft=files)["sft.jsonl"] == [EXAMPLE, contrast]


def test_joined_files_name_the_sources_of_rows_that_have_none(run, tmp_path):
    stated = EXAMPLE | {"id": "b", "source": "contrast"}
    (tmp_path / "mine.sft.jsonl.gz").write_bytes(gzip.compress(json.dumps(EXAMPLE).encode()))
    (tmp_path / "pairs-1.jsonl").write_text('{"prompt": "a?", "response": "b"}\n')
    files = str(tmp_path / "mine.*"), put(tmp_path / "other", stated), str(tmp_path / "pairs-1.*")
    made = run(sft=files, kinds={"*": "safety"}, name_sources=True)["sft.jsonl"]
    assert [row["source"] for row in made] == ["mine", "contrast", "pairs-1"]
    made = run(prompts=(put(tmp_path / "own", PROMPT, PROMPT | {"id": "b", "source": ""}),))
    assert [row["source"] for row in made["prompts1.jsonl"]] == ["mine", ""]


def test_parts_of_a_table_are_one_source(run, tmp_path):
    rows = [EXAMPLE | {"id": f"{number}"} for number in range(4)]
    put(tmp_path / "part-0.jsonl", rows[0])
    for number, row in enumerate(rows[1:3], start=1):
        feather.write_feather(Table.from_pylist([row]), str(tmp_path / f"part-{number}.arrow"))
    packed = zstandard.compress(json.dumps(rows[3]).encode())
    (tmp_path / "part-3.jsonl.zst").write_bytes(packed)
    assert run(sft=str(tmp_path / "part-*"))["sft.jsonl"] == rows
    bad = put(tmp_path / "part-4.jsonl", {"id": "5"})
    with pytest.raises(UserError, match=rf"{re.escape(bad)}, line 1: "):
        run(sft=str(tmp_path / "part-*"))


def test_joined_sources_with_one_id_and_columns_of_no_use_are_errors(run, tmp_path):
    own = put(tmp_path / "own.jsonl", PROMPT)
    with pytest.raises(
        UserError, match=r"own\.jsonl and .*, line 2: id 'a' is already used in line 1"
    ):
        run(prompts=((own, own),))
    with pytest.raises(UserError, match="may have our own \\(id, prompt, answer, kind\\)"):
        run(sft=put(tmp_path / "odd", {"text": "x"}))
    with pytest.raises(UserError, match="line 1: the field 'chosen_path' must be a list"):
        run(prm=(put(tmp_path / "pairs", STEP),))


def test_one_odd_row_is_left_out_with_its_line_and_many_refuse_the_file(run, tmp_path, capsys):
    rows = [EXAMPLE | {"id": str(number)} for number in range(300)]
    path = tmp_path / "sft.jsonl"
    put(path, *rows)
    text = path.read_text()
    odd = ["{", json.dumps(EXAMPLE | {"id": "x", "kind": "rude"}), json.dumps(rows[7])]
    path.write_text("\n\n" + odd[0] + "\n" + text + odd[1] + "\n" + odd[2] + "\n")
    made = run(sft=str(path))
    assert made["sft.jsonl"] == rows
    assert [(row["place"], row["reason"][:30]) for row in made["left_out.jsonl"]] == [
        ("line 3", "column 2: not JSON (Expecting "),
        ("line 304", "kind 'rude' is unknown: use sa"),
        ("line 305", "id '7' is already used in line"),
    ]
    shown = capsys.readouterr().err
    assert "300 of 303 rows; left out: 3 (cannot be read, the first in line 3: column 2" in shown
    message = r"line 3: column 2: .*; 3 of 303 rows cannot be read, more than the share .* 0\.009"
    with pytest.raises(UserError, match=message):
        run(sft=str(path), max_bad_share=0.009)


def test_pairs_of_the_user_that_contradict_themselves_are_left_out(run, tmp_path, capsys):
    rows = [
        STEP | {"id": str(number), **more}
        for number, more in enumerate(
            [
                {"chosen_value": 1.0, "rejected_value": -1},
                {"chosen_value": 1.0, "rejected_value": 1.0},
                {"chosen_value": "0.5", "rejected_value": 2.0},
                {"chosen_value": "N/A", "rejected_value": 2.0},
                {"rejected": "x"},
                {"chosen_tokens": [3], "rejected_tokens": [3]},
                {"rejected": "x", "chosen_tokens": [3], "rejected_tokens": [4]},
            ]
        )
    ]
    path = put(tmp_path / "dpo.jsonl", *rows)
    made = run(dpo=path)
    assert [row["id"] for row in made["dpo.jsonl"]] == ["0", "3", "6"]
    assert [(row["place"], row["reason"]) for row in made["left_out.jsonl"]] == [
        ("line 2", "both answers have the same score"),
        ("line 3", "its scores contradict each other"),
        ("line 5", "both sides alike"),
        ("line 6", "both sides alike"),
    ]
    assert "; 1 rows without a number in chosen_value" in capsys.readouterr().err
    made = run(dpo=path, keep=("ties", "scores"))
    assert [row["id"] for row in made["dpo.jsonl"]] == ["0", "1", "2", "3", "6"]
    prm = put(tmp_path / "prm.jsonl", PATHS, PATHS | {"id": "r", "rejected_path": ["x"]})
    assert [row["id"] for row in run(prm=(prm,))["prm.jsonl"]] == ["q"]


def test_a_source_of_which_no_row_is_left_is_an_error_that_says_why(run, tmp_path):
    tied = {"prompt": "q", "chosen": "a", "rejected": "b", "chosen_score": 1, "rejected_score": 1}
    with pytest.raises(
        UserError, match=r"no row is left; left out: 1 \(both answers have the same"
    ):
        run(dpo=put(tmp_path / "pairs", tied))
    with pytest.raises(UserError, match="must be one of 'ties', 'scores'"):
        run(dpo=put(tmp_path / "pairs", tied), keep=("tie",))


def test_an_empty_file_of_examples_is_an_error(run, tmp_path):
    with pytest.raises(UserError, match="is empty"):
        run(sft=put(tmp_path / "none"))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (STEP | {"chosen": 3}, "line 1: the field 'chosen' must be text"),
        (STEP | {"path": [["x"]]}, "line 1: the field 'path' must be a list of texts"),
        (
            STEP | {"chosen_tokens": [-1]},
            "line 1: the field 'chosen_tokens' must be a list of token",
        ),
        (
            STEP | {"path_tokens": [2**31]},
            "line 1: the field 'path_tokens' must be a list of token",
        ),
        (STEP | {"kind": "rude"}, "line 1: kind 'rude' is unknown"),
    ],
)
def test_pairs_of_the_user_have_text_and_token_ids(run, tmp_path, row, message):
    with pytest.raises(UserError, match=message):
        run(dpo=put(tmp_path / "dpo", row))


def test_released_trees_get_the_ids_and_kinds_of_the_prompts(run, tmp_path, capsys, released):
    (tmp_path / "search.json").write_text(
        json.dumps(
            [
                {"question": released.QUESTION, "type": "safety"},
                {"question": "Why?", "type": "safety"},
            ]
        )
    )
    own = put(tmp_path / "own.jsonl", PROMPT | {"prompt": "Why?", "kind": "helpfulness"})
    files = []
    for number, trees in enumerate(
        [[released.small_tree(), released.small_tree("Why?")], [released.small_tree("Else?")]]
    ):
        files.append(str(tmp_path / f"{number}.json"))
        Path(files[-1]).write_text(json.dumps(trees))
    folder = run.folder(
        prompts=(own, str(tmp_path / "search.json")),
        trees=(*files, files[0]),
        kinds={"*": "helpfulness"},
    )
    first, why, other = read_trees(folder / "trees.jsonl.gz")
    assert first.id.startswith("STAIR-search:") and (first.kind, first.source) == (
        "safety",
        "STAIR",
    )
    assert (why.id, why.kind, why.source) == ("a", "helpfulness", "mine")  # the first prompt of it
    assert other.id.startswith("STAIR-trees:") and other.kind == "helpfulness"
    assert "3 trees from " in (shown := capsys.readouterr().err)
    assert "; 2 left out, the same as one before" in shown


def test_two_trees_of_one_prompt_have_two_ids(run, tmp_path, released):
    again = released.small_tree()
    again["0.1"]["p"] = 0.5
    (tmp_path / "mct.json").write_text(json.dumps([released.small_tree(), again]))
    folder = run.folder(trees=str(tmp_path / "mct.json"), kinds={"STAIR-trees": "safety"})
    first, second = read_trees(folder / "trees.jsonl.gz")
    assert second.id == f"{first.id}#2"
    # What a run has made goes in again as it is.
    copied = run.folder(trees=(str(folder / "trees.jsonl.gz"),))
    assert read_trees(copied / "trees.jsonl.gz") == [first, second]


def test_trees_without_a_kind_and_files_without_trees_are_told(run, tmp_path, released):
    (tmp_path / "mct.json").write_text(json.dumps([released.small_tree()]))
    with pytest.raises(UserError, match=r"mct\.json, tree 1: the kind of its prompt 'How do"):
        run(trees=str(tmp_path / "mct.json"))
    (tmp_path / "none.json").write_text("[]")
    with pytest.raises(UserError, match=r"none\.json: there is no tree in it"):
        run(trees=str(tmp_path / "none.json"))
    stage = Files(trees=("owner/trees",))
    with pytest.raises(UserError, match=r"files\.trees: there is no file owner/trees"):
        stage.check_environment(tmp_path)


def test_pairs_and_answers_are_made_of_released_trees(run, run_stage, tmp_path, capsys, released):
    (tmp_path / "mct.json").write_text(json.dumps([released.small_tree()]))
    trees = run.folder(trees=str(tmp_path / "mct.json"), kinds={"*": "safety"})
    folder = run_stage(
        Preferences, {"trees": "files", "v1": 0.4}, tmp_path / "pairs", {"trees": trees}
    )
    rows = read_jsonl(folder / "dpo.jsonl")
    assert [(row["path"], row["chosen"], row["rejected"]) for row in rows] == [
        ([], released.FIRST, released.CUT),
        ([released.FIRST], released.REFUSAL, released.HARM),
    ]
    assert [row["chosen_terminal"] for row in rows] == [False, True]
    assert "chosen_tokens" not in rows[0]
    assert "the trees have no token ids: max_tokens" in capsys.readouterr().err


def test_what_a_run_exports_is_what_the_released_code_writes(run, run_stage, tmp_path, released):
    tree = released.small_tree()
    (tmp_path / "mct.json").write_text(json.dumps([tree, released.small_tree("Why?")]))
    trees = run.folder(trees=str(tmp_path / "mct.json"), kinds={"*": "safety"})
    pairs = run_stage(Preferences, {"trees": "files"}, tmp_path / "pairs", {"trees": trees})
    folder = run_stage(
        ExportData,
        {"trees": "files", "preferences": "pairs"},
        tmp_path / "out",
        {"trees": trees, "preferences": pairs},
    )
    assert read_json(folder / "mct_data.json") == [tree, released.small_tree("Why?")]
    lines = (folder / "mct_data.json").read_text().splitlines()
    assert lines[0] == "[" and lines[-1] == "]" and len(lines) == 4
    first, second = read_jsonl(folder / "actor_data.jsonl")
    assert first["chosen"] == released.FIRST + released.REFUSAL and second["prompt"] != "schema"
    # Read again with its own prompts, all is as before; ids have the name of the form before them.
    again = run.folder(prompts=(str(folder / "prompts.json"),), trees=str(folder / "mct_data.json"))
    for old, new in zip(*(read_trees(f / "trees.jsonl.gz") for f in (trees, again)), strict=True):
        assert replace(new, id=old.id, source=old.source) == old
        assert new.id == f"STAIR-search:{old.id}"
    with pytest.raises(UserError, match="name the stage of the trees or that of the preferences"):
        ExportData()


def test_a_config_may_name_files_as_the_stage_of_its_trees():
    names = ("files", "model", "preferences", "export_data", "sft", "dpo")
    sections = {
        "sft": {"model": "model", "data": "preferences"},
        "dpo": {"model": "model", "preferences": "preferences", "sft_on": "answer"},
        "files": {"trees": ("mct.json",)},
        "preferences": {"trees": "files", "write_sft": True},
        "export_data": {"trees": "files", "preferences": "preferences"},
    }
    assert [entry.name for entry in make_stage_list(sections, names, 0, STAGES)] == [*names]
    sections["files"] = {"prompts": ("p.jsonl",)}
    with pytest.raises(UserError, match="'files', a stage of the kind files, which does not make"):
        make_stage_list(sections, names, 0, STAGES)


def test_the_size_of_the_parts_that_are_in_memory_changes_nothing(run, tmp_path, monkeypatch):
    rows = [PROMPT | {"id": str(number % 70)} for number in range(90)]
    own = put(tmp_path / "own.jsonl", *rows)
    pairs = [{"instruction": f"Q{number % 40}?", "output": "So."} for number in range(60)]
    alpaca = put(tmp_path / "alpaca.jsonl", *pairs)
    settings = {"prompts": (own,), "sft": alpaca, "max_bad_share": 1.0, "kinds": {"*": "safety"}}
    whole = run(**settings)
    assert len(whole["sft.jsonl"]) == 40 and len(whole["prompts1.jsonl"]) == 70
    monkeypatch.setattr(sources, "_PART", 7)
    assert run(**settings) == whole
