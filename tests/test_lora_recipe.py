"""The recipe for one GPU, on the base of the pocket world: adapters go through every stage."""

from pathlib import Path

import numpy as np
import pytest
from peft import PeftModel
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM

from stair_jax.commands.config_file import load_config
from stair_jax.data.records import write_rows
from stair_jax.models import huggingface
from stair_jax.pocket import datasets
from stair_jax.pocket.pretraining import HELPFULNESS_PROMPT, SAFETY_PROMPT
from stair_jax.run import pipeline
from stair_jax.run.override import Override
from stair_jax.run.run_config import read_config
from stair_jax.stages import STAGES

pytestmark = pytest.mark.slow

TRAINING = {
    "batch_size": 8,
    "max_length": 128,
    "microbatch_rows": 4,
    "learning_rate": 5e-3,
    "dtype": "float32",
    "param_dtype": "float32",
    "checkpoint_every": 0,
    "remat": "none",
    "lora.rank": 8,
}
SETTINGS = {
    "stages": (
        "files", "model:base", "sft", "search:search1", "preferences:pairs1", "dpo:iter1", "prm",
        "export:policy",
    ),
    "model.init": "pocket",
    "model.chat_template": "",
    "model.redraw_tags": True,
    "runtime.training_mesh.fsdp": 1,
    "runtime.decoding_mesh.tensor": 1,
    "runtime.slots": 16,
    "runtime.prefill_rows": 4,
    "runtime.keep_models": "needed",
    **{f"{kind}.{name}": v for kind in ("sft", "dpo", "prm") for name, v in TRAINING.items()},
    "sft.answer_format": "plain",
    "sft.reader": "datasets",
    "sft.epochs": 1.0,
    "search.num_iterations": 6,
    "search.max_step_tokens": 48,
    "search.max_answer_tokens": 80,
    "search.max_prompt_tokens": 64,
    "search.context_tokens": 192,
    "search.dtype": "float32",
    "search.judge.fence": False,
    "search.judge.mode": "expected",
    "search.judge.probe": "",
    "search.judge.source": "model",
    "search.judge_model": "base",
    "search.judge.helpfulness_template": HELPFULNESS_PROMPT,
    "search.judge.safety_template": SAFETY_PROMPT,
    "preferences.v0": 0.0,
    "preferences.v1": -3.0,
    "preferences.min_visits": 1,
    "preferences.prm.v0": 0.0,
    "prm.model": "iter1",
    "prm.preferences": ("pairs1",),
    "policy.model": "iter1",
}  # fmt: skip
ADAPTED = ("sft", "iter1", "prm")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A finished run of one iteration."""
    folder = tmp_path_factory.mktemp("lora_recipe")
    write_rows(folder / "sft.jsonl", datasets.sft_rows(0, 160, 0.0, 0)[0])
    (prompts,) = datasets.search_rows(0, 4, 1, [])
    write_rows(folder / "prompts.jsonl", prompts)
    files = {"sft": folder / "sft.jsonl", "prompts": (str(folder / "prompts.jsonl"),)}
    values = SETTINGS | {f"files.{name}": value for name, value in files.items()}
    overrides = [Override(name, str(value), f"--config.{name}") for name, value in values.items()]
    pipeline.run(read_config(load_config("llama8b_lora:48"), STAGES, overrides), folder / "run")
    return folder / "run"


def test_every_stage_hands_on_adapters_of_the_one_base(workdir):
    for name in ADAPTED:
        assert huggingface.adapter_base(workdir / name / "hf") == workdir / "base/hf"
        assert not (workdir / name / "hf/model.safetensors").exists()
    weights = workdir / "base/hf/model.safetensors"
    assert weights.is_file()  # though each stage that reads it is finished
    sizes = [(workdir / name / "hf/adapter_model.safetensors").stat().st_size for name in ADAPTED]
    assert max(sizes) < weights.stat().st_size / 2


def test_an_iteration_goes_on_with_the_adapters_of_the_one_before(workdir):
    """It has changed them all, by less than SFT did, which began with B = 0."""
    sft, dpo = (load_file(workdir / name / "hf/adapter_model.safetensors") for name in ADAPTED[:2])
    assert sft.keys() == dpo.keys()
    halves = [name for name in sft if "lora_B" in name]
    for name in halves:
        change = np.linalg.norm(dpo[name] - sft[name])
        assert 0 < change < np.linalg.norm(sft[name]), name


def test_the_merged_export_is_the_policy_in_transformers(workdir):
    base = AutoModelForCausalLM.from_pretrained(workdir / "base/hf", dtype="bfloat16")
    merged = AutoModelForCausalLM.from_pretrained(workdir / "policy/hf", dtype="bfloat16")
    adapted = PeftModel.from_pretrained(base, Path(workdir / "iter1/hf")).merge_and_unload()
    for (name, ours), (_, theirs) in zip(
        merged.named_parameters(), adapted.named_parameters(), strict=True
    ):
        gap = (ours.float() - theirs.float()).abs().max()
        assert gap <= 2**-7 * theirs.float().abs().max(), name
