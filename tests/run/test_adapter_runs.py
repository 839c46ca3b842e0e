"""Runs whose stages hand on adapters: they resume, are made anew and lengthened like others."""

import json
import shutil

import pytest
from safetensors.numpy import load_file, save_file

from stair_jax.errors import UserError
from stair_jax.models import huggingface
from stair_jax.run import pipeline
from stair_jax.run.pipeline import Anew
from stair_jax.run.run_config import read_config
from stair_jax.stages import STAGES
from stair_jax.storage import read_json, read_jsonl

TRAINING = {
    "batch_size": 4,
    "max_length": 160,
    "microbatch_rows": 2,
    "learning_rate": 1e-2,
    "lora": {"rank": 2},
}


@pytest.fixture(scope="module")
def finished(make_stage_inputs, tmp_path_factory):
    """(config, working folder) of a finished run of model, files and sft, moved since then."""
    folder = tmp_path_factory.mktemp("adapters")
    inputs = make_stage_inputs(folder / "inputs", rows=8)
    values = {
        "stages": ("model", "files", "sft"),
        "runtime": {"training_mesh": {}, "decoding_mesh": {}},
        "model": {"init": str(inputs / "model/hf"), "dtype": ""},
        "files": {"sft": str(inputs / "data/sft.jsonl"), "dpo": str(inputs / "data/dpo.jsonl")},
        "sft": TRAINING | {"model": "model", "data": "files", "keep_state": True, "epochs": 1.0},
        "dpo": TRAINING | {"model": "sft", "preferences": "files"},
        "export": {"model": "sft", "form": "adapter"},
    }
    pipeline.run(read_config(values, STAGES), folder / "run")
    return values, (folder / "run").rename(folder / "moved")


@pytest.fixture
def copied(finished, tmp_path):
    """The same in a copy, where the run may be changed."""
    values, workdir = finished
    shutil.copytree(workdir, tmp_path / "run")
    return values, tmp_path / "run"


def run(values, workdir, *more, changes=None, **anew):
    values = {**values, **(changes or {}), "stages": (*values["stages"], *more)}
    pipeline.run(read_config(values, STAGES), workdir, Anew(**anew))


def test_a_run_that_was_moved_goes_on(copied, capsys):
    values, workdir = copied
    run(values, workdir, "dpo", "export")
    assert "sft: finished before" in capsys.readouterr().err
    for name in ("sft", "dpo", "export"):
        assert huggingface.adapter_base(workdir / name / "hf") == workdir / "model/hf"
    files = read_json(workdir / "sft/complete.json")["files"]
    assert {"hf/adapter_model.safetensors", "hf/adapter_config.json", "hf/base.json"} <= set(files)


def change(file):
    tensors = load_file(file)
    name = next(iter(tensors))
    save_file(tensors | {name: tensors[name] + 1}, file, {"format": "pt"})


def test_a_base_that_was_changed_is_told_before_anything_runs(copied, capsys):
    values, workdir = copied
    change(workdir / "model/hf/model.safetensors")
    with pytest.raises(UserError, match=r"^stage sft: .*model/hf is another model") as refusal:
        run(values, workdir, "dpo")
    assert "\n" not in str(refusal.value) and "starts" not in capsys.readouterr().err
    run(values, workdir, "dpo", redo=["model"])
    assert huggingface.adapter_base(workdir / "dpo/hf") == workdir / "model/hf"


def test_a_base_that_was_deleted_is_made_again(copied, capsys):
    values, workdir = copied
    shutil.rmtree(workdir / "model")
    with pytest.raises(UserError, match=r"has adapters of a model that is not at .*model/hf"):
        huggingface.adapter_base(workdir / "sft/hf")
    run(values, workdir, "dpo")
    said = capsys.readouterr().err
    assert "model: starts" in said and "sft: finished before" in said


def test_a_stage_of_adapters_is_lengthened(copied):
    values, workdir = copied
    before = (workdir / "sft/hf/adapter_model.safetensors").read_bytes()
    longer = {"sft": values["sft"] | {"epochs": 2.0}}
    run(values, workdir, changes=longer, lengthen=["sft"])
    assert [row["step"] for row in read_jsonl(workdir / "sft/metrics.jsonl")] == [0, 1, 2, 3]
    assert (workdir / "sft/hf/adapter_model.safetensors").read_bytes() != before


def test_adapters_of_a_checkpoint_stand_for_their_base_too(finished, tmp_path):
    """A run that starts from adapters elsewhere is refused once their base has changed."""
    _, workdir = finished
    shutil.copytree(workdir / "model/hf", tmp_path / "model/hf")
    shutil.copytree(workdir / "sft/hf", tmp_path / "sft/hf")
    start = {"stages": ("model",), "model": {"init": str(tmp_path / "sft/hf")}}
    pipeline.run(read_config(start, STAGES), tmp_path / "run")
    merged = read_json(tmp_path / "run/model/complete.json")
    assert huggingface.load_config(tmp_path / "run/model/hf").lora is None
    assert list(merged["sources"]) == [str(tmp_path / "sft/hf")]
    config = tmp_path / "model/hf/config.json"
    config.write_text(json.dumps(read_json(config) | {"rms_norm_eps": 1e-3}))
    with pytest.raises(UserError, match="sft/hf"):
        pipeline.run(read_config(start, STAGES), tmp_path / "run")
    shutil.rmtree(tmp_path / "model")
    with pytest.raises(UserError, match="has adapters of a model that is not at"):
        pipeline.run(read_config(start, STAGES), tmp_path / "other")
