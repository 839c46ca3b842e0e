"""Models that no stage needs any more are removed where the config wants it, and no others."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import pytest

from stair_jax import storage
from stair_jax.errors import UserError
from stair_jax.run import pipeline, unneeded_models
from stair_jax.run.model_folders import find_model
from stair_jax.run.overview import format_overview
from stair_jax.run.pipeline import Anew
from stair_jax.run.run_config import read_config
from stair_jax.run.stage import Artifact, Stage, stage_input
from stair_jax.run.stage_records import COMPLETE_FILE, read_record

FULL, ADAPTERS, SCORES = "full", "adapters", "scores"


@dataclass(frozen=True)
class Train(Stage):
    """Makes a model of another one.

    Attributes:
      model: a stage.
      makes_what: a whole model, adapters, or a reward model.
      epochs: how long.
    """

    LENGTH = "epochs"

    model: str = stage_input(Artifact.MODEL, required=False)
    makes_what: str = FULL
    epochs: int = 1

    def makes(self):
        return {"hf": Artifact.REWARD_MODEL if self.makes_what == SCORES else Artifact.MODEL}

    def run(self, context):
        if self.model:
            assert list((context.input("model") / "hf").glob("*.safetensors")), "no weights"
        hf = context.folder / "hf"
        storage.write_text(hf / "model.safetensors", f"weights of {context.name}")
        storage.write_json(hf / "model.safetensors.index.json", {})
        for name in ("tokenizer.json", *(["adapter_config.json"] * (self.makes_what == ADAPTERS))):
            storage.write_json(hf / name, {})


@dataclass(frozen=True)
class Look(Stage):
    """Reads models.

    Attributes:
      models: stages.
    """

    models: tuple[str, ...] = stage_input(Artifact.MODEL, Artifact.REWARD_MODEL, many=True)

    def run(self, context):
        for folder in context.input_list("models"):
            assert (folder / "hf/model.safetensors").is_file()
        storage.write_json(context.folder / "seen.json", 1)


KINDS = {"train": Train, "look": Look}
CHAIN = ("train:base", "train:sft", "train:iter1", "look:search", "train:iter2", "train:prm")


def config(stages=CHAIN, keep="needed", **sections):
    given = {
        "sft": {"model": "base"},
        "iter1": {"model": "sft"},
        "search": {"models": ("iter1",)},
        "iter2": {"model": "iter1"},
        "prm": {"model": "iter2", "makes_what": SCORES},
        **sections,
    }
    names = {label.rpartition(":")[2] for label in stages}
    own = {name: section for name, section in given.items() if name in names}
    return read_config({"stages": stages, "runtime": {"keep_models": keep}, **own}, KINDS)


def run(values, workdir, **anew):
    pipeline.run(values, workdir, Anew(**anew), models={})


def with_weights(workdir):
    return sorted(path.parents[1].name for path in workdir.glob("*/hf/model.safetensors"))


def test_all_models_stay_unless_the_config_says_otherwise(tmp_path):
    run(config(keep="all"), tmp_path)
    assert with_weights(tmp_path) == ["base", "iter1", "iter2", "prm", "sft"]


def test_the_last_policy_and_the_reward_model_stay(tmp_path, capsys):
    run(config(), tmp_path)
    assert with_weights(tmp_path) == ["iter2", "prm"]
    assert (tmp_path / "sft/hf/tokenizer.json").is_file()
    assert not (tmp_path / "sft/hf/model.safetensors.index.json").exists()
    said = capsys.readouterr().err
    size = len("weights of sft") + len("{}\n")
    assert f"sft: its model is not needed any more and is removed, {size} bytes" in said
    assert said.count("is removed") == 3


def test_a_model_stays_as_long_as_a_stage_will_read_it(tmp_path):
    """The base judges in the last stage; the model of `sft` is compared there."""
    stages = (*CHAIN, "look:evaluate")
    seen = {}

    class Watched(Look):
        def run(self, context):
            seen[context.name] = with_weights(tmp_path)

    given = {"evaluate": {"models": ("base", "sft", "prm")}}
    values = config(stages, **given)
    watched = [
        dataclasses.replace(entry, stage=Watched(entry.stage.models))
        if isinstance(entry.stage, Look)
        else entry
        for entry in values.stages
    ]
    run(dataclasses.replace(values, stages=tuple(watched)), tmp_path)
    assert seen["evaluate"] == ["base", "iter2", "prm", "sft"]
    assert with_weights(tmp_path) == ["iter2", "prm"]


def test_adapters_stay_and_the_model_that_they_belong_to(tmp_path):
    given = {
        name: {"model": model, "makes_what": ADAPTERS}
        for name, model in (("sft", "base"), ("iter1", "sft"), ("iter2", "iter1"))
    }
    run(config(**given), tmp_path)
    assert with_weights(tmp_path) == ["base", "iter1", "iter2", "prm", "sft"]


def test_of_a_merged_model_the_base_does_not_stay(tmp_path):
    run(config(sft={"model": "base", "makes_what": ADAPTERS}), tmp_path)
    assert with_weights(tmp_path) == ["base", "iter2", "prm", "sft"]


def test_the_stages_stay_finished(tmp_path, capsys):
    run(config(), tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    capsys.readouterr()
    for keep in ("needed", "all"):
        run(config(keep=keep), tmp_path)
        after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        before[tmp_path / "config.json"] = after[tmp_path / "config.json"]
        assert before == after
    said = capsys.readouterr().err
    assert "iter2: finished before" in said and "removed" not in said


def test_models_of_a_run_that_is_there_are_removed_when_it_is_asked_for(tmp_path):
    run(config(keep="all"), tmp_path)
    run(config(), tmp_path)
    assert with_weights(tmp_path) == ["iter2", "prm"]


def test_a_removal_that_was_killed_is_finished(tmp_path, monkeypatch):
    """The record is written first: a model with a part of its files is never taken for whole."""

    def die(folder):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(unneeded_models, "_remove", die)
        with pytest.raises(KeyboardInterrupt):
            run(config(), tmp_path)
    assert (tmp_path / "base/hf/model.safetensors").is_file()
    assert read_record(tmp_path / "base" / COMPLETE_FILE)["removed"]
    run(config(keep="all"), tmp_path)
    assert with_weights(tmp_path) == ["iter1", "iter2", "prm", "sft"]


@pytest.mark.parametrize(
    ("changes", "anew", "said"),
    [
        (
            {"stages": (*CHAIN, "look:evaluate"), "evaluate": {"models": ("sft",)}},
            {},
            "the stage evaluate needs the model of the stage sft, .* --redo=base makes it again",
        ),
        ({}, {"redo": ["iter2"]}, "stage iter2 needs the model of the stage iter1, .*--redo=base"),
        (
            {"iter2": {"model": "iter1", "epochs": 2}},
            {"lengthen": ["iter2"]},
            "stage iter2 needs the model of the stage iter1, .* --redo=base",
        ),
    ],
)
def test_a_model_that_is_needed_after_all_is_named_before_anything_is_deleted(
    tmp_path, changes, anew, said
):
    run(config(), tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=said) as caught:
        run(config(**changes), tmp_path, **anew)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_the_stage_that_is_named_makes_all_of_it_again(tmp_path):
    run(config(), tmp_path)
    run(config(keep="all"), tmp_path, redo=["base"])
    assert with_weights(tmp_path) == ["base", "iter1", "iter2", "prm", "sft"]


def test_no_more_is_made_again_than_is_gone(tmp_path):
    """The base stays for the adapters that belong to it, so that `sft` can be made of it."""
    given = {"small": {"model": "base", "makes_what": ADAPTERS}}
    stages = (CHAIN[0], "train:small", *CHAIN[1:])
    run(config(stages, **given), tmp_path)
    assert with_weights(tmp_path) == ["base", "iter2", "prm", "small"]
    with pytest.raises(UserError, match=r"the model of the stage iter1, .* --redo=sft makes"):
        run(config(stages, **given), tmp_path, redo=["iter2"])


def test_show_and_those_who_ask_for_the_model_say_where_it_went(tmp_path):
    run(config(), tmp_path)
    lines = format_overview(tmp_path).splitlines()
    gone = [line.split()[0] for line in lines if line.endswith("which is not needed any more")]
    assert gone == ["base", "sft", "iter1"]
    with pytest.raises(UserError, match=r"the model of the stage .*sft was removed .*--redo=sft"):
        find_model(str(tmp_path / "sft"))


def test_a_stage_under_way_keeps_what_it_reads(tmp_path, monkeypatch):
    values = config()

    def stop(self, context):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Look, "run", stop)
        with pytest.raises(KeyboardInterrupt):
            run(values, tmp_path)
    assert with_weights(Path(tmp_path)) == ["iter1"]
    run(values, tmp_path)
    assert with_weights(tmp_path) == ["iter2", "prm"]
