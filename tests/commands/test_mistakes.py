"""Mistakes that can be known at the start are one line there, before any folder is made."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import pytest

import stair_jax
from stair_jax import launch
from stair_jax.run import checks

ROOT = Path(stair_jax.__file__).parents[1]


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """`refused(config, *flags)`: the one line that the command says; no folder is made."""

    def refused(config, *flags):
        workdir = tmp_path / "run"
        status = launch.main(["x", f"--config={config}", f"--workdir={workdir}", *flags])
        lines = capsys.readouterr().err.splitlines()
        assert status == 2 and len(lines) == 1, lines
        assert not workdir.exists()
        return lines[0]

    monkeypatch.setattr(launch.signal, "signal", lambda *args: None)
    return refused


@pytest.fixture
def no_devices(monkeypatch):
    """JAX's backends must not be started."""

    def fail(*args):
        raise AssertionError("a device was looked for")

    for name in ("devices", "local_devices", "device_count"):
        monkeypatch.setattr(jax, name, fail)


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        (
            "--config.sft.leraning_rate=1e-4",
            "config.sft has no field leraning_rate: did you m",
        ),
        (
            "--config.evaluate.methods=('beam',)",
            "config.evaluate: methods is 'beam': it must be one of",
        ),
        ("--config.dpo.beta=-1", "config.dpo.beta is -1.0: it must be above 0"),
        ("--config.search.judge.mode=expcted", "mode is 'expcted': it must be one of"),
        ("--config.preferences.v1=nan", "v1 is 'nan': it must be a finite number"),
        ("--config.sft.epochs=inf", "epochs is 'inf': it must be a finite number"),
        ("--config.search.c=inf", "c is 'inf': it must be a finite number"),
        ("--config.runtime.slots=-1", "config.runtime.slots is -1: it must be at least 0"),
        (
            "--config.iter2.model=data",
            "iter2.model names 'data', a stage of the kind pocket",
        ),
        ("--config.search2.file=prompts9.jsonl", "prompts of the stage data are in prompts1.jsonl"),
        ("--config.evaluate.prm=iter3", "does not make a reward model: name prm"),
        ("--config.sft.model=iter1", "names 'iter1', which does not come before it"),
        ("--config.dpo.row_length=64", "config.iter1: row_length is 64: it must be at least max_l"),
        ("--config.model.init=/no/such/folder", "stage base: model.init: there is no folder /no/"),
        ("--config.model.init=gone/away/x", "stage base: model.init: there is no folder gone"),
        (
            "--config.model.chat_template=/gone.jinja",
            "cannot read the chat template /gone.jinja",
        ),
    ],
)
def test_mistakes_that_need_no_device(refused, no_devices, flag, said):
    assert said in refused("pocket", flag)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            "config.sft.learning_rate = '1e-4'",
            "sft.learning_rate is '1e-4': it must be a finite",
        ),
        (
            "config.search.judge.mdoe = 'x'",
            "search.judge has no field 'mdoe': did you mean m",
        ),
        (
            "config.pretrain = ConfigDict({'num_layers': 'two'})",
            "num_layers is 'two': it must be",
        ),
        ("config.serach = ConfigDict()", "config.serach is about no kind of stage and no stage"),
        ("config.sft.model = 7", "config.sft.model is 7: it must be text"),
        ("config.runtime.decoding_mesh = ConfigDict({'tensro': 2})", "has no field 'tensro'"),
        ("config.sft = 3", "config.sft is 3: it must be a section with fields"),
    ],
)
def test_mistakes_in_a_file(refused, no_devices, tmp_path, changes, said):
    path = tmp_path / "config.py"
    path.write_text(
        textwrap.dedent(f"""
            from ml_collections import ConfigDict
            from stair_jax import recipes

            def get_config():
                config = recipes.get_config("pocket")
                with config.ignore_type(), config.unlocked():
                    {changes}
                return config
        """)
    )
    assert said in refused(path)


def test_a_file_of_data_that_is_not_there(refused, no_devices):
    assert "stage files: there is no file data/sft.jsonl" in refused("llama8b_sft")


def test_an_export_onto_files_of_the_users(refused, no_devices, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    stages = "('pocket:data','model:base','export')"
    flags = [f"--config.stages={stages}", "--config.export.model=base"]
    line = refused("pocket", *flags, f"--config.export.path={tmp_path}")
    assert f"stage export: export.path: {tmp_path} is there already" in line


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            ["runtime.training_mesh.fsdp=64"],
            "runtime.training_mesh: a mesh of data 1 x fsdp 64",
        ),
        (["runtime.training_mesh.fsdp=8"], "microbatch_rows is 4: it must be a multiple of 8"),
        (["runtime.decoding_mesh.data=3"], "runtime.slots is 128: it must be a multiple of 3"),
        (["runtime.training_mesh.tensor=4"], "num_attention_heads 6 of the model cannot be split"),
        (["runtime.cache_tokens=64"], "raise runtime.cache_tokens to"),
        (["runtime.trees_in_flight=1048576", "search.num_iterations=1000000"], "which would fit"),
    ],
)
def test_mistakes_that_need_the_devices(refused, flags, said):
    assert said in refused("pocket", *(f"--config.{flag}" for flag in flags))


def test_too_many_slots_for_the_memory_are_told_with_a_number_that_fits(refused, monkeypatch):
    """On a device of a kind that tells its memory, as accelerators do."""
    from stair_jax.decoding import engine_config
    from stair_jax.run import engines

    monkeypatch.setattr(engines, "memory_bytes", lambda device: 3 * 2**30)
    monkeypatch.setattr(engine_config.EngineConfig, "on_cpu", property(lambda self: False))
    line = refused("pocket", "--config.runtime.slots=1048576")
    slots = line.partition("lower runtime.slots to ")[2].partition(",")[0]
    assert 0 < int(slots) < 1048576


def test_a_run_whose_files_went_away_goes_on_where_they_are_not_needed(tmp_path):
    """Finished stages are not checked against the user's files again."""
    from stair_jax.run.run_config import read_config
    from stair_jax.stages import STAGES

    config = read_config({"stages": ("files",), "files": {"sft": "gone.jsonl"}}, STAGES)
    (tmp_path / "files").mkdir()
    (tmp_path / "files/complete.json").write_text("{}")
    checks.check_environment(config, tmp_path)


def test_a_mistake_starts_no_backend_in_a_process_of_its_own(tmp_path):
    script = (
        "import sys; from stair_jax import launch; status = launch.main(); "
        "from jax._src import xla_bridge; print(status, len(xla_bridge._backends))"
    )
    arguments = ["--config=pocket", f"--workdir={tmp_path / 'w'}", "--config.dpo.beta=-1"]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.stdout.split() == ["2", "0"]
    assert done.stderr == "stair_jax: error: config.dpo.beta is -1.0: it must be above 0\n"
