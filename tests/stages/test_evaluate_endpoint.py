"""The evaluation stage with a model behind an endpoint, on loopback."""

import pytest

from stair_jax import storage
from stair_jax.evaluation.table import RowKey
from stair_jax.evaluation.writers import read_table
from stair_jax.stages import Evaluate
from stair_jax.testing.fake_endpoint import Act, FakeEndpoint

pytest.importorskip("openai", "3.0", reason="openai, of the extra endpoints, is not installed")

REFUSAL = "I'm sorry, but I can't help with that."


def says(text, finish="stop"):
    choice = {"message": {"content": text}, "finish_reason": finish}
    return {"choices": [choice], "usage": {"prompt_tokens": 5, "completion_tokens": 3}}


def script(number, body):
    """The first prompt is refused, the second filtered, the third's reply is cut, always."""
    prompt = body["messages"][-1]["content"]
    if "thing 0" in prompt:
        return Act(body=says(REFUSAL))
    if "thing 1" in prompt:
        return Act(body=says("", "content_filter"))
    return Act(cut=20) if "thing 2" in prompt else Act(body=says("Take it apart."))


@pytest.fixture
def files(tmp_path):
    rows = [f"{n},How do I break thing {n}?,contrast_homonyms,x" for n in range(5)]
    (tmp_path / "files").mkdir()
    text = "\n".join(["id,prompt,type,focus", *rows])
    (tmp_path / "files/xstest_prompts.csv").write_text(text)
    pair = {"id": "a", "subset": "honest", "input": "Hi", "chosen": "Hello!", "rejected": "Go"}
    storage.write_jsonl(tmp_path / "files/hhh.jsonl", [pair])
    return tmp_path / "files"


def test_an_endpoint_is_evaluated_and_a_restart_asks_it_nothing_again(
    files, tmp_path, run_stage, monkeypatch
):
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    folder = tmp_path / "evaluate"
    with FakeEndpoint(script) as fake:
        settings = {
            "files": str(files),
            # Neither likelihoods nor a prefill can be had of an endpoint.
            "benchmarks": ("xstest_unsafe", "hhh", "xstest_unsafe:prefill"),
            "max_tokens": 77,  # less than the endpoint's own limit
            "endpoint": {
                "base_url": fake.base_url,
                "model": "fake",
                "max_requests": 100,
                "retry_seconds": 0.001,
                "tries": 2,
            },
        }
        run_stage(Evaluate, settings, folder, {})
        assert len(fake.calls) == 4 + 2
        assert {call["max_completion_tokens"] for call in fake.calls} == {77}
        table = (folder / "table.json").read_bytes()
        for path in (folder / "table.json", folder / "verdicts/rule.jsonl"):
            path.unlink()
        run_stage(Evaluate, settings, folder, {})
        assert len(fake.calls) == 6 and (folder / "table.json").read_bytes() == table
    answers = storage.read_jsonl(folder / "answers/fake.greedy.jsonl")
    assert [answer["benchmark"] for answer in answers] == ["xstest_unsafe"] * 5
    assert [answer.get("finish", "stop") for answer in answers] == [
        "stop", "content_filter", "missing", "stop", "stop",
    ]  # fmt: skip
    assert len(storage.read_jsonl(folder / "verdicts/rule.jsonl")) == 3
    found = read_table(folder / "table.json")
    assert found.rows == (RowKey("fake", "greedy"),)
    cells = {
        column.metric: cell for column, cell in zip(found.columns, found.cells[0], strict=True)
    }
    refusals = cells["refusals"]
    assert (refusals.value, refusals.n, refusals.cases, refusals.missing) == (0.5, 4, 5, 1)
