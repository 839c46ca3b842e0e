"""The stage `synthesize` with a teacher behind a fake endpoint, and no model here."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

import stair_jax
from stair_jax import storage
from stair_jax.data.prompts import read_rows
from stair_jax.data.records import SftRow
from stair_jax.endpoints.ledger import Ledger
from stair_jax.errors import UserError
from stair_jax.settings import build
from stair_jax.stages import Synthesize
from stair_jax.testing.fake_endpoint import Act, FakeEndpoint, reply_of
from stair_jax.text.steps import format_answer

pytest.importorskip("openai", "3.0", reason="openai, of the extra endpoints, is not installed")

FILES = ("answers.jsonl", "sft.jsonl", "rejected.jsonl", "counts.json", "metrics.jsonl")
REPLIES, CONCURRENCY = "teacher_replies.jsonl.gz", 3
REPAIR = "Your reply does not have the form"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    """Loopback is reached directly, whatever the environment says."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")


def completion(body, text, finish="stop"):
    """The reply of a teacher."""
    reply = reply_of(body)
    reply["choices"][0] |= {"finish_reason": finish, "message": {"content": text}}
    return reply


def structured(body):
    """A well-formed answer of its own to each prompt: a refusal."""
    last = body["messages"][-1]["content"]
    steps = [("What is asked", f"It is a request of {len(last)} characters.")]
    return format_answer(steps, "I'm sorry, but I can't help with that.")


def teacher(number, body):
    """Well-formed answers; at first none of the form to each prompt with a 1."""
    last = body["messages"][-1]["content"]
    if "1" in last and not last.startswith(REPAIR):
        return Act(body=completion(body, "Final Answer: no tags."))
    return Act(body=completion(body, structured(body)))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs") / "data"
    rows = [{"id": f"p{i}", "prompt": f"Request {i}?", "kind": "safety"} for i in range(6)]
    storage.write_jsonl(folder / "prompts1.jsonl", rows)
    answers = [row | {"answer": f"Given {i}."} for i, row in enumerate(rows)]
    storage.write_jsonl(folder / "sft.jsonl", answers)
    return {"prompts": folder}


def values(endpoint, changes=None, **settings):
    """Settings of a stage whose teacher is `endpoint`, with `changes` of how it is asked."""
    base = {"base_url": endpoint.base_url, "model": "fake", "max_requests": 1000}
    quick = {"retry_seconds": 0.001, "concurrency": CONCURRENCY}
    return {
        "prompts": "data",
        "template": "steps",
        "num_candidates": 1,
        "repair": True,
        "kinds": ("safety",),
        "judge": {"source": "rule:safety", "helpfulness_prompts": (), "probe": ""},
        "teacher_endpoint": base | quick | dict(changes or {}),
        **settings,
    }


@pytest.fixture
def taught(run_stage, inputs, tmp_path):
    """`taught(endpoint, changes, name=..., **settings)`: the folder of a finished stage."""

    def run(endpoint, changes=None, name="synthesis", **settings):
        stage = values(endpoint, changes, **settings)
        return run_stage(Synthesize, stage, tmp_path / name, inputs)

    return run


def contents(folder):
    return {name: (folder / name).read_bytes() for name in FILES}


def test_a_teacher_writes_what_is_kept_and_no_model_is_loaded(taught):
    prices = {"input_price": 5e5, "output_price": 1e6, "budget": 1e9}
    with FakeEndpoint(teacher) as endpoint:
        folder = taught(endpoint, prices)
    rows = read_rows(folder / "sft.jsonl", SftRow)
    assert [row.id for row in rows] == [f"p{i}:0" for i in range(6)]
    assert [row.prompt for row in rows] == [f"Request {i}?" for i in range(6)]  # not the template
    assert all("<|Output|>" in row.answer for row in rows)
    assert all("### Form" in body["messages"][0]["content"] for body in endpoint.calls)
    account = storage.read_json(folder / "ledger.json")["teacher"]
    usages = [reply_of(body)["usage"] for body in endpoint.calls]
    tokens = sum(each["prompt_tokens"] for each in usages)
    assert account == {
        "endpoint": endpoint.base_url,
        "model": "fake",
        "requests": 7,
        "replies": 7,
        "lost": 0,
        "filtered": 0,
        "too_long": 0,
        "input_tokens": tokens,
        "output_tokens": 4 * 7,
        "cost": tokens / 2 + 4 * 7,
    }


