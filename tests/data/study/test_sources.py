"""Where sets are read from: local copies, the hub, GitHub; what is said of absent ones."""

import gzip
import http.client
import io
import json
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest

import stair_jax
from stair_jax.data.study import remote
from stair_jax.data.study.catalogue import SETS
from stair_jax.data.study.sources import Choice, Sources
from stair_jax.errors import UserError

ROWS = [{"question": "How many?", "answer": "#### 1"}, {"question": "How few?", "answer": "#### 2"}]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


@pytest.fixture
def github(monkeypatch):
    """`github(reply)`: what a download gives, bytes or an error; returns the addresses asked."""

    def prepare(reply):
        asked = []

        def urlopen(address, timeout):
            asked.append(address)
            if isinstance(reply, Exception):
                raise reply
            return io.BytesIO(reply)

        monkeypatch.setattr(urllib.request, "urlopen", urlopen)
        return asked

    return prepare


@pytest.fixture
def hub(monkeypatch):
    """`hub(reply)`: what the hub says of a set, a commit or an error; returns what was loaded."""

    def prepare(reply):
        import datasets
        import huggingface_hub

        loaded = []

        def dataset_info(self, name, revision, timeout):
            if isinstance(reply, Exception):
                raise reply
            return SimpleNamespace(sha=reply)

        def load_dataset(name, config, revision):
            loaded.append((name, config, revision))
            rows = [{"question": "How?", "response": "<think>A. B. C.</think> So."}]
            return datasets.DatasetDict({"train": datasets.Dataset.from_list(rows)})

        monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        return loaded

    return prepare


def test_every_set_has_a_role_a_licence_and_a_place_to_be_had():
    for name, one in SETS.items():
        assert one.name == name and one.licence and one.files
        assert one.role in ("training", "development", "reported")
        assert one.page.startswith("https://")
        assert all(len(path.split("/")) == 2 for path in one.files)


def test_the_documentation_lists_every_set_with_role_licence_and_place():
    page = Path(stair_jax.__file__).parents[1] / "docs" / "study_data.md"
    listed = [line for line in page.read_text().splitlines() if line.startswith("| `")]
    for name, one in SETS.items():
        kind = one.origin.partition(":")[0]
        row = f"| `{name}` | {one.role} | {one.licence} | `{one.files[0]}` | [{kind}]({one.page}) |"
        assert row in listed


def test_a_local_copy_is_read_gzipped_or_not_and_only_once(tmp_path):
    (tmp_path / "gsm8k").mkdir()
    path = tmp_path / "gsm8k" / "train.jsonl.gz"
    path.write_bytes(gzip.compress(LINES))
    sources = Sources(Choice(tmp_path, remote=False))
    assert sources.rows("gsm8k_train") == ROWS
    path.unlink()
    assert sources.rows("gsm8k_train") == ROWS
    found = sources.found["gsm8k_train"]
    assert (found.place, found.revision, found.rows) == ("gsm8k/train.jsonl.gz", "", 2)
    assert sources.file("gsm8k_train") == path


def test_a_text_file_has_a_prompt_a_line(tmp_path):
    (tmp_path / "malicious_instruct").mkdir()
    path = tmp_path / "malicious_instruct" / "MaliciousInstruct.txt"
    path.write_text("First of all\n\n second \n")
    rows = Sources(Choice(tmp_path, remote=False)).rows("malicious_instruct")
    assert rows == [{"prompt": "First of all"}, {"prompt": "second"}]


def test_what_is_not_there_is_absent_and_says_why(tmp_path):
    sources = Sources(Choice(tmp_path, remote=False, without=["star1"]))
    assert sources.rows("gsm8k_test") == sources.rows("star1") == []
    assert sources.absent["gsm8k_test"] == f"there is no {tmp_path}/gsm8k/test.jsonl"
    assert sources.absent["star1"] == "left out by --without"


def test_a_file_of_github_is_read_at_its_commit_or_at_another(github):
    asked = github(LINES)
    sources = Sources(Choice(revisions={"gsm8k_test": "v9"}))
    assert sources.rows("gsm8k_train") == sources.rows("gsm8k_test") == ROWS
    path = "https://raw.githubusercontent.com/openai/grade-school-math"
    assert asked[0].startswith(f"{path}/3101c7d5072418e28b9008a6636bde82a006892c/")
    assert asked[1] == f"{path}/v9/grade_school_math/data/test.jsonl"
    assert sources.downloads("gsm8k_test") == {"gsm8k/test.jsonl": LINES}
    assert sources.file("gsm8k_test") is None
    assert sources.found["gsm8k_test"].revision == "v9"


def test_files_beside_a_download_come_with_it(github):
    asked = github(b"A line\n")
    sources = Sources(Choice())
    sources.rows("confaide")
    names = {address.rpartition("/")[2] for address in asked}
    assert {"tier_1.txt", "tier_2_labels.txt", "tier_4.txt"} <= names
    assert set(sources.downloads("confaide")) == {f"confaide/{name}" for name in names}


