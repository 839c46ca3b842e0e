"""Search behind given starts, its pairs, and one step of DPO on them, with a tiny random model."""

import numpy as np
import pytest

from stair_jax import storage
from stair_jax.data.pairs import encode_pairs, read_pairs, step_examples
from stair_jax.data.records import PathPair, StepPair
from stair_jax.errors import UserError
from stair_jax.models import huggingface
from stair_jax.search.tree_records import read_trees
from stair_jax.settings import build
from stair_jax.stages import Dpo, Preferences, Search
from stair_jax.testing.tiny_models import tiny_model
from stair_jax.testing.tiny_tokenizers import word_tokenizer
from stair_jax.text.steps import REASONING_CLOSE, REASONING_OPEN
from stair_jax.text.tokenizer import Tokenizer

STEP = f"{REASONING_OPEN} 1 2 {REASONING_CLOSE}"
OPEN = f"{REASONING_OPEN} 3 4"
SETTINGS = {
    "model": "base",
    "prompts": "data",
    "file": "prompts.jsonl",
    "context_tokens": 96,
    "max_prompt_tokens": 40,
    "num_iterations": 16,
    "num_children": 3,
    "max_depth": 3,
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "max_step_tokens": 16,
    "max_answer_tokens": 30,
    "judge": {
        "probe": "",
        "mode": "expected",
        "fence": False,
        "helpfulness_template": "rate {prompt} : {answer}",
        "safety_template": "safe {prompt} : {answer}",
        "safety_score": "expected",
        "malformed": -2.5,
    },
}
ALL = {"trees": "search", "v0": 0.0, "v1": -3.0, "min_visits": 1, "prm": {"v0": 0.0}}
PLAIN = {"share": 0.0}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Folders of a model and of prompts, two of which have a start of their own."""
    root = tmp_path_factory.mktemp("inputs")
    tokenizer = word_tokenizer()
    config, params = tiny_model(tokenizer.vocab_size, num_hidden_layers=1)
    huggingface.save(root / "base" / "hf", params, config, tokenizer)
    rows = [
        {"id": "step", "prompt": "1 2", "kind": "safety", "start": [STEP]},
        {"id": "open", "prompt": "1 2 3", "kind": "safety", "start": [OPEN]},
        {"id": "plain", "prompt": "1 2", "kind": "safety"},
        {"id": "other", "prompt": "3 2 1", "kind": "helpfulness"},
    ]
    storage.write_jsonl(root / "data" / "prompts.jsonl", [row | {"source": "s"} for row in rows])
    return {"model": root / "base", "prompts": root / "data"}


@pytest.fixture(scope="module")
def search(run_stage, inputs, tmp_path_factory):
    """`search(**settings)`: the folder of a finished search."""

    def search(**settings):
        folder = tmp_path_factory.mktemp("search")
        return run_stage(Search, SETTINGS | settings, folder, inputs, slots=8, trees_in_flight=4)

    return search


@pytest.fixture(scope="module")
def finished(search):
    return search()


def test_from_a_search_behind_starts_to_a_step_of_dpo_without_loss_on_them(
    finished, run_stage, inputs, tmp_path
):
    trees = {tree.id: tree for tree in read_trees(finished / "trees.jsonl.gz")}
    assert trees["step"].start == (STEP,) and trees["open"].start == (OPEN,)
    assert trees["plain"].start is None
    pairs = run_stage(Preferences, ALL, tmp_path / "pairs", {"trees": finished})
    rows = read_pairs(pairs / "dpo.jsonl", StepPair)
    starts = {row.id.split(":")[0]: row.start for row in rows}
    assert starts["step"] == (STEP,) and starts["open"] == (OPEN,) and starts["other"] is None
    assert read_pairs(pairs / "prm.jsonl", PathPair)

    tokenizer = Tokenizer.load(inputs["model"] / "hf")
    num_masked = 0
    for row, (chosen, rejected) in zip(
        *encode_pairs(rows, lambda t, row: step_examples(t, row, "answer"), tokenizer, 96),
        strict=True,
    ):
        root = len(trees[row.id.split(":")[0]].nodes[0].tokens)
        assert not np.any(chosen.loss_mask[:root]) and not np.any(rejected.loss_mask[:root])
        assert np.all(chosen.loss_mask[root:])
        num_masked += row.start is not None
    assert num_masked > 3

    dpo = run_stage(
        Dpo,
        {
            "model": "base",
            "preferences": "pairs",
            "sft_on": "answer",
            "batch_size": len(rows),
            "epochs": 1.0,
            "max_length": 96,
            "microbatch_rows": 2,
            "learning_rate": 1e-3,
        },
        tmp_path / "dpo",
        {"model": inputs["model"], "preferences": pairs},
    )
    (line,) = [row for row in storage.read_jsonl(dpo / "metrics.jsonl") if "loss" in row]
    assert line["dpo_loss"] == pytest.approx(np.log(2), abs=1e-3)


def test_forced_starts_are_given_to_a_share_of_the_prompts(search, finished, capsys):
    forced = {"share": 1.0, "which": ["comply", "refuse"], "comply": [OPEN], "refuse": [STEP]}
    found = {tree.id: tree for tree in read_trees(search(forced_starts=forced) / "trees.jsonl.gz")}
    assert "of 4 prompts: 4 answers begin with a given start" in capsys.readouterr().err
    assert {id: tree.start for id, tree in found.items()} == {
        "step": (STEP,), "open": (OPEN,), "plain": (OPEN,), "other": (STEP,),
    }  # fmt: skip
    before = {tree.id: tree for tree in read_trees(finished / "trees.jsonl.gz")}
    for id in ("step", "open"):
        assert found[id].nodes == before[id].nodes


def test_a_search_without_forced_starts_has_the_identity_of_before():
    plain = build(Search, SETTINGS, "search").identity()
    assert "forced_starts" not in plain and "harmless_refusals" not in plain["judge"]
    assert build(Search, SETTINGS | {"forced_starts": PLAIN}, "search").identity() == plain
    forced = build(Search, SETTINGS | {"forced_starts": {"share": 0.5}}, "search").identity()
    assert forced["forced_starts"]["share"] == 0.5


def test_starts_as_deep_as_the_search_are_refused():
    with pytest.raises(UserError, match="forced_starts have 1 steps, and max_depth is 1"):
        build(Search, SETTINGS | {"max_depth": 1, "forced_starts": {"share": 0.1}}, "search")
