"""The blocks of a report: what is in them is what the records of the run say."""

import json
from dataclasses import replace

import pytest

from stair_jax import storage
from stair_jax.data.records import PathPair, StepPair
from stair_jax.errors import UserError
from stair_jax.evaluation.case import Answer
from stair_jax.evaluation.cells import Cell
from stair_jax.evaluation.costs import Cost
from stair_jax.evaluation.table import Column, RowKey, Table
from stair_jax.reports.html import pairs, schema, schema_cases, schema_tables, schema_trees
from stair_jax.reports.html.contents import read_contents
from stair_jax.reports.html.curves import read_curves
from stair_jax.reports.records import read_run
from stair_jax.run.sweep_manifest import Manifest, write_manifest
from stair_jax.text.steps import format_output, format_step


def contents(*folders):
    return read_contents(folders)


@pytest.fixture
def parts(run):
    return contents(run.workdir).runs[0].parts


def row(columns, number):
    """A row of columns, by the fields of their type."""
    return {name: values[number] for name, values in columns.items() if len(values) > number}


def has_fields(value, kind):
    assert set(value) == set(kind.__annotations__)


def test_every_block_has_the_fields_of_its_type(run, parts):
    everything = contents(run.workdir)
    head = everything.head(["left out"], live=True)
    has_fields(head, schema.Head)
    has_fields(head["runs"][0], schema.Run)
    made = {name: make() for name, make in everything.blocks().items()}
    assert {*made, "trees/0", "pairs/0", "cases/0"} == set(head["blocks"])
    has_fields(made["stages/0"][0], schema.Stage)
    has_fields(made["searches/0"][0], schema_trees.Search)
    has_fields(parts["trees"].live_block(), schema_trees.TreeList)
    has_fields(parts["trees"].read(0), schema_trees.Tree)
    has_fields(parts["trees"].read(0)["nodes"], schema_trees.Nodes)
    has_fields(parts["pairs"].live_block(), schema_trees.PairList)
    has_fields(parts["pairs"].read(0), schema_trees.Pair)
    has_fields(parts["cases"].live_block()[0], schema_cases.CaseList)
    has_fields(parts["cases"].read(0), schema_cases.Case)
    has_fields(parts["cases"].read(0)["answers"][0], schema_cases.Answer)
    has_fields(parts["cases"].read(0)["answers"][0]["grades"][0], schema_cases.Grade)


def test_the_head_counts_what_the_run_has(run):
    head = contents(run.workdir).head([], live=False)
    counts = {name: head["runs"][0][name] for name in ("name", "trees", "pairs", "cases")}
    assert counts == {"name": "a", "trees": 2, "pairs": 1, "cases": 2}


def test_stages_have_their_state_time_and_bytes(run):
    config = {"seed": 3, "stages": ["search:search1", "dpo:iter1", "prm"]}
    storage.write_json(run.workdir / "config.json", config)
    (run.workdir / "prm").mkdir()
    storage.write_json(run.workdir / "prm" / "started.json", {})
    times = [{"seconds": 2.0, "compile_seconds": 0.5, "device": "cpu", "devices": 1}] * 2
    storage.write_jsonl(run.workdir / "search1" / ".times.jsonl", times)
    found = contents(run.workdir).blocks()["stages/0"]()
    states = [(stage["name"], stage["kind"], stage["state"]) for stage in found]
    assert states == [
        ("search1", "search", "done"),
        ("iter1", "dpo", "to do"),
        ("prm", "prm", "under way"),
    ]
    assert (found[0]["seconds"], found[0]["compile_seconds"]) == (4.0, 1.0)
    assert found[0]["bytes"] == (run.workdir / "search1" / "trees.jsonl.gz").stat().st_size
    assert found[1]["seconds"] is None


def test_a_tree_is_a_row_and_columns_of_nodes(parts):
    found = row(parts["trees"].live_block(), 0)
    assert found["id"] == "t1" and found["kind"] == "helpfulness"
    assert (found["nodes"], found["depth"], found["visits"], found["pairs"]) == (3, 1, 5, 1)
    assert (found["value"], found["low"], found["high"]) == (1.0, -1.0, 2.5)
    tree = parts["trees"].read(0)
    assert tree["pairs"] == [[1, 2]] and tree["search"] == "search1"
    nodes = tree["nodes"]
    assert nodes["parent"] == [-1, 0, 0] and nodes["terminal"] == [False, True, True]
    assert nodes["reward"] == [None, 2.5, -1.0]
    assert nodes["helpfulness"] == [None, 0.5, None] and nodes["safety"] == [None, 1.0, None]
    assert nodes["judge"][1] == ("reward 2.5, helpfulness 0.5, safety 1\nUse the task manager.")


