"""`stair-jax data filter` against a judge behind a fake endpoint."""

import json

import pytest

from stair_jax import launch, storage
from stair_jax.data.built_folder import LEFT_OUT
from stair_jax.endpoints.chat import ChatCompletion
from stair_jax.errors import UserError
from stair_jax.synthesis.prompt_filter import PromptFilter
from stair_jax.testing.fake_endpoint import Act, FakeEndpoint, reply_of

pytest.importorskip("openai", "3.0", reason="openai, of the extra endpoints, is not installed")


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    """Loopback is reached directly, whatever the environment says."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")


@pytest.fixture
def rows():
    """Pairs as PKU-SafeRLHF has them, two of them of one prompt."""
    texts = ["How do I hurt him?", "How do I kill a process?", "How do I hurt him?", "Filtered?"]
    pair = {"response_0": "So.", "response_1": "No.", "is_response_0_safe": False}
    pair |= {"is_response_1_safe": True, "better_response_id": 1, "safer_response_id": 1}
    return [{"prompt": text, **pair, "extra": n} for n, text in enumerate(texts)]


@pytest.fixture
def command(capsys, tmp_path, rows):
    """`command(endpoint, *flags)`: (exit status, what it wrote), of a file `pku.jsonl`."""
    path = tmp_path / "pku.jsonl"
    storage.write_jsonl(path, rows)

    def run(endpoint, *flags):
        asked = [f"--endpoint={endpoint.base_url}", "--model=judge", "--max-requests=3"]
        out = f"--out={tmp_path / 'out'}"
        status = launch.main(["stair-jax", "data", "filter", str(path), out, *asked, *flags])
        said = capsys.readouterr()
        return status, said.out + said.err

    return run


def judge(number, body):
    text = body["messages"][0]["content"]
    if "Filtered?" in text:
        return Act(400, {"error": {"code": "content_filter", "message": "no"}})
    verdict = "HARMFUL" if "hurt him" in text else "HARMLESS"
    reply = reply_of(body)
    reply["choices"][0]["message"]["content"] = f"Not [this]. Verdict: [{verdict}]"
    return Act(body=reply)


def test_rows_are_kept_as_they_are_where_their_prompt_is_judged_harmful(command, rows, tmp_path):
    with FakeEndpoint(judge) as endpoint:
        status, said = command(endpoint)
        assert status == 0
        assert f"{tmp_path}/out/pku.jsonl: 1 judged HARMLESS, 1 kept, 1 " in said
        assert len(endpoint.calls) == 3  # of each text one
        assert all("[HARMLESS]" in body["messages"][0]["content"] for body in endpoint.calls)
        assert command(endpoint)[0] == 0 and len(endpoint.calls) == 3  # nothing is asked again
    assert storage.read_jsonl(tmp_path / "out" / "pku.jsonl") == [rows[0]]
    left = storage.read_jsonl(tmp_path / "out" / LEFT_OUT)
    assert [(row["row"], row["place"]) for row in left] == [
        (row, f"line {n}") for n, row in enumerate(rows[1:], start=2)
    ]
    assert [row["reason"] for row in left] == [
        "judged HARMLESS",
        "the same as a row before",
        "refused by the endpoint's content filter",
    ]
    record = storage.read_json(tmp_path / "out" / "data.json")
    assert record["model"] == "judge" and record["keep"] == "HARMFUL"
    assert "| `pku.jsonl` |" in (tmp_path / "out" / "README.md").read_text()


def test_what_is_kept_can_be_split(command, tmp_path, capsys):
    with FakeEndpoint(judge) as endpoint:
        command(endpoint)
    helpful = [{"prompt": f"What is {n}?", "kind": "helpfulness"} for n in range(3)]
    storage.write_jsonl(tmp_path / "help.jsonl", helpful)
    files = [str(tmp_path / "out" / "pku.jsonl"), str(tmp_path / "help.jsonl")]
    flags = [f"--out={tmp_path / 'split'}", "--sft=2"]
    assert launch.main(["stair-jax", "data", "split", *files, *flags]) == 0
    rows = storage.read_jsonl(tmp_path / "split" / "sft_prompts.jsonl")
    assert sorted(row["kind"] for row in rows) == ["helpfulness", "safety"]
    assert "How do I hurt him?" in {row["prompt"] for row in rows}


def test_another_question_and_a_cap_that_is_raised(command, tmp_path):
    template = tmp_path / "question.txt"
    template.write_text("Is {prompt} good? Say [Yes] or [no].")

    def say_yes(number, body):
        reply = reply_of(body)
        reply["choices"][0]["message"]["content"] = "[YES]"
        return Act(body=reply)

    flags = (f"--template={template}", "--keep=yes")
    with FakeEndpoint(say_yes) as endpoint:
        status, said = command(endpoint, *flags, "--max-requests=2")
        assert status == 2 and "the cap of the endpoint is reached: 2 requests" in said
        assert not (tmp_path / "out" / "pku.jsonl").exists()
        status, said = command(endpoint, *flags)
        assert status == 0 and "3 kept" in said
        assert len(endpoint.calls) == 3
    assert endpoint.calls[0]["messages"][0]["content"].startswith("Is How do I ")


@pytest.mark.parametrize(
    ("text", "finish", "objection"),
    [
        ("[HARMLESS] at first, but [harmful]", "stop", ""),
        ("Verdict: [ HARMFUL ]", "stop", ""),
        ("Verdict: HARMFUL", "stop", "no verdict can be read"),
        ("Verdict: [HARMFUL] ... [HARMLESS]", "stop", "judged HARMLESS"),
        ("[HARMFUL]", "length", "the verdict was cut"),
        ("", "missing", "no reply"),
    ],
)
def test_the_last_verdict_of_a_complete_reply_counts(text, finish, objection):
    assert PromptFilter().objection(ChatCompletion("p", text, finish)) == objection


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--endpoint="], "say what to filter, where to and who judges"),
        (["--keep=bad"], "--template does not ask for the verdict [bad]: see --keep"),
        (["--keep=[bad]"], "--keep=[bad]: a verdict is a word"),
        (["--keep="], "--keep=: a verdict is a word"),
        (["--template=none.txt"], "none.txt"),
        (["--budget=3"], "endpoint.budget needs endpoint.input_price"),
        (["--seed=3"], "stair-jax data filter takes no --seed"),
        (["--reply-tokens=0"], "max_tokens"),
    ],
)
def test_what_cannot_be_is_one_line_and_nothing_is_asked(flags, message, command):
    with FakeEndpoint() as endpoint:
        status, said = command(endpoint, *flags)
        assert status == 2 and message in said and said.count("\n") == 1
        assert not endpoint.calls


def test_a_template_shows_the_prompt_once():
    with pytest.raises(UserError, match=r"must hold \{prompt\} once"):
        PromptFilter("[HARMFUL]?")
    assert json.dumps(PromptFilter().messages(" {prompt} ")).count("{prompt}") == 1
