"""Stages that train adapters: what they write, go on with and refuse."""

import dataclasses
import re
from functools import partial

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from stair_jax.errors import UserError
from stair_jax.models import huggingface, lora
from stair_jax.models.lora import KERNELS
from stair_jax.run.context import PlanContext
from stair_jax.run.run_config import read_config
from stair_jax.run.runtime import Runtime
from stair_jax.stages import STAGES, Dpo, Pretrain, Prm, Sft
from stair_jax.storage import read_json, read_jsonl
from stair_jax.training.lora_settings import LoraSettings
from stair_jax.training.metrics import StepMetrics

COMMON = {
    "epochs": 2.0,
    "batch_size": 4,
    "max_length": 160,
    "microbatch_rows": 2,
    "learning_rate": 2e-2,
    "lora": LoraSettings(rank=4, save="merged"),
}
SFT = Sft(**COMMON, reader="datasets", checkpoint_every=1)
SOURCES = {Sft: "data", Dpo: "preferences", Prm: "preferences"}


@pytest.fixture
def inputs(make_stage_inputs, tmp_path):
    return make_stage_inputs(tmp_path, rows=8)


@pytest.fixture
def contexts(inputs, make_context, tmp_path):
    """`contexts(stage, name, ...)`: the context of a stage, with runtime settings."""

    def make(stage, name="stage", model=None, **runtime):
        data = [inputs / "data"] if isinstance(stage, Prm) else inputs / "data"
        sources = {"model": model or inputs / "model", SOURCES[type(stage)]: data}
        return make_context(tmp_path / name, sources, **runtime)

    return make


def weights(folder):
    return load_file(folder / "hf" / "model.safetensors")


def rows_of(folder):
    return list(read_jsonl(folder / "metrics.jsonl"))


def steps_of(folder):
    return [row for row in rows_of(folder) if "loss" in row]


def stop_at(monkeypatch, stage, context, number):
    """Runs a stage to this step, which is as if it were killed there."""
    add = StepMetrics.add

    def stop(self, step, *values):
        if step == number:
            raise InterruptedError
        add(self, step, *values)

    with monkeypatch.context() as patch, pytest.raises(InterruptedError):
        patch.setattr(StepMetrics, "add", stop)
        stage.run(context)


def test_only_kernels_change_and_a_state_holds_adapters_alone(contexts, inputs):
    stage = dataclasses.replace(
        SFT, held_out=2, eval_every=2, samples_every=2, keep_state=True, checkpoint_every=2
    )
    context = contexts(stage)
    stage.run(context)
    folder = context.folder
    steps = steps_of(folder)
    assert len(steps) == 3 and steps[-1]["loss"] < steps[0]["loss"]
    assert [row["eval/loss"] for row in rows_of(folder) if "eval/loss" in row][-1] < 6
    assert [row["step"] for row in read_jsonl(folder / "samples.jsonl")] == [1, 1]
    before, after = weights(inputs / "model"), weights(folder)
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {name for name in before if re.search("_proj.weight", name)}
    assert len(changed) == len(KERNELS)
    (state,) = (path for path in (folder / "checkpoints").iterdir() if path.name.isdigit())
    keys = read_json(state / "state" / "_METADATA")["tree_metadata"]
    names = {key for key in re.findall(r"'(\w+)'", " ".join(keys))}
    adapters = {f"{name}_lora_{half}" for name in KERNELS for half in "ab"}
    assert names & {*KERNELS, "embedding", "head", "final_norm", "mlp_norm"} == set()
    assert adapters <= names
    assert stage.check_lengthening(folder) is None
    stage.reopen(folder)
    longer = dataclasses.replace(stage, epochs=4.0)
    longer.run(dataclasses.replace(context, is_lengthened=True))
    assert steps_of(folder)[:3] == steps and len(steps_of(folder)) == 6


def test_a_stage_that_was_stopped_goes_on_to_the_same_bits(contexts, monkeypatch):
    whole, stopped = contexts(SFT, "whole"), contexts(SFT, "stopped")
    SFT.run(whole)
    stop_at(monkeypatch, SFT, stopped, 2)
    SFT.run(stopped)
    assert rows_of(stopped.folder) == rows_of(whole.folder)
    files = [context.folder / "hf" / "model.safetensors" for context in (stopped, whole)]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"alpha": 4.0}, r"with another lora \(scale was 2\.0, now 1\.0\)"),
        ({"rank": 8, "alpha": 16.0}, r"with another lora \(rank was 4, now 8\)"),
        ({"targets": ("query",)}, r"with another lora \(targets was \['query', "),
    ],
)
def test_a_state_of_other_adapters_is_refused(changes, said, contexts, monkeypatch):
    context = contexts(SFT)
    stop_at(monkeypatch, SFT, context, 2)
    other = dataclasses.replace(SFT, lora=dataclasses.replace(SFT.lora, **changes))
    with pytest.raises(UserError, match=said) as refusal:
        other.run(context)
    assert "\n" not in str(refusal.value)


