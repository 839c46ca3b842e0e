"""A stage as its workers see it: the models of the driver, wherever they are on a machine."""

import shutil

import pytest

from stair_jax.adapter_folders import find_base, write_base
from stair_jax.cluster.carried import AbsentFolders, Unpacked, carry
from stair_jax.cluster.work import Order
from stair_jax.cluster.worker_process import Failure, WorkerProcess
from stair_jax.errors import UserError
from stair_jax.run.workers import DealtStage, MakeStageWorker
from stair_jax.settings import build
from stair_jax.stages import Evaluate
from stair_jax.storage import write_json

VALUES = {
    "checkpoints": ("m",),
    "files": "f",
    "benchmarks": ("xstest_unsafe",),
    "searched_checkpoint": "m",
    "methods": ("best_of_n",),
    "prm": "prm",
    "attacker": "org/attacker",
}


@pytest.fixture
def seen(tmp_path, make_context):
    """An evaluation with a stage's reward model, an attacker and a target; the first is a link."""
    for name in ("reward", "attacker", "target"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_text(name)
    (tmp_path / "run/prm").mkdir(parents=True)
    (tmp_path / "run/prm/hf").symlink_to(tmp_path / "reward")
    models = {
        "prm": tmp_path / "run/prm/hf",
        "attacker": tmp_path / "attacker",
        "what answers": tmp_path / "target",
    }
    context = make_context(tmp_path / "run/evaluate", {"prm": tmp_path / "run/prm"})
    return DealtStage.of(build(Evaluate, VALUES, "evaluate"), context, models)


def test_models_are_found_by_the_fields_that_name_them(seen, tmp_path):
    seen.enter()
    assert seen.stage.attacker == str(tmp_path / "attacker")
    assert seen.context.input("prm") == tmp_path / "run/prm"
    assert len(set(seen.fingerprints.values())) == 3


def test_models_that_are_carried_are_found_where_they_are(seen, tmp_path):
    places = {
        folder: tmp_path / "carried" / str(number) / folder.name
        for number, folder in enumerate(seen.models.values())
    }
    for folder, place in places.items():
        shutil.copytree(folder, place)
        folder.rename(tmp_path / f"{place.parent.name}.away")
    with pytest.raises(AbsentFolders) as error:
        seen.enter()
    assert error.value.folders == list(places)
    moved = seen.moved(places)
    moved.enter()
    assert moved.context.input("prm") / "hf" == tmp_path / "carried/0/hf"
    assert moved.stage.attacker == str(tmp_path / "carried/1/attacker")
    assert moved.models["what answers"] == tmp_path / "carried/2/target"


def test_another_model_than_that_of_the_driver_is_refused(seen, tmp_path):
    (tmp_path / "attacker/weights").write_text("others")
    with pytest.raises(UserError, match="attacker holds another model than on the machine"):
        seen.enter()


class Full:
    """A worker, or what makes one, without memory."""

    def exchange(self, order, seconds):
        raise MemoryError


class MakeFull(MakeStageWorker[Evaluate]):
    """Has memory for the model."""

    def load(self, stage, context):
        return Full()


class MakeNone(MakeStageWorker[Evaluate]):
    """Has none."""

    def load(self, stage, context):
        raise MemoryError


def test_a_worker_without_memory_says_what_to_lower(seen):
    loads, works = WorkerProcess(), WorkerProcess()
    works.start(MakeFull(seen))
    for failure in (loads.start(MakeNone(seen)), works.exchange(Order(), 0.0)):
        assert isinstance(failure, Failure) and failure.is_users
        assert failure.text.startswith("out of memory: lower config.runtime.slots (0) or config.")
        assert "config.evaluate.context_tokens (8192)" in failure.text


@pytest.mark.parametrize("gone", ["run", "models"])
def test_adapters_are_carried_with_their_base(tmp_path, make_context, gone):
    """Whichever of the two a worker cannot read, it finds the one by the path in the other."""
    base, adapters = tmp_path / "models/base", tmp_path / "run/sft/hf"
    for folder, file in ((base, "model.safetensors"), (adapters, "adapter_model.safetensors")):
        folder.mkdir(parents=True)
        (folder / file).write_text(file)
    write_json(base / "config.json", {})
    write_json(adapters / "adapter_config.json", {"base_model_name_or_path": str(base)})
    write_base(adapters, adapters, base, ())
    stage = build(Evaluate, VALUES, "evaluate")
    context = make_context(tmp_path / "elsewhere/evaluate", {})
    seen = DealtStage.of(stage, context, {"what answers": adapters})
    store = [carry(folder, bytes) for folder in (base, adapters)]
    (tmp_path / gone).rename(tmp_path / "away")
    with pytest.raises(AbsentFolders) as error:
        seen.enter()
    needed = error.value.folders
    assert needed == [adapters] if gone == "run" else set(needed) == {adapters, base}
    with Unpacked([each for each in store if each.folder in needed], bytes) as unpacked:
        moved = seen.moved(unpacked.places)
        moved.enter()
        place = moved.models["what answers"]
        assert place != adapters
        assert find_base(place) == (base if gone == "run" else unpacked.places[base])