def test_a_malformed_answer_goes_back_once_with_what_is_wrong(taught):
    with FakeEndpoint(teacher) as endpoint:
        folder = taught(endpoint)
    (again,) = [body for body in endpoint.calls if len(body["messages"]) > 1]
    assert [turn["role"] for turn in again["messages"]] == ["user", "assistant", "user"]
    assert "Request 1?" in again["messages"][0]["content"]
    assert again["messages"][1]["content"] == "Final Answer: no tags."
    turn = again["messages"][2]["content"]
    assert turn.startswith(f"{REPAIR} that was asked for: text outside of a block at character 0.")
    assert "<|Reasoning_step|>Title: " in turn
    assert storage.read_json(folder / "counts.json")["repairs"] == 1


def test_what_stays_malformed_is_rejected_after_one_repair(taught):
    def stubborn(number, body):
        is_first = "Request 1?" in body["messages"][0]["content"]
        return Act(body=completion(body, "No." if is_first else structured(body)))

    with FakeEndpoint(stubborn) as endpoint:
        folder = taught(endpoint)
    assert len(endpoint.calls) == 7
    (row,) = storage.read_jsonl(folder / "rejected.jsonl")
    assert (row["id"], row["reason"], row["answer"]) == ("p1:0", "malformed", "No.")


def test_without_repair_nothing_is_asked_again(taught):
    with FakeEndpoint(teacher) as endpoint:
        folder = taught(endpoint, repair=False)
    assert len(endpoint.calls) == 6
    assert storage.read_json(folder / "counts.json")["answers"] == {"kept": 5, "malformed": 1}


def test_refusals_by_the_content_filter_and_cut_replies_are_counted_apart(taught):
    def script(number, body):
        text = body["messages"][0]["content"]
        if "Request 0?" in text:
            return Act(400, {"error": {"code": "content_filter", "message": "no"}})
        if "Request 2?" in text:
            return Act(body=completion(body, structured(body)[:-30], "length"))
        if "Request 3?" in text:
            return Act(400, {"error": {"code": "context_length_exceeded", "message": "no"}})
        return (
            Act(500, {}) if "Request 4?" in text else Act(body=completion(body, structured(body)))
        )

    with FakeEndpoint(script) as endpoint:
        folder = taught(endpoint, {"tries": 2})
    counts = storage.read_json(folder / "counts.json")
    assert counts["answers"] == {"cut": 1, "filtered": 1, "kept": 2, "no_reply": 1}
    assert counts["skipped"] == {"prompt too long": 1}
    account = storage.read_json(folder / "ledger.json")["teacher"]
    assert (account["filtered"], account["too_long"], account["replies"]) == (1, 1, 5)
    assert "cost" not in account  # nobody said what it costs


def test_rewriting_shows_the_given_answer_and_the_judge_is_asked_elsewhere(taught):
    def judge(number, body):
        return Act(body=completion(body, "Conclusion: [SAFE]"))

    with FakeEndpoint(teacher) as endpoint, FakeEndpoint(judge) as other:
        asked = {"base_url": other.base_url, "model": "judge", "max_requests": 100}
        folder = taught(
            endpoint,
            file="sft.jsonl",
            template="rewrite",
            judge={
                "source": "endpoint",
                "endpoint": asked,
                "safety_template": "Safe? {prompt} {answer}",
                "safety_prompts": ("safety",),
            }
            | {"helpfulness_prompts": (), "probe": ""},
        )
    assert len(other.calls) == 6
    shown = [body["messages"][0]["content"] for body in endpoint.calls]
    assert all(any(f"### Answer\nGiven {i}." in text for text in shown) for i in range(6))
    accounts = storage.read_json(folder / "ledger.json")
    assert {name: each["model"] for name, each in accounts.items()} == {
        "teacher": "fake",
        "judge": "judge",
    }
    assert storage.read_json(folder / "counts.json")["answers"] == {"kept": 6}


