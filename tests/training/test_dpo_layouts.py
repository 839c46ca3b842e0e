"""The DPO stage with packed sequences and with tries, on the pairs of a search tree."""

import math

import jax
import numpy as np
import pytest

from stair_jax.data.pairs import encode_pairs, step_examples
from stair_jax.data.records import write_rows
from stair_jax.errors import UserError
from stair_jax.models import huggingface
from stair_jax.search.preference_pairs import StepPairSettings, sibling_pairs
from stair_jax.search.tree_records import Node, TreeRecord
from stair_jax.stages.dpo import Dpo, lay_out
from stair_jax.storage import read_jsonl
from stair_jax.text.chat import encode_prompt
from stair_jax.text.steps import format_output, format_step
from stair_jax.training.batches import Group

MAX_LENGTH = 176
COMMON = {
    "max_length": MAX_LENGTH, "microbatch_rows": 4, "batch_size": 3, "learning_rate": 2e-3,
    "eps": 1e-3,
}  # fmt: skip


def tree(tokenizer, number):
    """Two steps after the prompt, two after the better of these, and two answers after that.

    Of each two, one is right (value 1) and one wrong (value 0).
    """
    prompt = f"{number} + 2?"
    texts = [
        (0, format_step("Sum", f"It is {number} + 2."), 1.0),
        (0, format_step("Sum", f"It is {number} - 2."), 0.0),
        (1, "\n\n" + format_step("Check", "Count up."), 1.0),
        (1, "\n\n" + format_step("Guess", "It is odd."), 0.0),
        (3, "\n\n" + format_output(str(number + 2)), 1.0),
        (3, "\n\n" + format_output("none"), 0.0),
    ]
    nodes = [Node(-1, "", tuple(encode_prompt(tokenizer, prompt)), 0, visits=9, value=0.5)]
    for parent, text, value in texts:
        tokens = tuple(tokenizer.encode_answer(text))
        depth = nodes[parent].depth + 1
        nodes.append(Node(parent, text, tokens, depth, visits=9, value=value, terminal=depth == 3))
    return TreeRecord(f"t{number}", prompt, "safety", "", "", "", tuple(nodes))


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, make_stage_inputs, chat_tokenizer):
    """Folders of a model stage and a data stage, with nine pairs from three trees."""
    workdir = make_stage_inputs(tmp_path_factory.mktemp("layouts"), rows=1)
    rows = []
    for number in range(3):
        rows += sibling_pairs(tree(chat_tokenizer, number), StepPairSettings())[0]
    write_rows(workdir / "data" / "dpo.jsonl", rows)
    return workdir


@pytest.mark.parametrize(
    "own",
    [
        {},
        {
            "sft_on": "answer",
            "length_penalty": 0.01,
            "length_normalize": True,
            "value_margin": 0.1,
            "label_smoothing": 0.1,
        },
    ],
    ids=["the paper's loss", "other terms"],
)
def test_both_layouts_train_alike(workdir, run_stage, capsys, tmp_path, own):
    """The same pairs in each step, so the same losses but for rounding, and the same model."""
    inputs = {"model": workdir / "model", "preferences": workdir / "data"}
    fields = COMMON | {"together": "pairs"} | own
    both = [
        read_jsonl(
            run_stage(Dpo, fields | {"layout": name} | changes, tmp_path / name, inputs, seed=3)
            / "metrics.jsonl"
        )
        for name, changes in (
            ("pairs", {}),
            ("tree", {"row_length": 2 * MAX_LENGTH, "microbatch_rows": 1}),
        )
    ]
    assert len(both[0]) == len(both[1]) == 3
    for pairs, trees in zip(*both, strict=True):
        for name in ("loss", "dpo_loss", "sft_loss", "margin", "grad_norm", "chosen_length"):
            assert trees[name] == pytest.approx(pairs[name], rel=1e-3, abs=1e-4), name
        assert trees["tokens"] < pairs["tokens"]
    first = both[1][0]
    assert first["dpo_loss"] == pytest.approx(
        first["loss_at_reference"] if own else math.log(2), abs=1e-5
    )
    assert not own or abs(first["dpo_loss"] - math.log(2)) > 1e-2
    config = huggingface.load_config(tmp_path / "tree" / "hf")
    models = [huggingface.load_params(tmp_path / n / "hf", config) for n in ("pairs", "tree")]
    before = huggingface.load_params(workdir / "model" / "hf", config)
    moved = jax.tree.map(lambda a, b: float(abs(a - b).max()), models[0], before)
    assert max(jax.tree.leaves(moved)) > 1e-3
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=3e-5), *models)
    assert "tree: 9 pairs of " in capsys.readouterr().err


def test_real_pairs_are_laid_out_once(workdir, chat_tokenizer):
    """The positions of a prompt's trie are the tokens of its path and branches, each once."""
    records = [tree(chat_tokenizer, number) for number in range(3)]
    rows = [row for record in records for row in sibling_pairs(record, StepPairSettings())[0]]
    kept, pairs = encode_pairs(rows, step_examples, chat_tokenizer, MAX_LENGTH)
    assert len(kept) == 9
    groups = [Group(row.id, pair) for row, pair in zip(kept, pairs, strict=True)]
    settings = Dpo(max_length=MAX_LENGTH, row_length=2 * MAX_LENGTH, microbatch_rows=2)
    batches = lay_out(groups, kept, settings)
    (batch,) = batches
    expected = {
        (row.prompt, *example.tokens[:end])
        for row, pair in zip(kept, pairs, strict=True)
        for example in pair
        for end in range(2, len(example) + 1)
    }
    assert batch.num_tokens == len(expected)
    assert batch.num_tokens < 0.5 * sum(len(example) for pair in pairs for example in pair)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layout": "trees"}, "layout is 'trees': it must be one of 'tree', 'pairs'"),
        (
            {"together": "all"},
            "together is 'all': it must be one of 'pairs', 'siblings', 'prompts'",
        ),
        ({"row_length": 100}, "row_length is 100: it must be at least max_length 2048"),
        ({"row_sequences": 1}, "row_sequences is 1, and rows of trees are not split by it"),
    ],
)
def test_settings_that_cannot_be_are_named(settings, message):
    with pytest.raises(UserError, match=message):
        Dpo(**settings)
