"""The report over a local port: one row at a time, to this machine alone."""

import http.client
import json
import threading
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from stair_jax import launch, storage
from stair_jax.errors import UserError
from stair_jax.record_log import RecordLog
from stair_jax.reports.html.contents import read_contents
from stair_jax.reports.html.serving import ReportServer


@pytest.fixture
def served(run):
    """A server of a run, with `get(path, host)` -> (status, headers, text)."""
    with ReportServer(read_contents([run.workdir]), 0) as server:
        port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()

        def get(path, host=f"127.0.0.1:{port}", method="GET"):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            connection.request(method, path, headers={"Host": host})
            answer = connection.getresponse()
            text = answer.read().decode()
            connection.close()
            return answer.status, answer.headers, text

        yield SimpleNamespace(get=get, run=run, port=port, server=server)
        server.shutdown()
        thread.join()


def test_the_page_has_its_head_alone_and_may_ask_for_more(served):
    status, headers, text = served.get("/")
    assert status == 200 and text.count('id="data:') == 1
    assert "connect-src 'self'" in headers["Content-Security-Policy"]
    head = json.loads(served.get("/data/head")[2])
    assert head["live"] and head["runs"][0]["trees"] == 2
    for name in head["blocks"]:
        assert served.get(f"/data/{name}")[0] == 200


def test_each_row_is_a_block_of_its_own(served):
    columns = json.loads(served.get("/data/trees/0")[2])
    assert columns["block"] == [0, 1] and columns["slot"] == [0, 0]
    trees = [json.loads(served.get(f"/data/trees/0/{number}")[2]) for number in range(2)]
    assert [[tree["id"] for tree in block] for block in trees] == [["t1"], ["t2"]]
    assert json.loads(served.get("/data/pairs/0/0")[2])[0]["rejected"] == ["Sorry."]
    assert len(json.loads(served.get("/data/cases/0/1")[2])[0]["answers"]) == 2


def test_one_tree_is_read_without_the_others(served):
    path = served.run.workdir / "search1" / "trees.jsonl.gz"
    assert served.get("/data/trees/0")[0] == 200
    first = next(end for _, end in RecordLog(path).members())
    path.write_bytes(b"x" * first + path.read_bytes()[first:])
    assert served.get("/data/trees/0/1")[0] == 200
    status, _, text = served.get("/data/trees/0/0")
    assert status == 500 and "was changed while it was read" in text


def test_curves_grow_while_a_stage_is_under_way(served):
    workdir = served.run.workdir
    config = storage.read_json(workdir / "config.json")
    storage.write_json(workdir / "config.json", {"stages": [*config["stages"], "dpo:iter1"]})
    for number in (1, 2):
        lines = [{"step": step, "loss": 1.0} for step in range(number)]
        storage.write_jsonl(workdir / "iter1" / "metrics.jsonl", lines)
        (curve,) = json.loads(served.get("/data/curves/0")[2])
        assert (curve["stage"], len(curve["x"])) == ("iter1", number)


def test_the_answers_to_one_case_are_read_without_the_others(served):
    columns = json.loads(served.get("/data/cases/0")[2])[0]
    path = served.run.workdir / "evaluate" / "answers" / "sft.greedy.jsonl"
    first = path.read_bytes().index(b"\n")
    path.write_bytes(b"x" * first + path.read_bytes()[first:])
    kept = columns["benchmark"].index("xstest_unsafe")
    case = json.loads(served.get(f"/data/cases/0/{kept}")[2])[0]
    assert [answer["final"] for answer in case["answers"]] == ["No: SECRET1", "No: SECRET2"]
    assert case["answers"][0]["grades"][0]["text"] == "said of No: SECRET1"
    status, _, text = served.get(f"/data/cases/0/{1 - kept}")
    assert status == 500 and "was changed while it was read" in text


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/data/",
        "/data/nothing",
        "/data/trees",
        "/data/trees/1",
        "/data/trees/0/2",
        "/data/trees/0/-1",
        "/data/trees/0/%31",
        "/data/trees/0/99999999999999999999",
        "/data/trees/0/0/0",
        "/data/../config.json",
        "/config.json",
    ],
)
def test_there_is_nothing_else(served, path):
    assert served.get(path)[0] == 404


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text("/0123456789-. traespicdh²٣", max_size=20))
@example("trees/0/٣")
def test_any_name_is_a_block_or_none(served, name):
    found = served.server.blocks.read(name)
    assert found is None or isinstance(json.loads(found), dict | list)


def test_other_names_of_this_machine_and_other_methods_are_refused(served):
    assert served.get("/", host="example.org")[0] == 403
    assert served.get("/data/head", host=f"example.org:{served.port}")[0] == 403
    assert served.get("/", host=f"localhost:{served.port}")[0] == 200
    assert served.get("/", method="POST")[0] == 501


def test_a_port_that_is_taken_is_said(served):
    with pytest.raises(UserError, match=rf"--port={served.port}: .*in use"):
        ReportServer(read_contents([served.run.workdir]), served.port)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("report",), "name the folder of a run"),
        (("report", "a", "b"), "--out=both.html"),
        (("report", "a", "b", "c", "--out=x.html"), "of one run, or of two"),
        (("report", "a", "--out=x.txt"), "ends with .html"),
        (("report", "a", "--trees=-1"), "--trees"),
        (("report", "a", "--config.seed=1"), "is a field of a run's config"),
        (("view",), "name the folder of a run"),
        (("view", "a", "--port=70000"), "a port is 0 to 65535"),
        (("view", "a", "--port=x"), "--port is 'x'"),
        (("view", "nowhere"), "holds no run"),
    ],
)
def test_mistakes_are_one_line(words, said, capsys):
    assert launch.main(["stair-jax", *words]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_the_command_writes_the_page(run, tmp_path, capsys):
    out = tmp_path / "r.html"
    assert launch.main(["stair-jax", "report", str(run.workdir), f"--out={out}"]) == 0
    assert out.read_text().startswith("<!doctype html>")
    assert capsys.readouterr().out == f"{out} is written\n"


def test_damaged_records_end_the_command_before_it_listens(run, capsys):
    trees = run.workdir / "search1" / "trees.jsonl.gz"
    trees.write_bytes(b"x" + trees.read_bytes()[1:])
    assert launch.main(["stair-jax", "view", str(run.workdir), "--port=0"]) == 2
    said = capsys.readouterr()
    assert "is damaged at record 1" in said.err and not said.out