def test_the_best_state_of_adapters_is_taken(contexts, capsys):
    """By the norm of the gradients, which are those of B alone at first."""
    stage = dataclasses.replace(SFT, warmup_ratio=0.0, keep_best="grad_norm", use_best=True)
    context = contexts(stage)
    stage.run(context)
    norms = [row["grad_norm"] for row in steps_of(context.folder)]
    best = int(np.argmin(norms)) + 1
    assert best < len(norms)
    kept = [path.name for path in (context.folder / "checkpoints").iterdir()]
    assert str(best) in kept
    assert f"the state after step {best} is taken" in capsys.readouterr().err


@pytest.mark.parametrize("layout", ["tree", "pairs"])
def test_dpo_starts_at_its_reference(layout, contexts):
    stage = Dpo(**COMMON, layout=layout, beta=0.5, samples_every=2, held_out=2)
    context = contexts(stage, training_mesh={"fsdp": 2} if layout == "tree" else {})
    stage.run(context)
    steps = steps_of(context.folder)
    assert steps[0]["dpo_loss"] == pytest.approx(np.log(2), abs=1e-5)
    assert steps[0]["margin"] == pytest.approx(0, abs=1e-5)
    assert steps[-1]["margin"] > 0.01
    (first, *_) = read_jsonl(context.folder / "samples.jsonl")
    assert first["margin"] > 0


def test_prm_trains_adapters_and_its_head(contexts, inputs):
    stage = Prm(**COMMON, held_out=0.3, eval_every=2, samples_every=2)
    context = contexts(stage)
    stage.run(context)
    steps = steps_of(context.folder)
    assert steps[-1]["loss"] < steps[0]["loss"]
    assert read_json(context.folder / "validation.json")["accuracy"] == 1
    before, after = weights(inputs / "model"), weights(context.folder)
    assert "score.weight" in after
    same = [name for name in after if name in before and "_proj" not in name]
    assert same and all(np.array_equal(before[name], after[name]) for name in same)


def test_rows_of_tags_are_trained_and_no_others(contexts, inputs, chat_tokenizer):
    stage = dataclasses.replace(
        SFT, lora=dataclasses.replace(SFT.lora, train_tags=True), logps_chunks=2
    )
    context = contexts(stage, training_mesh={"fsdp": 2, "tensor": 2}, vocab_multiple=4)
    stage.run(context)
    before, after = weights(inputs / "model"), weights(context.folder)
    tags = sorted(vars(chat_tokenizer.tags).values())
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        changed = np.flatnonzero(np.any(before[name] != after[name], axis=1))
        assert changed.tolist() == tags


def test_pretraining_has_neither_adapters_nor_rows_of_other_sizes():
    with pytest.raises(UserError, match=r"lora\.rank is 4: pretraining starts from random"):
        Pretrain(lora=LoraSettings(rank=4))
    with pytest.raises(UserError, match="row_sequences is 2: the rows of pretraining are packed"):
        Pretrain(row_sequences=2)


@pytest.fixture(scope="module")
def tuned(make_stage_inputs, make_context, tmp_path_factory):
    """(folder of the inputs, folder of an SFT stage that has written adapters of rank 4)."""
    folder = tmp_path_factory.mktemp("tuned")
    inputs = make_stage_inputs(folder, rows=8)
    stage = dataclasses.replace(SFT, lora=LoraSettings(rank=4))
    sources = {"model": inputs / "model", "data": inputs / "data"}
    stage.run(make_context(folder / "sft", sources))
    return inputs, folder / "sft"


def adapters_of(folder):
    return load_file(folder / "hf" / "adapter_model.safetensors")