def test_a_set_of_the_hub_is_read_at_the_commit_that_is_recorded(hub, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    loaded = hub("c0ffee")
    sources = Sources(Choice())
    assert [row["question"] for row in sources.rows("star1")] == ["How?"]
    assert loaded == [("UCSC-VLAA/STAR-1", "default", "c0ffee")]
    assert sources.found["star1"].revision == "c0ffee" and not sources.downloads("star1")


def test_a_set_that_a_server_does_not_have_is_absent(github, hub):
    import httpx
    from huggingface_hub.errors import RepositoryNotFoundError

    response = httpx.Response(404, request=httpx.Request("GET", "https://hub"))
    hub(RepositoryNotFoundError("404: no such set", response=response))
    github(urllib.error.HTTPError("https://x", 404, "Not Found", {}, None))
    sources = Sources(Choice())
    assert sources.rows("star1") == sources.rows("advbench") == []
    assert "no such set" in sources.absent["star1"]
    assert "harmful_behaviors.csv answers 404 Not Found" in sources.absent["advbench"]


def test_a_server_with_a_fault_is_no_reason_to_do_without_its_sets(github, hub):
    import httpx
    from huggingface_hub.errors import HfHubHTTPError

    response = httpx.Response(503, request=httpx.Request("GET", "https://hub"))
    hub(HfHubHTTPError("503: try later", response=response))
    github(urllib.error.HTTPError("https://x", 503, "Unavailable", {}, None))
    for name in ("star1", "advbench"):
        with pytest.raises(UserError, match=r"cannot reach .*503"):
            Sources(Choice()).rows(name)


def test_of_a_large_set_only_the_columns_in_use_are_read(hub, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    hub("c0ffee")
    import datasets

    rows = [{"prompt": "How?", "chosen": "So.", "rejected": "No."}]
    split = datasets.DatasetDict({"train_prefs": datasets.Dataset.from_list(rows)})
    monkeypatch.setattr(datasets, "load_dataset", lambda *names, revision: split)
    assert Sources(Choice()).rows("ultrafeedback") == [{"prompt": "How?"}]


@pytest.mark.parametrize(("name", "what"), [("advbench", "https://raw"), ("star1", "the hub for")])
def test_a_server_that_cannot_be_reached_is_an_error_that_names_the_way_out(
    github, hub, name, what
):
    github(urllib.error.URLError("no route"))
    hub(ConnectionError("no\nroute"))
    with pytest.raises(UserError, match=f"cannot reach {what}.*no route.*: copy the sets into a"):
        Sources(Choice()).rows(name)


def test_a_download_that_is_cut_off_is_an_error(github):
    github(http.client.IncompleteRead(b"{", 10))
    with pytest.raises(UserError, match=r"cannot reach https://raw.*IncompleteRead"):
        Sources(Choice()).rows("gsm8k_train")


def test_a_download_is_bounded(github, monkeypatch):
    monkeypatch.setattr(remote, "_MOST_BYTES", 10)
    github(LINES)
    with pytest.raises(UserError, match="has more than 10 bytes"):
        Sources(Choice()).rows("gsm8k_train")


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("gsm8k_test", b'{"question": "x"}\nnot JSON\n', "line 2: .*; 1 of 2 rows cannot be read"),
        ("gsm8k_test", b"", "has no rows: copy the file again from https://github.com/openai"),
        ("gsm8k_test", b'{"prompt": "x"}\n', "set gsm8k_test: there is no column 'question', only"),
        ("gsm8k_test", b"\x1f\x8bjunk", "is a damaged gzip file"),
    ],
)
def test_a_file_that_cannot_be_used_is_an_error_in_one_line(tmp_path, name, data, said):
    path = tmp_path / SETS[name].files[0]
    path.parent.mkdir()
    path.write_bytes(data)
    with pytest.raises(UserError, match=said):
        Sources(Choice(tmp_path, remote=False)).rows(name)


def test_few_rows_of_a_training_set_may_be_unreadable(tmp_path):
    (tmp_path / "gsm8k").mkdir()
    (tmp_path / "gsm8k" / "train.jsonl").write_bytes(LINES * 100 + b"[]\n")
    sources = Sources(Choice(tmp_path, remote=False))
    assert len(sources.rows("gsm8k_train")) == 200
    assert sources.found["gsm8k_train"].unreadable == 1


def test_an_unknown_set_and_a_folder_that_is_none_are_errors(tmp_path):
    with pytest.raises(UserError, match=r"no data set 'start1': did you mean star1\?"):
        Choice(without=["start1"])
    with pytest.raises(UserError, match="is no folder: name the one with local copies"):
        Choice(tmp_path / "none")