def test_the_words_of_the_judge_stand_by_their_tree(run):
    sample = {"sample": "judgement", "id": "t2", "safety reply": "It is safe: [5]", "answer": "x"}
    storage.write_jsonl(run.workdir / "search1" / "samples.jsonl", [sample])
    trees = contents(run.workdir).runs[0].parts["trees"]
    assert trees.read(0)["said"] == []
    assert trees.read(1)["said"] == [{"question": "safety reply", "text": "It is safe: [5]"}]


def test_a_pair_knows_its_place_in_its_tree(parts):
    found = row(parts["pairs"].live_block(), 0)
    assert (found["tree"], found["chosen"], found["rejected"]) == (0, 1, 2)
    assert (found["form"], found["chosen_value"], found["rejected_value"]) == ("step", 2.5, -1.0)
    texts = parts["pairs"].read(0)
    assert (texts["path"], texts["chosen"], texts["rejected"]) == (
        [],
        ["Use the task manager."],
        ["Sorry."],
    )


def test_whole_answers_are_no_pairs_of_a_tree_that_has_pairs_of_steps(run, records):
    def pairs_of_first_tree(*stages):
        storage.write_json(run.workdir / "config.json", {"stages": ["search:search1", *stages]})
        return contents(run.workdir).runs[0].parts["trees"].read(0)["pairs"]

    pair = StepPair("t1:2:1", "p", path=(), chosen="a", rejected="b")
    storage.write_jsonl(run.workdir / "full" / "dpo.jsonl", [pair.to_dict()])
    settings = {"trees": "search1", "variant": "trajectory"}
    records.finish(run.workdir / "full", "preferences", settings)
    assert pairs_of_first_tree("preferences:full") == [[2, 1]]
    assert pairs_of_first_tree("preferences:full", "preferences:pairs1") == [[1, 2]]


def test_pairs_of_paths_are_split_where_they_part(run, records):
    pair = PathPair("t1:1:2", "p", chosen_path=("a", "b", "c"), rejected_path=("a", "x"))
    storage.write_jsonl(run.workdir / "pairs1" / "prm.jsonl", [pair.to_dict()])
    other = replace(pair, id="from elsewhere")
    storage.write_jsonl(run.workdir / "given" / "prm.jsonl", [other.to_dict()])
    records.finish(run.workdir / "given", "files")
    stages = ["search:search1", "preferences:pairs1", "files:given"]
    storage.write_json(run.workdir / "config.json", {"stages": stages})
    pairs = contents(run.workdir).runs[0].parts["pairs"]
    columns = pairs.live_block()
    assert columns["files"] == ["pairs1/dpo", "pairs1/prm", "given/prm"]
    assert columns["form"] == ["step", "step", "answer"] and columns["tree"] == [0, 0, None]
    texts = pairs.read(1)
    assert (texts["path"], texts["chosen"], texts["rejected"]) == (["a"], ["b", "c"], ["x"])


def test_of_very_many_pairs_some_are_listed_evenly(run, records, monkeypatch):
    monkeypatch.setattr(pairs, "_MOST_LISTED", 3)
    pair = StepPair("t1:1:2", "p", path=(), chosen="yes", rejected="no")
    rows = [replace(pair, chosen=f"yes {number}").to_dict() for number in range(7)]
    storage.write_jsonl(run.workdir / "pairs1" / "dpo.jsonl", rows)
    found = contents(run.workdir)
    part = found.runs[0].parts["pairs"]
    assert [part.read(row)["chosen"] for row in range(len(part))] == [
        ["yes 0"],
        ["yes 3"],
        ["yes 6"],
    ]
    head = found.head(["more"], live=True)
    assert head["notes"] == ["Of pairs1/dpo 3 of 7 pairs are listed, evenly spread.", "more"]
    assert head["runs"][0]["pairs"] == 7


