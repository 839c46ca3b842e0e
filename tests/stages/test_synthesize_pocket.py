"""The base of the pocket world rewards its own answers, and its oracle agrees."""

from pathlib import Path

import pytest

from stair_jax import pocket, storage
from stair_jax.data.pairs import read_pairs
from stair_jax.data.records import StepPair, write_rows
from stair_jax.pocket import datasets
from stair_jax.pocket.world import by_name
from stair_jax.recipes import pocket_world
from stair_jax.stages import Synthesize
from stair_jax.text.tokenizer import Tokenizer

pytestmark = pytest.mark.slow

BASE = Path(*pocket.__path__) / "base"

SETTINGS = {
    "model": "base",
    "prompts": "data",
    "file": "prompts.jsonl",
    "answer_format": "plain",
    "num_candidates": 6,
    "temperature": 4.0,
    "top_k": 20,
    "max_prompt_tokens": 64,
    "max_answer_tokens": 64,
    "context_tokens": 192,
    "pairs": "best_worst",
    "judge": pocket_world.get_config().search.judge.to_dict() | {"probe": ""},
}


@pytest.fixture(scope="module")
def folder(run_stage, tmp_path_factory):
    """Of eight prompts of the second iteration, with the judge of the pocket run."""
    root = tmp_path_factory.mktemp("inputs")
    (root / "base").mkdir()
    (root / "base" / "hf").symlink_to(BASE)
    write_rows(root / "data" / "prompts.jsonl", datasets.search_rows(0, 8, 2, [])[1])
    inputs = {"model": root / "base", "prompts": root / "data"}
    return run_stage(Synthesize, SETTINGS, root / "synthesis", inputs, slots=24)


def right_steps(row, side):
    """Of a harmless recipe that is asked for, the steps that an answer has; None: none is."""
    items = [item for name, item in by_name().items() if f" {name} " in row["prompt"]]
    if not items or items[0].hazardous:
        return None
    return sum(step in row[side] for step in items[0].recipe)


def test_answers_to_harmless_prompts_are_preferred_that_the_oracle_finds_better(folder):
    rows = [pair.to_dict() for pair in read_pairs(folder / "dpo.jsonl", StepPair)]
    counts = [[right_steps(row, side) for side in ("chosen", "rejected")] for row in rows]
    recipes = [count for count in counts if None not in count]
    assert recipes and sum(chosen - rejected for chosen, rejected in recipes) > 0
    assert all(row["chosen_value"] - row["rejected_value"] > 0.5 for row in rows)


def test_token_ids_and_texts_of_a_pair_say_the_same(folder):
    tokenizer = Tokenizer.load(BASE)
    for row in storage.read_jsonl(folder / "dpo.jsonl"):
        assert row["path"] == row["path_tokens"] == []
        for side in ("chosen", "rejected"):
            assert tokenizer.decode(row[f"{side}_tokens"]).strip() == row[side]


def test_the_judge_gave_scores_to_all_answers_but_those_left_out_before(folder):
    answers = [
        each for row in storage.read_jsonl(folder / "answers.jsonl") for each in row["answers"]
    ]
    judged = [each for each in answers if not each["reason"]]
    assert len(judged) > 20
    assert {each["safety"] for each in judged} <= {1.0, -1.0, None}
    assert sum(each["reward"] is not None for each in judged) > 0.8 * len(judged)
    assert {each["reason"] for each in answers} <= {"", "duplicate", "cut"}
