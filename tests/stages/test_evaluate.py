"""The evaluation stage with real, tiny, random models."""

from pathlib import Path

import jax
import numpy as np
import pytest

from stair_jax import storage
from stair_jax.errors import UserError
from stair_jax.evaluation.pocket_benchmark import METRICS
from stair_jax.models import huggingface
from stair_jax.models.config import ModelConfig
from stair_jax.models.transformer import init_params
from stair_jax.pocket import datasets, pretraining, user_requests, world
from stair_jax.settings import build
from stair_jax.stages import Evaluate
from stair_jax.text.tokenizer import Tokenizer

SETTINGS = {
    "data": "data",
    "models": ("tiny",),
    "max_tokens": 12,
    "context_tokens": 128,
    "test_time": {
        "n": 2,
        "successors": 2,
        "width": 1,
        "max_depth": 2,
        "max_step_tokens": 6,
        "max_answer_tokens": 12,
    },
}
SEARCHED = {
    "prompted": "tiny",
    "prompt_template": "think first : {prompt}",
    "searched": "tiny",
    "methods": ("best_of_n", "beam_search", "best_of_n_self_reward"),
    "prm": "prm",
    "judge": {
        "helpfulness_template": pretraining.HELPFULNESS_PROMPT,
        "safety_template": pretraining.SAFETY_PROMPT,
        "max_tokens": 8,
        "fence": False,  # its words would not fit
    },
}
ROWS = ["tiny", "prompted", "best_of_n", "beam_search", "best_of_n_self_reward"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders of a random model, of one with a scalar head, and of prompts of every group."""
    root = tmp_path_factory.mktemp("inputs")
    tokenizer = Tokenizer.load(Path(world.__file__).parent / "base")
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        initializer_range=0.3,
    )
    params = init_params(config, jax.random.key(0))
    huggingface.save(root / "tiny/hf", params, config, tokenizer)
    head = {"kernel": np.linspace(-1, 1, 16, dtype=np.float32)}
    huggingface.save(root / "prm/hf", params, config, tokenizer, score_head=head)
    rows = {row["group"]: row for row in datasets.evaluation_rows("development", 6)}
    storage.write_jsonl(root / "data/evaluation.jsonl", rows.values())
    return {
        "data": root / "data",
        "models": [root / "tiny"],
        "prompted": root / "tiny",
        "searched": root / "tiny",
        "prm": root / "prm",
    }


@pytest.fixture(scope="module")
def finished(folders, tmp_path_factory, run_stage):
    """A whole evaluation: its folder."""
    folder = tmp_path_factory.mktemp("evaluate")
    return run_stage(Evaluate, SETTINGS | SEARCHED, folder, folders, slots=8)


def test_the_summary_is_the_table(finished):
    text = build(Evaluate, SETTINGS | SEARCHED, "evaluate").summary(finished)
    assert [line.split()[0] for line in text.splitlines()[1 : 1 + len(ROWS)]] == ROWS


def test_the_table_has_a_row_a_model_and_a_method(finished):
    table = storage.read_json(finished / "table.json")
    assert [row["model"] for row in table] == ROWS
    for row in table:
        assert set(row) == {"model", *METRICS}
        assert set(row["goodness_heldout"]) == {"value", "low", "high"}


def test_the_details_count_every_prompt(finished, folders):
    details = storage.read_json(finished / "details.json")
    prompts = len(storage.read_jsonl(folders["data"] / "evaluation.jsonl"))
    assert list(details) == ROWS
    for parts in details.values():
        assert sum(counts["prompts"] for counts in parts["families"].values()) == prompts
        assert set(parts["hazards"]["plain"]) == {
            "prompts",
            "refusals",
            "leaks",
            "non_answers",
            "malformed",
            "goodness_well_formed",
        }


def test_answers_are_those_of_the_model(finished, folders):
    answers = storage.read_jsonl(finished / "answers/tiny.jsonl")
    rows = storage.read_jsonl(folders["data"] / "evaluation.jsonl")
    assert [answer["id"] for answer in answers] == [row["id"] for row in rows]
    assert all(1 <= answer["tokens"] <= 12 for answer in answers)
    prompted = storage.read_jsonl(finished / "answers/prompted.jsonl")
    assert [a["text"] for a in prompted] != [a["text"] for a in answers]
    searched = storage.read_jsonl(finished / "answers/best_of_n.jsonl")
    assert all(np.isfinite(answer["score"]) for answer in searched)
    assert all(2 <= answer["tokens"] <= 24 for answer in searched)  # of both samples


def test_a_row_that_is_there_is_kept_and_the_rest_is_the_same(
    finished, folders, tmp_path, run_stage
):
    rows = storage.read_jsonl(folders["data"] / "evaluation.jsonl")
    perfect = [
        {
            "id": row["id"],
            "text": user_requests.direct_answer(datasets.request_of(row)),
            "tokens": 1,
        }
        for row in rows
    ]
    storage.write_jsonl(tmp_path / "answers/tiny.jsonl", perfect)
    kept = ("prompted", "best_of_n", "beam_search")
    for name in kept:
        target = tmp_path / f"answers/{name}.jsonl"
        target.write_bytes((finished / f"answers/{name}.jsonl").read_bytes())
    run_stage(Evaluate, SETTINGS | SEARCHED, tmp_path, folders, slots=8)
    table = storage.read_json(tmp_path / "table.json")
    assert table[0]["goodness_plain"]["value"] == table[0]["helpfulness"]["value"] == 1.0
    assert storage.read_jsonl(tmp_path / "answers/tiny.jsonl") == perfect
    assert table[1:] == storage.read_json(finished / "table.json")[1:]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (
            {"methods": ("best_of_m",), "prm": "prm", "searched": "tiny"},
            "methods is 'best_of_m': .* did you mean 'best_of_n'",
        ),
        ({"methods": ("best_of_n",), "searched": "tiny"}, "prm is empty"),
        ({"methods": ("best_of_n",), "prm": "prm"}, "searched is empty"),
        ({"prompt_template": "think first"}, "prompt_template"),
        ({"test_time": {"n": 0}}, r"test_time\.n is 0: it must be at least 1"),
        ({"modells": ("tiny",)}, "modells"),
    ],
)
def test_a_wrong_setting_is_named(settings, named):
    with pytest.raises(UserError, match=named):
        build(Evaluate, SETTINGS | settings, "config.evaluate")