def test_a_storm_of_refusals_and_cut_replies_changes_nothing(taught):
    def storm(number, body):
        acts = (Act(429, {}, {"Retry-After": "0.01"}), Act(500, {}), Act(cut=30), Act(body=b"{"))
        return teacher(number, body) if number % 5 == 4 else acts[number % 5]

    with FakeEndpoint(teacher) as calm:
        expected = contents(taught(calm, name="calm"))
    with FakeEndpoint(storm) as endpoint:
        folder = taught(endpoint, {"tries": 50}, name="storm")
    assert contents(folder) == expected
    paid = Counter(json.dumps(body, sort_keys=True) for body in endpoint.calls)
    assert sum(endpoint.paid.values()) >= len(endpoint.paid) == len(paid) == 7


SCRIPT = """
import sys, json
from pathlib import Path
from stair_jax.run.context import StageContext
from stair_jax.run.runtime import Runtime
from stair_jax.settings import build
from stair_jax.stages import Synthesize

folder, prompts, settings = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
folder.mkdir(exist_ok=True)
runtime = build(Runtime, {"training_mesh": {}, "decoding_mesh": {}}, "runtime")
stage = build(Synthesize, settings, "config")
stage.run(StageContext(folder.name, runtime, 0, folder, {"prompts": prompts}))
"""


def test_after_kills_the_bytes_are_the_same_and_nothing_is_asked_twice_but_what_was_under_way(
    taught, inputs, tmp_path
):
    def slow(number, body):
        act = teacher(number, body)
        return Act(body=act.body, seconds=0.02)

    with FakeEndpoint(slow) as endpoint:
        expected = contents(taught(endpoint, name="calm", num_candidates=3))
    folder, kept = tmp_path / "killed", []
    with FakeEndpoint(slow) as endpoint:
        stage = values(endpoint, num_candidates=3)
        arguments = [str(folder), str(inputs["prompts"]), storage.json_line(stage).decode()]
        for calls in (9,):
            process = subprocess.Popen(
                [sys.executable, "-c", SCRIPT, *arguments],
                env=os.environ | {"PYTHONPATH": str(Path(stair_jax.__file__).parents[1])},
            )
            while len(endpoint.calls) < calls:
                assert process.poll() is None
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
            kept.append((len(endpoint.calls), len(Ledger(folder / REPLIES))))
        taught(endpoint, name="killed", num_candidates=3)
    assert contents(folder) == expected
    (account,) = storage.read_json(folder / "ledger.json").values()
    assert account["replies"] == 18 + 3  # those of p1 were asked for once more
    for calls, replies in kept:
        assert 0 <= calls - replies <= CONCURRENCY * (1 + kept.index((calls, replies)))
    assert len(endpoint.calls) <= 21 + CONCURRENCY * len(kept)


BATCH = {"batch": {"size": 4, "gather_seconds": 0.05, "poll_seconds": 0.01}}


def test_in_batches_the_files_are_the_same_and_cost_their_share(taught, capsys):
    prices = {"input_price": 5e5, "output_price": 1e6, "budget": 1e9}
    with FakeEndpoint(teacher) as endpoint:
        live = taught(endpoint, prices, name="live")
    with FakeEndpoint(teacher) as endpoint:
        folder = taught(endpoint, prices | BATCH, name="batches")
        assert len(endpoint.batches.batches) >= 2  # the one to be repaired comes later
        assert len(endpoint.calls) == 7
    assert contents(folder) == contents(live)
    cost, half = (
        storage.read_json(each / "ledger.json")["teacher"]["cost"] for each in (live, folder)
    )
    assert half == cost / 2
    assert "batch batch-1 is completed: " in capsys.readouterr().err