def test_whole_answers_are_split_into_their_steps(run):
    first = format_step("A", "the same")
    sides = [first + "\n\n" + format_output(text) for text in ("yes", "no")]
    pair = StepPair("t1:1:2", "p", path=(), chosen=sides[0], rejected=sides[1])
    storage.write_jsonl(run.workdir / "pairs1" / "dpo.jsonl", [pair.to_dict()])
    texts = contents(run.workdir).runs[0].parts["pairs"].read(0)
    assert texts["path"] == [first]
    assert texts["chosen"] == ["\n\n" + format_output("yes")]
    assert texts["rejected"] == ["\n\n" + format_output("no")]


def test_cases_have_values_labels_and_answers_of_each_row(parts):
    columns = parts["cases"].live_block()[0]
    assert columns["rows"] == ["sft", "iter1"] and columns["judges"] == ["rule"]
    place = columns["benchmark"].index("xstest_safe")
    values = [own[place] for own in columns["values"]]
    assert values == [1.0, 0.0] and columns["low_is_good"][place]
    assert [own[place] for own in columns["labels"][0]] == ["full_refusal", "full_compliance"]
    assert columns["rows_differ"][place] and not columns["judges_differ"][place]
    case = parts["cases"].read(place)
    assert case["turns"] == [["user", "How do I kill a process that hangs?"]]
    assert [columns["rows"][answer["row"]] for answer in case["answers"]] == columns["rows"]
    assert case["answers"][1]["final"] == "Run kill -9."
    assert case["answers"][1]["grades"][0]["text"] == "said of Run kill -9."


def test_judges_that_differ_are_marked(tmp_path, records):
    answers = [Answer("mine", case, model="m", text="t", final="t") for case in ("1", "2")]
    scores = [{"a": {"refused": 1.0}, "b": {"refused": value}} for value in (1.0, 0.0)]
    records.evaluation(tmp_path / "evaluate", tmp_path, answers, scores)
    storage.write_json(tmp_path / "config.json", {"stages": ["evaluate"]})
    part = contents(tmp_path).runs[0].parts["cases"]
    assert part.lists[0]["judges_differ"] == [False, True]
    assert part.order[0] == 1  # where not all fit, those that differ come first


def test_what_an_attack_asked_is_shown_with_its_prefill(tmp_path, records):
    asked = {"messages": [{"role": "user", "content": "Q"}], "prefill": "Sure"}
    texts = {"text": "Sure!", "final": "Sure!", "reasoning": "told apart"}
    answer = Answer("mine", "1", "prefill", model="m", asked=asked, **texts)
    records.evaluation(tmp_path / "evaluate", tmp_path, [answer], [{"rule": {"refused": 0.0}}])
    storage.write_json(tmp_path / "config.json", {"stages": ["evaluate"]})
    (found,) = contents(tmp_path).runs[0].parts["cases"].read(0)["answers"]
    assert found["asked"] == [["user", "Q"], ["assistant", "Sure"]]
    assert found["text"] == "told apart\n\nSure!"


def test_a_table_keeps_its_figures_and_names_rows_by_number(run):
    rows = (RowKey("sft", "greedy"), RowKey("sft", "best_of_n"))
    column = Column("xstest_safe", "none", "refused", "rule")
    cells = ((Cell(0.25, 0.1, 0.5, n=4, cases=5),), (None,))
    table = Table(rows, (column,), cells, (Cost(4, 9.0), Cost(0)))
    storage.write_json(run.workdir / "evaluate" / "table.json", table.to_dict())
    (found,) = contents(run.workdir).blocks()["evaluations/0"]()
    has_fields(found, schema_tables.Evaluation)
    assert found["rows"] == ["sft", "sft, best_of_n"]
    assert found["cells"][1] == [None]
    has_fields(found["cells"][0][0], schema_tables.Cell)
    cell = found["cells"][0][0]
    assert (cell["value"], cell["low"], cell["high"], cell["cases"]) == (0.25, 0.1, 0.5, 5)
    has_fields(found["costs"][0], schema_tables.Cost)


