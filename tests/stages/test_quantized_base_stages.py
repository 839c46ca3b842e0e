"""Stages that train adapters beside a base in 4 or 8 bits (QLoRA)."""

import dataclasses

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from stair_jax.errors import UserError
from stair_jax.models import huggingface
from stair_jax.planning.cost import local_bytes
from stair_jax.run.context import PlanContext
from stair_jax.run.runtime import Runtime
from stair_jax.stages import Dpo, Prm, Sft
from stair_jax.storage import read_json, read_jsonl
from stair_jax.training.lora_settings import LoraSettings

COMMON = {
    "epochs": 2.0,
    "batch_size": 4,
    "max_length": 160,
    "microbatch_rows": 2,
    "learning_rate": 2e-2,
    "remat": "full",
    "lora": LoraSettings(rank=4, base_weights="nf4"),
}
SFT = Sft(**COMMON, reader="datasets")


@pytest.fixture(scope="module")
def tuned(make_stage_inputs, make_context, tmp_path_factory):
    """(folder of the inputs, folder of an SFT stage)."""
    folder = tmp_path_factory.mktemp("tuned")
    inputs = make_stage_inputs(folder, rows=8, intermediate_size=128)
    sources = {"model": inputs / "model", "data": inputs / "data"}
    stage = dataclasses.replace(SFT, held_out=2, samples_every=2)
    stage.run(make_context(folder / "sft", sources))
    return inputs, folder / "sft"


def steps_of(folder):
    return [row for row in read_jsonl(folder / "metrics.jsonl") if "loss" in row]


def test_sft_learns_and_leaves_the_base_as_it_was(tuned):
    inputs, sft = tuned
    steps = steps_of(sft)
    assert steps[-1]["loss"] < steps[0]["loss"]
    assert list(read_jsonl(sft / "samples.jsonl"))
    names = load_file(sft / "hf" / "adapter_model.safetensors")
    assert all("lora_" in name for name in names)
    assert huggingface.adapter_base(sft / "hf").samefile(inputs / "model" / "hf")


def test_dpo_starts_at_its_reference_on_a_mesh(tuned, make_context, tmp_path):
    inputs, sft = tuned
    stage = Dpo(**COMMON | {"lora": LoraSettings(rank=4, base_weights="int8")}, beta=0.5)
    sources = {"model": sft, "preferences": inputs / "data"}
    context = make_context(tmp_path / "dpo", sources, training_mesh={"tensor": 2}, vocab_multiple=2)
    stage.run(context)
    steps = steps_of(context.folder)
    assert steps[0]["dpo_loss"] == pytest.approx(np.log(2), abs=1e-5)
    assert steps[0]["margin"] == pytest.approx(0, abs=1e-5)
    assert steps[-1]["margin"] > 0.01


def test_prm_trains_adapters_and_its_head(tuned, make_context, tmp_path):
    inputs, sft = tuned
    sources = {"model": sft, "preferences": [inputs / "data"]}
    context = make_context(tmp_path / "prm", sources)
    Prm(**COMMON, held_out=0.3).run(context)
    steps = steps_of(context.folder)
    assert steps[-1]["loss"] < steps[0]["loss"]
    assert read_json(context.folder / "validation.json")["accuracy"] == 1


def test_a_state_beside_another_base_is_refused(tuned, make_context, tmp_path):
    inputs, _ = tuned
    sources = {"model": inputs / "model", "data": inputs / "data"}
    context = make_context(tmp_path / "sft", sources)
    stage = dataclasses.replace(SFT, checkpoint_every=1, keep_state=True)
    stage.run(context)
    stage.reopen(context.folder)
    other = dataclasses.replace(stage, epochs=4.0, lora=LoraSettings(rank=4, base_weights="int8"))
    with pytest.raises(UserError, match=r"another lora \(base_weights was nf4, now int8\)"):
        other.run(dataclasses.replace(context, is_lengthened=True))


def test_plans_count_the_base_as_it_is_held(tuned):
    inputs, _ = tuned
    config = huggingface.load_config(inputs / "model" / "hf")
    devices = jax.devices()[:1]
    context = PlanContext("sft", Runtime(), devices, devices, {"model": (config,)})
    sizes = {}
    for kind in ("none", "int8", "nf4"):
        lora = LoraSettings(rank=4, base_weights=kind)
        (program,) = dataclasses.replace(SFT, lora=lora).programs(context)
        sizes[kind] = local_bytes(program.arguments[3]["layers"])
    kernels = sizes["int8"] - sizes["nf4"]  # half of what is in 8 bits
    assert sizes["none"] > 7 * kernels > sizes["int8"] > sizes["nf4"] > kernels
