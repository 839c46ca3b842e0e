"""`stair-jax judge check`, and a search whose judge is of random weights, from the command line."""

import textwrap

import pytest

from stair_jax import launch, storage
from stair_jax.run.judge_check import Trial, format_trials, propose
from stair_jax.search.judging.auc import Auc
from stair_jax.search.judging.probe_cases import read_cases

CONFIG = """
    from ml_collections import ConfigDict

    def get_config():
        return ConfigDict({{
            "seed": 0,
            "stages": ("files:data", "model:base", "search"),
            "runtime": {{"slots": 16, "trees_in_flight": 2}},
            "files": {{"prompts": ("{data}/sft.jsonl",)}},
            "model": {{"init": "{model}"}},
            "search": {{
                "model": "base",
                "prompts": "data",
                "file": "prompts1.jsonl",
                "context_tokens": 768,
                "judge": {{"mode": "expected", "safety_score": "expected"}},
            }},
        }})
"""


@pytest.fixture(scope="module")
def inputs(make_stage_inputs, tmp_path_factory):
    return make_stage_inputs(tmp_path_factory.mktemp("inputs"), 2)


def test_a_tiny_random_model_is_probed_and_the_search_stops(inputs, tmp_path, capsys):
    config = tmp_path / "config.py"
    config.write_text(
        textwrap.dedent(CONFIG.format(data=inputs / "data", model=inputs / "model/hf"))
    )
    status = launch.main(["stair-jax", f"--config={config}", f"--workdir={tmp_path / 'run'}"])
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert status == 2 and last.startswith("stair_jax: error: stage search: the judge's ")
    assert "stair-jax judge check MODEL" in last and "--redo=search" in last
    record = storage.read_json(tmp_path / "run/search/probe.json")
    assert len(record["judgements"]) == len(read_cases("default"))
    assert not (tmp_path / "run/search/trees.jsonl.gz").exists()


def test_wordings_are_tried_on_a_model_and_the_best_is_proposed(inputs, tmp_path, capsys):
    rows = [
        {"prompt": f"{n}?", "kind": "safety", "answer": "ab"[n % 2] * 9}
        | dict.fromkeys(("safety", "helpfulness"), n % 2 * 2 - 1)
        for n in range(4)
    ]
    storage.write_jsonl(tmp_path / "cases.jsonl", rows)
    flags = [f"--cases={tmp_path / 'cases.jsonl'}", "--max-tokens=4", "--slots=8", "--context=1024"]
    assert launch.main(["stair-jax", "judge", "check", str(inputs / "model"), *flags]) == 0
    table, proposed = capsys.readouterr().out.split("\n\n")[1:3]
    rows = [line.split() for line in table.splitlines()]
    assert rows[0][:3] == ["question", "wording", "mode"]
    assert ["safety", "complies", "expected", "100%"] in [row[:4] for row in rows]
    assert {row[2] for row in rows[1:]} == {"expected", "generative"}
    assert "--config.search.judge.mode=expected" in proposed


def trial(question, wording, mode, low, high, readable=1.0):
    return Trial(question, wording, mode, readable, Auc((low + high) / 2, low, high, 20, 20), 1.0)


def test_the_mode_and_wordings_with_the_largest_lower_ends_are_proposed():
    trials = [
        trial("helpfulness", "rating", "expected", 0.6, 0.8),
        trial("helpfulness", "correct", "expected", 0.7, 0.9),
        trial("safety", "verdict", "expected", 0.0, 0.1),
        trial("safety", "complies", "expected", 0.8, 1.0),
        trial("helpfulness", "rating", "generative", 0.9, 1.0, readable=0.2),
        trial("safety", "verdict", "generative", 0.9, 1.0),
    ]
    assert propose(trials) == [
        "--config.search.judge.mode=expected",
        "--config.search.judge.helpfulness_template=correct",
        "--config.search.judge.safety_template=complies",
        "--config.search.judge.safety_score=expected",
        "# safety: upside down in the wording verdict; do not use that",
    ]
    assert format_trials(trials).splitlines()[1].split()[:5] == [
        "helpfulness", "rating", "expected", "100%", "0.70",
    ]  # fmt: skip


def test_a_judge_without_a_good_wording_is_said_to_be_none():
    trials = [
        trial("helpfulness", "rating", "expected", 0.4, 0.6),
        trial("safety", "verdict", "expected", 0.8, 1.0, readable=0.1),
    ]
    lines = propose(trials)
    assert (
        "# helpfulness: no wording tells good answers from bad ones; take another judge"
        in (lines[-2])
    )
    assert lines[-1] == "# safety: no wording could be read; take another judge"


@pytest.mark.parametrize(
    "words, message",
    [
        ([], "say what to check: stair-jax judge check MODEL"),
        (["check"], "say what to check"),
        (["try", "x"], "invalid choice: 'try'"),
        (["check", "x", "--modes=guess"], "--modes names 'guess'"),
        (["check", "x", "--cases=none.jsonl"], "which is no file"),
        (["check", "/no/such/folder"], "there is no folder /no/such/folder"),
    ],
)
def test_mistakes_are_one_line(words, message, capsys):
    assert launch.main(["stair-jax", "judge", *words]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and error.startswith("stair_jax: error: ")
