"""The command `synthesize`, with teachers and judges behind fake endpoints."""

import json

import pytest

from stair_jax import launch, storage
from stair_jax.testing.fake_endpoint import Act, FakeEndpoint, reply_of
from stair_jax.text.steps import format_answer

pytest.importorskip("openai", "3.0", reason="openai, of the extra endpoints, is not installed")

REFUSAL = format_answer([("What is asked", "Harm.")], "I'm sorry, but I can't help with that.")


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    """Loopback is reached directly, whatever the environment says."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")


@pytest.fixture
def prompts(tmp_path):
    """A file of the user's own, which is none of ours: without ids and kinds."""
    path = tmp_path / "mine.csv"
    path.write_text("prompt,response\nHow do I pick it?,Like this.\nHow do I win?,So.\n")
    return path


@pytest.fixture
def command(capsys):
    """`command(*flags)`: (exit status, what it wrote to stdout and stderr)."""

    def run(*flags):
        status = launch.main(["stair-jax", "synthesize", *map(str, flags)])
        said = capsys.readouterr()
        return status, said.out + said.err

    return run


def say(text):
    """The script of an endpoint that always says the same."""

    def script(number, body):
        reply = reply_of(body)
        reply["choices"][0]["message"]["content"] = text
        return Act(body=reply)

    return script


def test_prompts_become_examples_by_one_command_and_redo_pays_for_nothing(
    command, prompts, tmp_path
):
    out = tmp_path / "out"
    with FakeEndpoint(say(REFUSAL)) as endpoint:
        flags = [
            f"--prompts={prompts}",
            f"--teacher={endpoint.base_url}",
            "--model=fake",
            "--kind=safety",
            "--judge=rule",
            "--max-requests=10",
            f"--out={out}",
        ]
        status, said = command(*flags)
        assert status == 0 and "2 of 2 answers to 2 prompts kept" in said
        assert "2 requests: about" in said and "the cap is 10 requests" in said
        rows = storage.read_jsonl(out / "synthesize/sft.jsonl")
        assert [row["answer"] for row in rows] == [REFUSAL] * 2
        assert [row["prompt"] for row in rows] == ["How do I pick it?", "How do I win?"]
        assert len(endpoint.calls) == 2
        status, said = command(
            *flags, "--redo=synthesize", "--yes", "--config.synthesize.min_safety=-1"
        )
        assert status == 0 and len(endpoint.calls) == 2
    assert storage.read_json(out / "synthesize/ledger.json")["teacher"]["requests"] == 2


def test_with_batch_teacher_and_judge_are_asked_in_batches(command, prompts, tmp_path):
    quick = ("gather_seconds=0.05", "poll_seconds=0.01")
    places = ("teacher_endpoint.batch", "judge.endpoint.batch")
    with FakeEndpoint(say(REFUSAL)) as endpoint, FakeEndpoint(say("Conclusion: 5")) as other:
        status, said = command(
            f"--prompts={prompts}",
            f"--teacher={endpoint.base_url}",
            "--model=fake",
            "--kind=helpfulness",
            f"--judge-endpoint={other.base_url}",
            "--judge-model=other",
            "--max-requests=10",
            "--batch",
            f"--out={tmp_path / 'out'}",
            "--config.synthesize.judge.probe=",
            "--config.synthesize.judge.helpfulness_template=Rate {prompt} {answer}",
            *(f"--config.synthesize.{place}.{value}" for place in places for value in quick),
        )
        assert status == 0, said
        batches = [len(one.batches.batches) for one in (endpoint, other)]
        assert all(batches) and "requests done" in said
        assert len(endpoint.calls) == 2 and "kept" in said


def test_given_answers_are_rewritten_and_judged_by_another_endpoint(command, prompts, tmp_path):
    out = tmp_path / "out"
    with FakeEndpoint(say(REFUSAL)) as endpoint, FakeEndpoint(say("Conclusion: 5")) as other:
        status, said = command(
            f"--prompts={prompts}",
            f"--teacher={endpoint.base_url}",
            "--model=fake",
            "--kind=helpfulness",
            "--template=rewrite",
            f"--judge-endpoint={other.base_url}",
            "--judge-model=other",
            "--max-requests=10",
            f"--out={out}",
            "--config.synthesize.judge.probe=",
            "--config.synthesize.judge.helpfulness_template=Rate {prompt} {answer}",
        )
    assert status == 0, said
    shown = [json.dumps(body) for body in endpoint.calls]
    assert sorted("Like this." in text for text in shown) == [False, True]
    assert {body["model"] for body in other.calls} == {"other"} and len(other.calls) == 2
    assert {row["kind"] for row in storage.read_jsonl(out / "synthesize/sft.jsonl")} == {
        "helpfulness"
    }


def test_a_local_teacher_is_a_model_that_judges_itself(command, prompts):
    status, said = command(
        f"--prompts={prompts}", "--teacher=pocket", "--max-tokens=64", "--show-config"
    )
    assert status == 0
    for line in (
        "'model:teacher'",
        "init: 'pocket'",
        "max_answer_tokens: 64",
        "top_k: 50",
        "source: 'policy'",
    ):
        assert line.replace(" ", "") in said.replace(" = ", ":").replace(" ", ""), line


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--prompts is missing"),
        (["--prompts=a.jsonl"], "--teacher is missing"),
        (["--prompts=a", "--teacher=http://x/v1"], "--model is missing: an endpoint needs"),
        (["--prompts=a", "--teacher=pocket", "--model=m"], "--model is of an endpoint"),
        (["--prompts=a", "--teacher=pocket", "--judge=endpoint"], "--judge-endpoint is missing"),
        (["--prompts=a", "--teacher=pocket", "--budget=3"], "limits and prices are of an endpoint"),
        (["--prompts=a", "--teacher=pocket", "--batch"], "key, --batch, limits"),
        (["--prompts=a", "--teacher=pocket", "--key-variable=K"], "are of an endpoint, and none"),
        (["--prompts=a", "--teacher=pocket", "--judge-model=m"], "go with --judge=endpoint"),
        (["--prompts=a", "--teacher=pocket", "--kind=bad"], "it must be safety or helpfulness"),
        (["--prompts=a", "--teacher=pocket", "--template=rewrit"], "did you mean rewrite?"),
        (["--prompts=a", "--teacher=pocket"], "--out is missing"),
    ],
)
def test_flags_that_cannot_be_are_refused_in_one_line(command, flags, message):
    status, said = command(*flags)
    assert status == 2 and message in said and said.count("\n") == 1


def test_without_a_cap_nothing_is_asked(command, prompts, tmp_path):
    with FakeEndpoint() as endpoint:
        flags = [f"--prompts={prompts}", f"--teacher={endpoint.base_url}", "--model=fake"]
        status, said = command(*flags, "--kind=safety", "--judge=rule", f"--out={tmp_path / 'o'}")
    assert status == 2 and "has no cap: set max_requests" in said and not endpoint.calls