@pytest.mark.parametrize("name", ["POST files", "POST batches", "GET batch", "GET content"])
def test_a_stage_that_ended_in_a_batch_goes_on_with_it(name, taught):
    """The stage ends as the endpoint has done what was asked, and says that it cannot answer."""
    with FakeEndpoint(teacher) as endpoint:
        live = taught(endpoint, name="live")

    def broken(called, number):
        return Act(cut=1) if called == name else None

    with FakeEndpoint(teacher) as endpoint:
        endpoint.batches.script = broken
        with pytest.raises(UserError, match="does not answer for its batches"):
            taught(endpoint, BATCH | {"tries": 1}, name="batches")
        endpoint.batches.script = lambda called, number: None
        folder = taught(endpoint, BATCH, name="batches")
        assert set(endpoint.paid.values()) == {1} and len(endpoint.calls) == 7
    assert contents(folder) == contents(live)


def test_replies_kept_elsewhere_outlive_the_folder_of_the_stage(taught, tmp_path):
    with FakeEndpoint(teacher) as endpoint:
        first = taught(endpoint, name="first", replies_folder=str(tmp_path / "replies"))
        calls = len(endpoint.calls)
        again = taught(
            endpoint, name="again", replies_folder=str(tmp_path / "replies"), min_safety=-1.0
        )
        assert len(endpoint.calls) == calls == 7
    assert contents(again) == contents(first)


def test_the_cap_stops_the_stage_and_a_higher_one_goes_on(taught, capsys):
    with FakeEndpoint(teacher) as endpoint:
        with pytest.raises(UserError, match="the cap of the endpoint is reached: 4 requests"):
            taught(endpoint, {"max_requests": 4})
        assert len(endpoint.calls) == 4
        said = capsys.readouterr().err
        assert "6 requests: about" in said and "the cap is 4 requests (max_requests)" in said
        taught(endpoint)
    assert len(endpoint.calls) == 7


@pytest.mark.parametrize(
    ("changes", "settings", "message"),
    [
        ({}, {"temperature": 0.5}, "set teacher_endpoint.sampling.temperature"),
        ({}, {"max_answer_tokens": 5}, "set teacher_endpoint.sampling.max_tokens"),
        ({"base_url": ""}, {}, "teacher_endpoint.base_url is empty, and other fields"),
        ({}, {"model": "base"}, "model is set, and nothing asks it"),
        ({}, {"judge": {}}, "model is empty, and judge.source names 'policy'"),
        (
            {},
            {"template": "deliberative", "default_policies": True, "categories": "model"},
            "model is empty, and categories is 'model'",
        ),
        ({}, {"template": "{prompt} {answer} {answer}"}, "must hold {answer} once, not 2 times"),
    ],
)
def test_settings_that_nothing_would_heed_are_refused(changes, settings, message):
    with FakeEndpoint() as endpoint, pytest.raises(UserError, match=message) as error:
        build(Synthesize, values(endpoint, changes, **settings), "config.synthesize")
    assert "\n" not in str(error.value)


def test_without_a_cap_or_an_answer_to_show_nothing_is_asked(taught, tmp_path):
    with FakeEndpoint() as endpoint:
        stage = build(Synthesize, values(endpoint, {"max_requests": None}), "config.synthesize")
        with pytest.raises(UserError, match="teacher_endpoint has no cap: set max_requests, or"):
            stage.check_environment(tmp_path)
        with pytest.raises(UserError, match="the row 'p0' has no answer, which the template sho"):
            taught(endpoint, template="rewrite")
        assert not endpoint.calls
