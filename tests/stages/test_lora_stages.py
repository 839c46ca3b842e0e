"""Stages that train adapters: what they export, go on with, refuse, and keep on the disk."""

import dataclasses

import jax
import numpy as np
import pytest

from stair_jax.errors import UserError
from stair_jax.models import huggingface
from stair_jax.settings import build
from stair_jax.stages import Dpo, Prm, Pretrain, Sft
from stair_jax.storage import read_json, read_jsonl

COMMON = {
    "epochs": 2.0,
    "batch_size": 4,
    "max_length": 160,
    "microbatch_rows": 2,
    "learning_rate": 2e-2,
    "lora": {"rank": 4},
}
SOURCES = {Sft: "data", Dpo: "preferences", Prm: "preferences"}


@pytest.fixture
def run(make_stage_inputs, run_stage, tmp_path):
    inputs = make_stage_inputs(tmp_path, rows=8)

    def run(kind, name="stage", model=inputs / "model", runtime=(), **settings):
        data = [inputs / "data"] if kind is Prm else inputs / "data"
        if kind is Sft:
            settings["reader"] = "datasets"
        sources = {"model": model, SOURCES[kind]: data}
        return run_stage(kind, COMMON | settings, tmp_path / name, sources, **dict(runtime))

    return run


@pytest.mark.parametrize("kind", [Sft, Dpo, Prm])
def test_smoke(run, kind, tmp_path):
    f = run(kind, logps_chunks=3) if kind is not Prm else run(kind)
    rows = list(read_jsonl(f / "metrics.jsonl"))
    print([r["loss"] for r in rows])
    assert rows[-1]["loss"] < rows[0]["loss"]


def test_tags(run):
    f = run(Sft, lora={"rank": 4, "train_tags": True})
    rows = list(read_jsonl(f / "metrics.jsonl"))
    print([r["loss"] for r in rows])
    assert rows[-1]["loss"] < rows[0]["loss"]
