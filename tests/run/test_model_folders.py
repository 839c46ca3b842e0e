"""Models by name: folders, stages of a run, ids of the hub."""

import pytest

from stair_jax.errors import UserError
from stair_jax.pocket import world
from stair_jax.run.model_folders import find_model
from stair_jax.storage import write_json


@pytest.fixture
def workdir(tmp_path):
    """A run: `sft` is finished, `export` is elsewhere, `dpo` under way, `data` makes no model."""
    workdir = tmp_path / "run"
    write_json(workdir / "config.json", {"stages": ["data", "sft", "export", "dpo"]})
    for folder in (workdir / "sft/hf", tmp_path / "exported"):
        for name in ("config.json", "tokenizer.json"):
            write_json(folder / name, {"model_type": "llama"})
    for name in ("data", "sft", "export"):
        write_json(workdir / name / "complete.json", {})
    write_json(workdir / "export/export.json", {"path": str(tmp_path / "exported")})
    write_json(workdir / "dpo/started.json", {})
    return workdir


def test_a_stage_stands_for_its_model(workdir, tmp_path):
    assert find_model(f"{workdir}/sft") == find_model(f"{workdir}/sft/") == workdir / "sft/hf"
    assert find_model(f"{workdir}/sft/hf") == workdir / "sft/hf"
    assert find_model(f"{workdir}/export") == tmp_path / "exported"


def test_pocket_is_the_base_unless_there_is_a_folder_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_model("pocket").samefile(world.__file__.replace("world.py", "base"))
    write_json(tmp_path / "pocket/config.json", {})
    write_json(tmp_path / "pocket/tokenizer.json", {})
    assert find_model("pocket").samefile(tmp_path / "pocket")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "is the working folder of a run: name one of its stages, .*run/sft"),
        ("/data", "data is a stage that makes no model"),
        ("/dpo", "the stage .*dpo is not finished"),
        ("/sf", "there is no folder .*run/sf"),
    ],
)
def test_what_is_no_model_is_one_line(workdir, name, said):
    with pytest.raises(UserError, match=said):
        find_model(f"{workdir}{name}")
