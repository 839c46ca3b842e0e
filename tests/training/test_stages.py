import json

import jax
import numpy as np
import pytest

from stair_jax.data.records import PathPair
from stair_jax.errors import UserError
from stair_jax.models import huggingface
from stair_jax.models.config import ModelConfig
from stair_jax.models.transformer import init_params
from stair_jax.settings import build
from stair_jax.stages import Dpo, Prm, Sft
from stair_jax.stages.dpo import check_first_step
from stair_jax.stages.prm import held_out_prompts
from stair_jax.storage import write_jsonl
from stair_jax.text.steps import format_answer, format_output, format_step

ANSWER = format_answer([("Problem analysis", "It is a sum.")], "4")
STEPS = [format_step("Problem analysis", "It is a sum."), "\n\n" + format_output("4")]
COMMON = {"max_length": 160, "microbatch_rows": 2, "checkpoint_every": 2, "learning_rate": 2e-3}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, chat_tokenizer):
    """Folders of a model stage and a data stage."""
    workdir = tmp_path_factory.mktemp("run")
    config = ModelConfig(
        vocab_size=chat_tokenizer.vocab_size,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        tie_word_embeddings=True,
    )
    params = init_params(config, jax.random.key(0))
    huggingface.save(workdir / "model" / "hf", params, config, chat_tokenizer)
    kinds = ("safety", "helpfulness")
    write_jsonl(
        workdir / "data" / "sft.jsonl",
        [
            {"id": f"e{i}", "prompt": f"{i} + 2?", "answer": ANSWER, "kind": kinds[i % 2]}
            for i in range(6)
        ],
    )
    steps = {"chosen": STEPS[1], "rejected": "\n\n" + format_output("5"), "path": STEPS[:1]}
    write_jsonl(
        workdir / "data" / "dpo.jsonl",
        [{"id": f"p{i}", "prompt": f"{i} + 2?", **steps} for i in range(6)],
    )
    paths = {"chosen_path": STEPS, "rejected_path": [STEPS[0], steps["rejected"]]}
    write_jsonl(
        workdir / "data" / "prm.jsonl",
        [{"id": f"p{i}", "prompt": f"{i} + 2?", **paths} for i in range(8)],
    )
    return workdir


@pytest.fixture
def train(run_stage, workdir):
    """`train(kind, name, settings, **inputs)`: the folder of a finished stage."""

    def train(kind, name, settings, **inputs):
        inputs = {"model": workdir / "model"} | inputs
        return run_stage(kind, COMMON | settings, workdir / name, inputs, seed=3)

    return train


def metrics_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_sft(train, workdir, capsys):
    settings = {"epochs": 2, "batch_size": 5, "reader": "datasets", "rates": {"safety": 1.0}}
    settings["hf_dtype"] = "bfloat16"
    folder = train(Sft, "sft", settings, data=workdir / "data")
    metrics = metrics_of(folder)
    assert len(metrics) == 3  # 2 epochs of 6 rows in batches of 5, 5 and 2
    assert metrics[-1]["loss"] < metrics[0]["loss"]
    config = huggingface.load_config(folder / "hf")
    trained = huggingface.load_params(folder / "hf", config)
    before = huggingface.load_params(workdir / "model" / "hf", config)
    assert not np.array_equal(trained["embedding"], before["embedding"])
    assert huggingface.stored_dtype(folder / "hf") == "bfloat16"
    assert not (folder / "checkpoints").exists()
    shown = capsys.readouterr().err
    assert "⟦<|Reasoning_step|>Title: Problem analysis" in shown and "<|eot_id|>⟧" in shown
    train(Sft, "sft", settings, data=workdir / "data")  # all done: nothing is trained again
    assert metrics_of(folder) == metrics


def test_an_answer_that_breaks_the_grammar_is_named(train, workdir):
    row = {"id": "a", "prompt": "hi", "answer": "plain words", "kind": "safety"}
    write_jsonl(workdir / "plain" / "sft.jsonl", [row])
    with pytest.raises(UserError, match=r"sft\.jsonl, line 1: .*answer_format='plain'"):
        train(Sft, "bad", {"reader": "datasets"}, data=workdir / "plain")


def test_an_unknown_setting_is_named():
    with pytest.raises(UserError, match=r"config\.sft has no field 'learning_rat'"):
        build(Sft, {"learning_rat": 1.0}, "config.sft")


@pytest.mark.parametrize("name", ["param_dtype", "mu_dtype", "hf_dtype"])
def test_an_unknown_dtype_is_named(name):
    with pytest.raises(UserError, match=f"{name} is 'int4': it must be one of 'float32', "):
        Sft(**{name: "int4"})


def test_dpo_starts_at_the_reference_and_raises_the_margin(train, workdir):
    settings = {"epochs": 3, "batch_size": 4, "beta": 0.5}
    folder = train(Dpo, "dpo", settings, preferences=workdir / "data")
    metrics = metrics_of(folder)
    assert metrics[0]["dpo_loss"] == pytest.approx(np.log(2), abs=1e-5)
    assert metrics[0]["margin"] == pytest.approx(0, abs=1e-5)
    assert metrics[-1]["margin"] > 0.01 and metrics[-1]["accuracy"] == 1
    assert metrics[0]["loss"] == pytest.approx(
        metrics[0]["dpo_loss"] + 0.2 * metrics[0]["sft_loss"], rel=1e-5
    )
    assert metrics[0]["sft_loss"] == pytest.approx(
        -metrics[0]["chosen_logp"] / metrics[0]["chosen_length"], rel=1e-4
    )
    assert (folder / "hf" / "model.safetensors").is_file()


@pytest.mark.parametrize(("loss", "margin"), [(0.7, 0.0), (0.6931472, 0.02), (np.nan, 0.0)])
def test_a_reference_of_another_model_is_refused(loss, margin):
    values = {"dpo_loss": loss, "margin": margin}
    with pytest.raises(RuntimeError, match="the reference is not the model in training"):
        check_first_step(0, values, 1e-3)
    check_first_step(1, values, 1e-3)


def test_no_pairs_is_an_error_that_says_what_to_change(train, workdir):
    write_jsonl(workdir / "none" / "dpo.jsonl", [])
    with pytest.raises(UserError, match="lower the thresholds"):
        train(Dpo, "empty", {}, preferences=workdir / "none")


def test_prm_learns_the_pairs_and_keeps_prompts_for_validation(train, workdir):
    settings = {"epochs": 6, "batch_size": 4, "held_out": 0.25, "warmup_ratio": 0.0}
    folder = train(Prm, "prm", settings, preferences=[workdir / "data"])
    metrics = metrics_of(folder)
    assert metrics[-1]["loss"] < metrics[0]["loss"] and metrics[-1]["accuracy"] == 1
    validation = json.loads((folder / "validation.json").read_text())
    assert validation["prompts"] == validation["pairs"] == 2
    assert validation["accuracy"] == 1
    head = huggingface.load_score_head(folder / "hf")
    assert head["kernel"].shape == (16,)


def test_all_pairs_of_a_prompt_are_held_out_together():
    rows = [PathPair(str(i), f"p{i % 10}", (), ()) for i in range(40)]
    held = held_out_prompts(rows, 0.3, 0)
    assert len(held) == 3 == len(held & {row.prompt for row in rows})
    assert held == held_out_prompts(rows[::-1], 0.3, 0)
    assert held_out_prompts(rows, 0.0, 0) == set()
