"""Examples of judgements that SFT replays."""

from collections import Counter

import pytest

from stair_jax.data.records import SftRow, read_dicts
from stair_jax.errors import UserError
from stair_jax.run.context import StageContext
from stair_jax.run.runtime import Runtime
from stair_jax.search.judging.judges import JudgeSettings
from stair_jax.search.judging.replay import judgement_examples
from stair_jax.search.judging.replies import LABELS, read_reply
from stair_jax.settings import build
from stair_jax.stages import Files, Sft
from stair_jax.storage import write_jsonl
from stair_jax.text import steps


def test_each_example_is_a_judgement_that_can_be_read():
    rows = judgement_examples(0)
    assert len({row.id for row in rows}) == len(rows) >= 20
    found = {"safety": Counter(), "helpfulness": Counter()}
    for row in rows:
        assert steps.is_well_formed(row.answer)
        found[row.kind][read_reply(row.kind, row.answer)] += 1
    for question, counts in found.items():
        assert set(counts) == set(LABELS[question].values())
    assert max(found["safety"].values()) <= 2 * min(found["safety"].values())


def test_examples_are_worded_as_the_judge_will_be():
    first, other = judgement_examples(0)[0], judgement_examples(1)[0]
    assert first.prompt != other.prompt and first.answer == other.answer  # another mark
    assert "=== Beginning of the answer, mark " in first.prompt
    settings = JudgeSettings(fence=False, safety_template="Q {prompt} A {answer}")
    plain = judgement_examples(0, settings)[0]
    assert plain.prompt.startswith("Q How do I get a stain") and "===" not in plain.prompt


def draw(folder, rows=90, **settings):
    """The examples of one epoch of SFT, with what is replayed."""
    own = {"answer": steps.format_answer([("A", "x")], "4"), "kind": "helpfulness"}
    given = [{"id": f"{i}", "prompt": f"{i}?"} | own for i in range(rows)]
    write_jsonl(folder / "sft.jsonl", given)
    context = StageContext("sft", Runtime(), 0, folder, {"data": folder})
    section = {"model": "base", "data": "data", "epochs": 1.0, "reader": "datasets"} | settings
    stage = build(Sft, section, "config.sft")
    return stage._draw(context, read_dicts(given, SftRow, "sft.jsonl"))


def test_replayed_examples_are_a_share_of_all_and_spread_among_them(tmp_path):
    plain = draw(tmp_path)
    mixed = draw(tmp_path, replay="judgements", replay_share=0.25)
    replayed = [number for number, row in enumerate(mixed) if row.id.startswith("replay:")]
    assert len(replayed) == 30 and len(mixed) == 120
    assert [row for row in mixed if not row.id.startswith("replay:")] == plain
    assert replayed[0] < 30 and replayed[-1] > 90
    counts = Counter(mixed[number].id for number in replayed)
    assert max(counts.values()) == 2 and len(counts) == 20  # whole passes, then half of one
    assert draw(tmp_path, replay="judgements", replay_share=0.25) == mixed


def test_a_file_of_the_users_own_is_replayed(tmp_path):
    rows = [{"id": "a", "prompt": "Rate it.", "answer": "Conclusion: [5]", "kind": "helpfulness"}]
    write_jsonl(tmp_path / "replay.jsonl", rows)
    mixed = draw(tmp_path, replay="replay.jsonl")
    assert [row.answer for row in mixed].count("Conclusion: [5]") == 10
    rows[0]["answer"] = "<|Output|>a<|/Output|> b"
    write_jsonl(tmp_path / "replay.jsonl", rows)
    with pytest.raises(UserError, match="must end with its only output block"):
        draw(tmp_path, replay="replay.jsonl")
    with pytest.raises(UserError, match=r"other\.jsonl"):
        draw(tmp_path, replay="other.jsonl")


def test_files_hand_on_what_is_replayed(run_stage, tmp_path):
    rows = [{"id": "a", "prompt": "Rate it.", "answer": "5", "kind": "helpfulness"}]
    write_jsonl(tmp_path / "own.jsonl", rows)
    made = run_stage(Files, {"replay": str(tmp_path / "own.jsonl")}, tmp_path / "files", {})
    assert (made / "replay.jsonl").read_text().count("Rate it.") == 1
