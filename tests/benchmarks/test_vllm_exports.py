"""What is counted as equal when vLLM reads an export, with a vLLM that is made up."""

import sys
from types import SimpleNamespace

import pytest

from benchmarks import vllm_exports
from stair_jax.text.steps import TAGS, format_answer

TEXT = format_answer([("Title", "A step.")], "4")
ROW = {"prompt": "2 + 2?", "prompt_tokens": [1, 2], "tokens": [3, 4], "text": TEXT, "score": 0.5}
ROW |= {"finish": "stop"}
SAID = {"text": TEXT, "token_ids": (3, 4), "finish_reason": "stop"}


@pytest.fixture(autouse=True)
def vllm(monkeypatch):
    module = SimpleNamespace(SamplingParams=dict, PoolingParams=dict)
    monkeypatch.setitem(sys.modules, "vllm", module)


def said(prompt_token_ids=(1, 2), **changes):
    output = SimpleNamespace(**SAID | changes)
    return SimpleNamespace(prompt_token_ids=prompt_token_ids, outputs=[output])


def counts(*found):
    llm = SimpleNamespace(chat=lambda chats, *_, **__: list(found))
    counted = vllm_exports.said_by_vllm(llm, [ROW] * len(found))
    return tuple(counted[name] for name in ("prompts", "tokens", "visible", "stopped"))


def test_tags_are_those_of_the_answers():
    assert set(vllm_exports.TAGS) == set(TAGS)


def test_each_difference_is_counted_on_its_own():
    assert counts(said(), said()) == (2, 2, 2, 2)
    assert counts(said(prompt_token_ids=(1, 1, 2)), said()) == (1, 2, 2, 2)
    assert counts(said(token_ids=(3, 5)), said()) == (2, 1, 2, 2)
    assert counts(said(text="Title: Title\nA step.\n\n\nFinal Answer: 4"), said()) == (2, 2, 1, 2)
    assert counts(said(finish_reason="length"), said()) == (2, 2, 2, 1)


def test_scores_are_of_prompt_and_continuation_without_activation():
    def classify(prompts, pooling_params, use_tqdm):
        assert pooling_params == {"use_activation": False}
        assert prompts == [{"prompt_token_ids": [1, 2, 3, 4]}] * 2
        return [SimpleNamespace(outputs=SimpleNamespace(probs=[p])) for p in (0.5, 0.25)]

    llm = SimpleNamespace(classify=classify)
    assert vllm_exports.largest_difference(llm, [ROW, ROW]) == 0.25


def test_a_folder_that_was_not_made_is_named(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sys, "argv", ["vllm_exports", "read", str(tmp_path)])
    with pytest.raises(SystemExit, match="2"):
        vllm_exports.main()
    assert f"{tmp_path} has no expected.json: give the same folder to `make` first" in (
        capsys.readouterr().err
    )