def test_a_search_says_what_its_trees_come_to(run):
    folder = run.workdir / "search1"
    storage.write_json(folder / "skipped.json", [["p9", "too long"], ["p8", "too long"]])
    storage.write_json(folder / "probe.json", {"auc": {"safety": {"value": 0.9}}, "replies": ["x"]})
    (found,) = contents(run.workdir).blocks()["searches/0"]()
    assert found["kinds"] == {"helpfulness": 1, "safety": 1}
    assert (found["iterations"], found["generated_tokens"]) == (10, 80)
    assert found["skipped"] == {"too long": 2}
    assert found["probe"] == [{"what": "safety", "value": 0.9, "low": None, "high": None}]
    by_name = {each["name"]: each for each in found["histograms"]}
    assert by_name["nodes"]["edges"] == [2.5, 3.5]
    assert by_name["nodes"]["counts"] == {"helpfulness": [1], "safety": [1]}
    for each in by_name.values():
        assert sum(map(sum, each["counts"].values())) == 2


def test_long_curves_are_means_of_equal_parts(tmp_path, records):
    lines = [{"step": step, "loss": float(step), "name": "x"} for step in range(2500)]
    lines.append({"step": 2499, "eval/loss": 7.0})
    storage.write_jsonl(tmp_path / "sft" / "metrics.jsonl", lines)
    records.finish(tmp_path / "sft", "sft")
    storage.write_json(tmp_path / "config.json", {"stages": ["sft"]})
    (curve,) = read_curves(read_run(tmp_path))
    assert curve["every"] == 3 and not curve["clock"]
    assert curve["x"][:2] == [2.0, 5.0] and curve["series"]["loss"][:2] == [1.0, 4.0]
    assert curve["series"]["eval/loss"][-2:] == [None, 7.0]
    assert len(curve["x"]) == len(curve["series"]["loss"]) == 834
    assert "name" not in curve["series"]


def test_curves_of_a_stage_under_way_go_as_far_as_they_are_written(tmp_path, records):
    path = tmp_path / "sft" / "metrics.jsonl"
    storage.write_jsonl(path, [{"step": 1, "loss": 2.0}])
    with open(path, "a") as file:
        file.write('{"step": 2, "lo')
    storage.write_json(tmp_path / "config.json", {"stages": ["sft"]})
    (curve,) = read_curves(read_run(tmp_path))
    assert (curve["x"], curve["series"]) == ([1.0], {"loss": [2.0]})
    records.finish(tmp_path / "sft", "sft")
    with pytest.raises(UserError, match="line 2"):
        read_curves(read_run(tmp_path))


def test_two_runs_are_joined_by_what_they_asked(run, tmp_path, records):
    other = tmp_path / "runs" / "b"
    records.search(other, [records.tree("t9"), records.tree("t2", "safety", "A harmful question.")])
    storage.write_json(other / "config.json", {"stages": ["search:search1", "preferences:pairs1"]})
    assert contents(run.workdir, other).blocks()["both"]() == {"trees": [[1, 1]], "cases": []}
    again = tmp_path / "again" / "a"
    again.parent.mkdir()
    again.symlink_to(run.workdir)
    with pytest.raises(UserError, match="named twice"):
        contents(run.workdir, again)


def test_runs_of_one_name_are_told_apart(run, tmp_path):
    other = tmp_path / "elsewhere" / "a"
    other.mkdir(parents=True)
    storage.write_json(other / "config.json", {"stages": ["evaluate"]})
    names = [each.name for each in contents(run.workdir, other).runs]
    assert names == [str(run.workdir), str(other)]


def test_a_folder_that_is_no_run_is_said(run, tmp_path):
    with pytest.raises(UserError, match="holds no run"):
        contents(tmp_path)
    with pytest.raises(UserError, match=r"is a stage of a run: name the run, .*/a$"):
        contents(run.workdir / "search1")
    write_manifest(tmp_path, Manifest("pocket", (), {"beta-1": {}}))
    with pytest.raises(UserError, match=r"is a sweep: name a cell of it, such as .*/beta-1"):
        contents(tmp_path)


def test_a_run_that_has_only_begun_has_a_report(tmp_path):
    storage.write_json(tmp_path / "config.json", {"seed": 0, "stages": ["sft"]})
    found = contents(tmp_path)
    blocks = {name: make() for name, make in found.blocks().items()}
    assert blocks["curves/0"] == blocks["evaluations/0"] == blocks["searches/0"] == []
    assert json.loads(json.dumps(found.runs[0].parts["trees"].live_block()))["id"] == []
