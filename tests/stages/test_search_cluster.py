"""A search stage on workers in this process: its files are those of a search without workers."""

from types import SimpleNamespace

import pytest

from stair_jax import storage
from stair_jax.decoding.requests import EngineStats
from stair_jax.errors import UserError
from stair_jax.record_log import RecordLog
from stair_jax.run import workers
from stair_jax.search.search_report import SearchReport
from stair_jax.settings import build
from stair_jax.stages import Search, search_cluster
from stair_jax.stages.search_parts import TREES_FILE

SETTINGS = {
    "model": "base",
    "prompts": "data",
    "file": "prompts.jsonl",
    "context_tokens": 128,
    "max_prompt_tokens": 120,
    "num_iterations": 6,
    "num_children": 2,
    "max_depth": 2,
    "max_step_tokens": 6,
    "max_answer_tokens": 10,
    "judge": {
        "mode": "expected",
        "fence": False,
        "helpfulness_template": "{prompt} : {answer}",
        "safety_template": "{prompt} . {answer}",
        "malformed": -2.5,
        "min_auc": 0.0,
        "calibrate": True,
    },
    "samples_every": 2,
}
FILES = ("metrics.jsonl", "samples.jsonl", "skipped.json", "probe.json")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, make_stage_inputs):
    folder = make_stage_inputs(tmp_path_factory.mktemp("inputs"), rows=2, initializer_range=0.1)
    rows = [
        {"id": f"p{i}", "prompt": f"{i} + 2?", "kind": ("safety", "helpfulness")[i % 2]}
        for i in range(6)
    ]
    rows.insert(3, {"id": "long", "prompt": "1 " * 200, "kind": "safety"})
    rows.append(rows[0])
    path = folder / "data" / "prompts.jsonl"
    storage.write_jsonl(path, [row | {"source": "test"} for row in rows])
    cases = [
        {"prompt": "1", "kind": "safety", "answer": f"{n}", "safety": n % 2 * 2 - 1}
        | {"helpfulness": n % 2 * 2 - 1}
        for n in range(4)
    ]
    storage.write_jsonl(folder / "cases.jsonl", cases)
    return folder


@pytest.fixture
def search(run_stage, inputs, tmp_path):
    def search(name, **runtime):
        judge = SETTINGS["judge"] | {"probe": str(inputs / "cases.jsonl")}
        folders = {"model": inputs / "model", "prompts": inputs / "data"}
        values = SETTINGS | {"judge": judge}
        sizes = {"slots": 4, "trees_in_flight": 2}
        return run_stage(Search, values, tmp_path / name, folders, **sizes, **runtime)

    return search


def trees_of(folder):
    records = {}
    for record in RecordLog(folder / TREES_FILE):
        worker = record.pop("worker", None)
        del record["seconds"]
        records[record["id"]] = record, worker
    return records


def totals_in(output):
    (line,) = [line for line in output.splitlines() if " tokens; " in line]
    return line.partition(": ")[2]


def test_the_files_of_a_search_on_workers_are_those_of_one_without(search, pools, capsys):
    alone = search("alone")
    told = totals_in(capsys.readouterr().err)
    folder = search("alone_on", cluster="local:2").rename(alone.parent / "dealt")
    assert totals_in(capsys.readouterr().err) == told
    expected, found = trees_of(alone), trees_of(folder)
    assert {id: tree for id, (tree, _) in found.items()} == {
        id: tree for id, (tree, _) in expected.items()
    }
    assert {worker for _, worker in expected.values()} == {None}
    assert {worker for _, worker in found.values()} <= {"b/0.2", "a/0.3", "a/0.1"}
    for name in FILES:
        assert (folder / name).read_bytes() == (alone / name).read_bytes(), name


def test_a_tree_that_two_workers_grew_counts_once():
    tree = SimpleNamespace(counts={"malformed": 2}, generated_tokens=5, prefilled_tokens=3)
    totals = search_cluster._Totals()
    for worker in "ab":
        said = SearchReport(iterations=6, rounds=4, engine=EngineStats(generated=9))
        said.add(tree)
        totals.take(worker, said)
    found = totals.report
    found.add(tree)
    assert (found.trees, found.generated_tokens, found.prefilled_tokens) == (1, 5, 3)
    assert found.counts == {"malformed": 2}
    assert (found.iterations, found.rounds, found.engine.generated) == (12, 8, 18)


def test_a_search_goes_on_with_workers_and_without(search, pools, tmp_path):
    whole = trees_of(search("search"))
    log = RecordLog(tmp_path / "search" / TREES_FILE)
    members = list(log.members())
    with open(log.path, "r+b") as file:
        file.truncate(members[1][1])
    again = trees_of(search("search", cluster="local:2"))
    assert {id: tree for id, (tree, _) in again.items()} == {
        id: tree for id, (tree, _) in whole.items()
    }
    assert sum(worker is None for _, worker in again.values()) == 2


def test_a_worker_with_another_model_is_refused(search, pools, monkeypatch):
    fingerprints = iter(["one", "another"])
    monkeypatch.setattr(workers, "fingerprint_folder", lambda hf: next(fingerprints))
    with pytest.raises(UserError, match="holds another model than on the machine of the driver"):
        search("search", cluster="local:2")


def test_a_judge_behind_an_endpoint_is_not_dealt_out():
    endpoint = {"base_url": "http://127.0.0.1:1/v1", "model": "judge"}
    judge = {"source": "endpoint", "mode": "generative", "endpoint": endpoint}
    stage = build(Search, {"model": "m", "prompts": "p", "judge": judge}, "config.search")
    with pytest.raises(UserError, match="leave --cluster out"):
        stage.check_cluster()
