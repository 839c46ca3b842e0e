"""The recipe of real models, on the base of the pocket world: every stage, to the export."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

import stair_jax
from stair_jax.data.records import write_rows
from stair_jax.pocket import datasets
from stair_jax.pocket.pretraining import HELPFULNESS_PROMPT, SAFETY_PROMPT
from stair_jax.storage import read_jsonl

pytestmark = [pytest.mark.distributed, pytest.mark.slow]

ROOT = Path(stair_jax.__file__).parents[1]
NUM_TREES = 4
TRAINING = {
    "batch_size": 4,
    "max_length": 128,
    "microbatch_rows": 4,
    "learning_rate": 5e-4,
    "dtype": "float32",
    "checkpoint_every": 0,
}
SETTINGS = {
    "model.init": "pocket",
    "model.redraw_tags": True,
    "model.chat_template": "",  # its own, not that of Llama 3
    "runtime.training_mesh.fsdp": 2,
    "runtime.decoding_mesh.tensor": 2,
    "runtime.slots": 16,
    "runtime.prefill_rows": 4,
    "runtime.steps_per_call": 8,
    **{f"{kind}.{name}": v for kind in ("sft", "dpo", "prm") for name, v in TRAINING.items()},
    "sft.answer_format": "plain",  # the judge's skills among the examples have no structure
    "sft.epochs": 1.2,
    "sft.batch_size": 10,
    "sft.learning_rate": 1e-3,
    "sft.reader": "datasets",
    "search.num_iterations": 8,
    "search.num_prompts": NUM_TREES,
    "search.max_step_tokens": 48,
    "search.max_answer_tokens": 80,
    "search.max_prompt_tokens": 64,
    "search.context_tokens": 192,
    "search.dtype": "float32",
    "search.judge.fence": False,  # which the words of the pocket world cannot describe
    "search.judge.mode": "expected",  # a model of so few steps writes no conclusion
    "search.judge.probe": "",  # nor does it judge well
    "search.judge.helpfulness_template": HELPFULNESS_PROMPT,
    "search.judge.safety_template": SAFETY_PROMPT,
    "preferences.v0": 0.0,  # any difference makes a pair
    "preferences.v1": -3.0,
    "preferences.min_visits": 1,
    "preferences.prm.v0": 0.0,
}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A finished run of configs/llama8b_stair.py on two simulated devices."""
    folder = tmp_path_factory.mktemp("recipe")
    examples, _ = datasets.sft_rows(0, 200, 0.0, 40)
    write_rows(folder / "sft.jsonl", examples)
    paths = [folder / f"prompts{i}.jsonl" for i in (1, 2, 3)]
    for path, rows in zip(paths, datasets.search_rows(0, NUM_TREES, 3, []), strict=True):
        write_rows(path, rows)
    files = {"files.sft": folder / "sft.jsonl", "files.prompts": tuple(map(str, paths))}
    flags = [f"--config.{name}={value}" for name, value in (SETTINGS | files).items()]
    command = [sys.executable, "-m", "stair_jax.launch", "--config=configs/llama8b_stair.py"]
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "0",  # it computes more than it compiles
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    }
    done = subprocess.run(
        [*command, f"--workdir={folder / 'run'}", *flags],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder / "run"


def test_every_stage_is_finished(workdir):
    stages = ("files", "base", "sft", "search1", "pairs2", "iter3", "prm", "policy", "reward")
    assert all((workdir / stage / "complete.json").is_file() for stage in stages)
    for iteration in (1, 2, 3):
        assert read_jsonl(workdir / f"pairs{iteration}/dpo.jsonl")
    assert len(read_jsonl(workdir / "files/prompts3.jsonl")) == NUM_TREES


def test_what_comes_out_opens_in_transformers(workdir):
    """The vocabulary, padded to 768 rows in training, has its own size again."""
    policy, loading = AutoModelForCausalLM.from_pretrained(
        workdir / "policy/hf", output_loading_info=True, dtype="auto"
    )
    assert not loading["missing_keys"] and not loading["unexpected_keys"]
    assert policy.dtype == torch.bfloat16 and policy.config.vocab_size == 733
    base = AutoModelForCausalLM.from_pretrained(workdir / "base/hf", dtype="auto")
    change = [
        np.abs((trained.float() - start.float()).numpy(force=True)).max()
        for trained, start in zip(policy.parameters(), base.parameters(), strict=True)
    ]
    assert min(change) > 0  # every tensor was trained
    reward, loading = AutoModelForSequenceClassification.from_pretrained(
        workdir / "reward/hf", output_loading_info=True, dtype="auto"
    )
    assert not loading["missing_keys"] and not loading["unexpected_keys"]
    assert reward.score.weight.shape == (1, 192)
