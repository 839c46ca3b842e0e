"""Stages hand on adapters alone, which later stages go on from, and which are exported."""

import dataclasses

import jax
import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM

from stair_jax import checkpoint
from stair_jax.errors import UserError
from stair_jax.models import huggingface
from stair_jax.models.heads import score
from stair_jax.models.transformer import apply
from stair_jax.run.context import PlanContext
from stair_jax.run.model_folders import find_model
from stair_jax.run.runtime import Runtime
from stair_jax.stages import Dpo, Export, Model, Prm, Sft
from stair_jax.training.lora_settings import LoraSettings

COMMON = {
    "epochs": 1.0,
    "batch_size": 4,
    "max_length": 160,
    "microbatch_rows": 2,
    "learning_rate": 3e-2,
    "lora": LoraSettings(rank=4, train_tags=True),
}
SFT = Sft(**COMMON, reader="datasets")
TOKENS = np.array([[5, 70, 9, 24, 11]], np.int32)


@pytest.fixture(scope="module")
def inputs(make_stage_inputs, tmp_path_factory):
    return make_stage_inputs(tmp_path_factory.mktemp("inputs"), rows=8)


@pytest.fixture(scope="module")
def trained(inputs, make_context, tmp_path_factory):
    """The folder of a stage `sft` that trained adapters."""
    folder = tmp_path_factory.mktemp("run") / "sft"
    SFT.run(make_context(folder, {"model": inputs / "model", "data": inputs / "data"}))
    return folder


def logits(folder):
    """Of a model as `checkpoint.load` reads it."""
    config, params, _ = checkpoint.load(folder)
    hidden = jax.jit(apply, static_argnums=0)(config, params, TOKENS, np.arange(5)[None])
    return np.asarray(hidden @ params["head"].T)


def reference(model):
    with torch.no_grad():
        return model.eval()(torch.tensor(TOKENS)).logits.numpy()


def test_adapters_are_handed_on_from_stage_to_stage(trained, inputs, make_context, tmp_path):
    base = inputs / "model" / "hf"
    assert not list(trained.glob("hf/model*.safetensors"))
    assert find_model(str(trained)) == trained / "hf"
    assert huggingface.adapter_base(trained / "hf") == base
    model = AutoModelForCausalLM.from_pretrained(base)
    after_sft = reference(PeftModel.from_pretrained(model, trained / "hf"))
    np.testing.assert_allclose(logits(trained / "hf"), after_sft, atol=1e-5)
    assert np.abs(after_sft - logits(base)).max() > 1e-3

    dpo = Dpo(**COMMON, beta=0.5)
    sources = {"model": trained, "preferences": inputs / "data"}
    dpo.run(make_context(tmp_path / "dpo", sources))
    assert huggingface.adapter_base(tmp_path / "dpo/hf") == base
    before, after = (
        load_file(folder / "hf/adapter_model.safetensors") for folder in (trained, tmp_path / "dpo")
    )
    assert before.keys() == after.keys()
    assert all(not np.array_equal(before[name], after[name]) for name in before)
    np.testing.assert_allclose(
        logits(tmp_path / "dpo/hf"),
        reference(
            PeftModel.from_pretrained(
                AutoModelForCausalLM.from_pretrained(base), tmp_path / "dpo/hf"
            )
        ),
        atol=1e-5,
    )


def test_a_reward_model_of_adapters_scores_as_it_was_trained(
    trained, inputs, make_context, tmp_path
):
    prm = Prm(**COMMON)
    prm.run(make_context(tmp_path / "prm", {"model": trained, "preferences": [inputs / "data"]}))
    folder = tmp_path / "prm/hf"
    with pytest.raises(UserError, match=r"^model.init: .*prm/hf is a reward model or a classifier"):
        Model(init=str(folder)).check_environment(tmp_path)
    assert huggingface.has_score_head(folder)
    config = huggingface.load_config(folder)
    merged = dataclasses.replace(config, lora=None)
    head = huggingface.load_score_head(folder)
    found = [
        score(
            apply(each, huggingface.load_params(folder, each), TOKENS, np.arange(5)[None]),
            head,
            np.array([4]),
        )
        for each in (config, merged)
    ]
    np.testing.assert_allclose(*found, atol=1e-5)


@pytest.mark.parametrize("form", ["", "adapter"])
def test_adapters_are_exported_merged_or_alone(form, trained, inputs, run_stage, tmp_path):
    settings = {"path": str(tmp_path / "out"), "dtype": "float32", "form": form}
    run_stage(Export, settings, tmp_path / "export", {"model": trained})
    np.testing.assert_allclose(logits(tmp_path / "out"), logits(trained / "hf"), atol=1e-5)
    model = AutoModelForCausalLM.from_pretrained(inputs / "model/hf" if form else tmp_path / "out")
    if form:
        assert huggingface.adapter_base(tmp_path / "out") == inputs / "model/hf"
        model = PeftModel.from_pretrained(model, tmp_path / "out")
    np.testing.assert_allclose(reference(model), logits(trained / "hf"), atol=1e-5)


def test_a_merged_model_and_one_that_is_merged_later_are_the_same(
    trained, inputs, make_context, run_stage, tmp_path
):
    stage = dataclasses.replace(SFT, lora=dataclasses.replace(SFT.lora, save="merged"))
    sources = {"model": inputs / "model", "data": inputs / "data"}
    stage.run(make_context(tmp_path / "merged", sources))
    run_stage(Model, {"init": str(trained / "hf")}, tmp_path / "start", {})
    one, two = (load_file(tmp_path / name / "hf/model.safetensors") for name in ("merged", "start"))
    assert one.keys() == two.keys()
    for name, values in one.items():
        np.testing.assert_allclose(two[name], values, atol=1e-6)
    assert huggingface.load_config(tmp_path / "start/hf").lora is None


def test_adapters_alone_are_asked_only_of_a_stage_that_makes_them(inputs):
    model = huggingface.load_config(inputs / "model/hf")
    devices = jax.devices()[:1]
    for adapters, form in ((None, "merged"), (SFT.lora.adapters, "adapter"), (None, "adapter")):
        given = dataclasses.replace(model, lora=adapters)
        context = PlanContext("export", Runtime(), devices, devices, {"model": [given]})
        if (adapters, form) != (None, "adapter"):
            Export(model="sft", form=form).check_devices(context)
    with pytest.raises(
        UserError, match=r"^export.form is adapter, and the stage sft makes a whole"
    ):
        Export(model="sft", form="adapter").check_devices(context)
    assert SFT.planned_model({"model": (model,)}).lora.rank == 4
