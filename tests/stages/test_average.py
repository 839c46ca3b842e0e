"""The mean of models, as a whole model and as adapters, beside a mean of numpy and peft."""

import dataclasses

import jax
import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from stair_jax.errors import UserError
from stair_jax.models import huggingface
from stair_jax.models.lora import Lora
from stair_jax.models.transformer import apply, init_params
from stair_jax.run.context import PlanContext
from stair_jax.run.runtime import Runtime
from stair_jax.settings import build
from stair_jax.stages import Average

TOKENS = np.array([[5, 70, 9, 24, 11]], np.int32)
OTHERS = ("second", "third")
WEIGHTS = (0.5, 0.25, 0.25)


@pytest.fixture(scope="module")
def models(make_stage_inputs, chat_tokenizer, tmp_path_factory):
    """Folders of three stages whose `hf/` are adapters of ranks 2, 3 and 2 of one base."""
    folder = tmp_path_factory.mktemp("run")
    base = make_stage_inputs(folder, rows=1) / "model/hf"
    plain = huggingface.load_config(base)
    for number, rank in enumerate((2, 3, 2)):
        lora = Lora(rank, 4 / rank, ("query", "out", "down"), token_ids=(5, 9))
        config = dataclasses.replace(plain, lora=lora)
        keys = iter(jax.random.split(jax.random.key(number), 64))
        params = jax.tree.map(
            lambda leaf: 0.1 * jax.random.normal(next(keys), leaf.shape),  # noqa: B023
            init_params(config, jax.random.key(0)),
        )
        target = folder / ("first", *OTHERS)[number] / "hf"
        huggingface.save_adapter(target, params, config, chat_tokenizer, base)
    return folder


def merged(folder):
    config = dataclasses.replace(huggingface.load_config(folder), lora=None)
    return config, huggingface.load_params(folder, config)


def logits(config, params):
    hidden = apply(config, params, TOKENS, np.arange(5)[None])
    return np.asarray(hidden @ params["head"].T)


@pytest.mark.parametrize("form", ["merged", "adapter"])
def test_the_mean_is_that_of_the_merged_models(form, models, run_stage, tmp_path):
    values = {"others": OTHERS, "form": form, "weights": tuple(3 * w for w in WEIGHTS)}
    inputs = {"model": models / "first", "others": [models / name for name in OTHERS]}
    target = run_stage(Average, values, tmp_path / "mean", inputs) / "hf"
    config, first = merged(models / "first/hf")
    rest = [merged(models / name / "hf")[1] for name in OTHERS]
    expected = jax.tree.map(
        lambda *leaves: sum(w * leaf for w, leaf in zip(WEIGHTS, leaves, strict=True)), first, *rest
    )
    wanted = logits(config, expected)
    np.testing.assert_allclose(logits(*merged(target)), wanted, atol=1e-5)
    assert np.abs(wanted - logits(config, first)).max() > 1e-3
    if form == "merged":
        read = AutoModelForCausalLM.from_pretrained(target)
    else:
        assert huggingface.load_config(target).lora.rank == 7
        read = AutoModelForCausalLM.from_pretrained(models / "model/hf")
        read = PeftModel.from_pretrained(read, target)
    with torch.no_grad():
        found = read.eval()(torch.tensor(TOKENS)).logits.numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_what_is_planned_is_what_is_written(models):
    first, second = (huggingface.load_config(models / name / "hf") for name in ("first", "second"))
    inputs = {"model": (first,), "others": (second,)}
    stage = Average(model="first", others=("second",), form="adapter")
    assert stage.planned_model(inputs).lora == dataclasses.replace(first.lora, rank=5)
    whole = dataclasses.replace(stage, form="merged")
    assert whole.planned_model(inputs) == dataclasses.replace(first, lora=None)
    assert (stage.planned_base(), whole.planned_base()) == ("model", "")
    devices = jax.devices()[:1]
    plain = dataclasses.replace(second, lora=None)
    for other, said in (
        (plain, "form is adapter, and second makes a whole model: set it to merged"),
        (dataclasses.replace(second, num_hidden_layers=9), "second has another shape than first"),
    ):
        given = {"model": (first,), "others": (other,)}
        with pytest.raises(UserError, match=said):
            stage.check_devices(PlanContext("mean", Runtime(), devices, devices, given))
    whole.check_devices(
        PlanContext("mean", Runtime(), devices, devices, {"model": (first,), "others": (plain,)})
    )


@pytest.mark.parametrize("weights", [(1.0,), (1.0, -1.0), (0.0, 0.0), (1.0, float("nan"))])
def test_weights_are_one_for_each_model_and_not_below_zero(weights):
    with pytest.raises(UserError, match="weights"):
        build(Average, {"model": "a", "others": ("b",), "weights": weights}, "config.mean")