@pytest.mark.parametrize("stack", [False, True])
def test_dpo_goes_on_with_adapters_and_its_reference_has_them(stack, tuned, make_context, tmp_path):
    inputs, sft = tuned
    rank = 3 if stack else 4
    stage = Dpo(**COMMON | {"lora": LoraSettings(rank=rank, stack=stack, alpha=2.0 * rank)})
    context = make_context(tmp_path / "dpo", {"model": sft, "preferences": inputs / "data"})
    stage.run(context)
    steps = steps_of(context.folder)
    assert steps[0]["dpo_loss"] == pytest.approx(np.log(2), abs=1e-5)
    assert steps[-1]["margin"] > 0.01
    config = huggingface.load_config(context.folder / "hf")
    assert config.lora == lora.Lora(7 if stack else 4, 2.0)
    assert huggingface.adapter_base(context.folder / "hf").samefile(inputs / "model" / "hf")
    before, after = adapters_of(sft), adapters_of(context.folder)
    for name, values in before.items():
        old = after[name][:, :4] if "lora_B" in name else after[name][:4]
        assert np.array_equal(old, values) == stack


def test_rows_of_tags_go_on_from_stage_to_stage(tuned, make_context, tmp_path, chat_tokenizer):
    """DPO adds them to adapters that had none, and a PRM goes on with both."""
    inputs, sft = tuned
    tags = tuple(sorted(vars(chat_tokenizer.tags).values()))
    settings = COMMON | {"lora": LoraSettings(rank=4, train_tags=True)}
    sources = {"model": sft, "preferences": inputs / "data"}
    dpo = make_context(tmp_path / "dpo", sources)
    Dpo(**settings).run(dpo)
    assert steps_of(dpo.folder)[0]["dpo_loss"] == pytest.approx(np.log(2), abs=1e-5)
    assert huggingface.load_config(dpo.folder / "hf").lora == lora.Lora(4, 2.0, token_ids=tags)
    prm = make_context(tmp_path / "prm", {"model": dpo.folder, "preferences": [inputs / "data"]})
    Prm(**settings).run(prm)
    rows = [
        adapters_of(folder)[
            "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta"
        ]
        for folder in (dpo.folder, prm.folder)
    ]
    assert rows[0].shape == rows[1].shape == (4, 16) and np.any(rows[0] != rows[1])
    with pytest.raises(UserError, match=r"set lora\.train_tags"):
        dataclasses.replace(SFT, lora=LoraSettings(rank=4)).planned_model(
            {"model": (huggingface.load_config(dpo.folder / "hf"),)}
        )


def test_all_of_a_model_is_trained_from_its_merged_adapters(tuned, make_context, tmp_path):
    inputs, sft = tuned
    stage = dataclasses.replace(SFT, lora=LoraSettings(), learning_rate=1e-9)
    context = make_context(tmp_path / "full", {"model": sft, "data": inputs / "data"})
    stage.run(context)
    config = dataclasses.replace(huggingface.load_config(sft / "hf"), lora=None)
    merged = huggingface.load_params(sft / "hf", config)
    after = huggingface.load_params(context.folder / "hf", config)
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-6), after, merged)
    base = huggingface.load_params(inputs / "model" / "hf", config)
    assert np.abs(base["layers"]["up"] - after["layers"]["up"]).max() > 1e-3


def test_other_adapters_than_those_of_the_model_are_refused_before_the_run(tuned):
    _, sft = tuned
    model = SFT.planned_model({"model": (huggingface.load_config(sft / "hf"),)})
    assert model.lora is None  # SFT here writes a merged model
    adapted = dataclasses.replace(SFT, lora=LoraSettings(rank=4))
    planned = adapted.planned_model({"model": (model,)})
    assert planned.lora == huggingface.load_config(sft / "hf").lora
    stage = Dpo(**COMMON | {"lora": LoraSettings(rank=8)})
    devices = jax.devices()
    with pytest.raises(UserError, match=r"adapters of rank 4 .* lora\.stack"):
        stage.check_devices(PlanContext("dpo", Runtime(), devices, devices, {"model": (planned,)}))


def test_sections_of_a_kind_and_of_a_stage_complete_each_other():
    values = {
        "stages": ("pocket:data", "model:base", "sft:first", "sft:second"),
        "sft": {"model": "base", "data": "data", "lora": {"rank": 4}},
        "second": {"model": "first", "lora": {"save": "merged"}},
    }
    stages = {entry.name: entry.stage for entry in read_config(values, STAGES).stages}
    assert stages["first"].lora == LoraSettings(rank=4)
    assert stages["second"].lora == LoraSettings(rank=4, save="merged")
    del values["sft"]["lora"]
    with pytest.raises(UserError, match=r"config\.second: lora\.rank is 0"):
        read_config(values, STAGES)
