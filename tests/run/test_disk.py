"""What a run needs of the disk: told before it starts, by hand-computed sizes."""

import dataclasses
import shutil
from types import SimpleNamespace

import pytest

from stair_jax.errors import UserError
from stair_jax.models import huggingface
from stair_jax.models.lora import Lora
from stair_jax.run import disk, pipeline
from stair_jax.run.disk import disk_need
from stair_jax.run.run_config import read_config
from stair_jax.run.sheet import format_sheet
from stair_jax.run.workdir import StageState
from stair_jax.stages import STAGES
from stair_jax.testing.tiny_models import tiny_config, tiny_model

MODEL = tiny_config(100, hidden_size=8, intermediate_size=16, head_dim=4, tie_word_embeddings=False)
LAYER = 8 * 8 + 2 * 8 * 4 + 8 * 8 + 3 * 8 * 16 + 2 * 8  # kernels and norms
WHOLE = 2 * LAYER + 8 + 2 * 100 * 8
RANK = 3
ADAPTERS = 2 * RANK * (2 * (8 + 8) + 2 * (8 + 4) + 3 * (8 + 16))


def run_of(keep_models="all", **sections):
    """SFT, an iteration, a reward model; float32 unless `sections` say otherwise."""
    given = {
        "files": {"sft": "a.jsonl", "prompts": ("b.jsonl",)},
        "model": {},
        "sft": {"model": "base", "data": "files"},
        "search": {"model": "sft", "prompts": "files"},
        "preferences": {"trees": "search"},
        "dpo": {"model": "sft", "preferences": "preferences"},
        "prm": {"model": "dpo", "preferences": ("preferences",)},
        "export": {"model": "dpo"},
    }
    for name, values in sections.items():
        given[name] = given[name] | values
    stages = ("files", "model:base", "sft", "search", "preferences", "dpo", "prm", "export")
    return read_config({"stages": stages, "runtime": {"keep_models": keep_models}, **given}, STAGES)


def need_of(config, left=None, model=MODEL, **models):
    names = [entry.name for entry in config.stages]
    known = {name: models.get(name, model) for name in names if name != "files"}
    left = [entry for entry in config.stages if left is None or entry.name in left]
    return disk_need(config.stages, left, known, config.runtime.keep_models)


def without_checkpoints(**more):
    return {kind: {"checkpoint_every": 0} | more for kind in ("sft", "dpo", "prm")}


def test_the_models_of_all_stages_are_counted_and_no_more_for_certain():
    """Of the reward model without its vocabulary head, which is an output of one value."""
    need = need_of(run_of(export={"dtype": "float32"}))
    reward = WHOLE - 100 * 8 + 8
    assert need.least == 4 * (3 * WHOLE + reward)


def test_half_the_bytes_in_bfloat16():
    need = need_of(run_of(**without_checkpoints(hf_dtype="bfloat16")))
    assert need.least == 4 * WHOLE + 2 * (2 * WHOLE + WHOLE - 100 * 8 + 8)


def test_a_base_that_keeps_its_dtype_is_counted_in_that(tmp_path, chat_tokenizer):
    """And one that is not here in 16 bits, so that no run is refused that would fit."""
    for dtype, size in (("bfloat16", 2), ("float32", 4)):
        folder = tmp_path / dtype
        config, params = tiny_model(chat_tokenizer.vocab_size)
        huggingface.save(folder, params, config, chat_tokenizer, dtype=dtype)
        need = need_of(run_of(model={"init": str(folder), "dtype": ""}), ("base",))
        assert need.least == size * WHOLE
    assert need_of(run_of(model={"init": "a/b", "dtype": ""}), ("base",)).least == 2 * WHOLE


def test_checkpoints_are_gone_when_their_stage_is_finished():
    """Two at once: the newest, and the one that is written; parameters, two moments, a count."""
    config = run_of(export={"dtype": ""}, **without_checkpoints())
    plain = need_of(config).most
    saving = run_of(export={"dtype": ""}, sft={"checkpoint_every": 5}, dpo={"checkpoint_every": 0},
                    prm={"checkpoint_every": 0})  # fmt: skip
    state = 3 * 4 * WHOLE + 4
    assert need_of(saving).most == max(plain, 4 * 2 * WHOLE + 2 * state)
    kept = run_of(export={"dtype": ""}, sft={"checkpoint_every": 5, "keep_state": True},
                  dpo={"checkpoint_every": 0}, prm={"checkpoint_every": 0})  # fmt: skip
    assert need_of(kept).most == max(plain + state, 4 * 2 * WHOLE + 2 * state)


def test_the_state_is_that_of_the_dtypes():
    sections = without_checkpoints()
    sections["prm"] = {"param_dtype": "bfloat16", "mu_dtype": "bfloat16", "checkpoint_every": 9}
    before = 4 * 3 * WHOLE
    reward = WHOLE - 100 * 8 + 8
    assert need_of(run_of(**sections)).most == before + 4 * reward + 2 * ((2 + 2 + 4) * reward + 4)


def test_adapters_are_counted_as_adapters():
    sections = without_checkpoints(lora={"rank": RANK})
    assert need_of(run_of(**sections)).least == 4 * (WHOLE + 2 * ADAPTERS + ADAPTERS + 8)
    merged = without_checkpoints(lora={"rank": RANK, "save": "merged"})
    assert need_of(run_of(**merged)).least == need_of(run_of(**without_checkpoints())).least


def test_the_state_of_adapters_is_theirs_alone():
    sections = without_checkpoints(lora={"rank": RANK})
    sections["sft"] = sections["sft"] | {"checkpoint_every": 9}
    at_sft = 4 * (WHOLE + ADAPTERS) + 2 * (3 * 4 * ADAPTERS + 4)
    config = run_of(**sections)
    assert need_of(config, ("base", "sft")).most == at_sft


def test_models_that_are_not_needed_any_more_make_room():
    """Two at once, and at the end the last policy, the reward model and the export."""
    sections = without_checkpoints()
    reward = WHOLE - 100 * 8 + 8
    need = need_of(run_of("needed", export={"dtype": "float32"}, **sections))
    assert need.least == 4 * 2 * WHOLE
    assert need.most == 4 * (WHOLE + reward + WHOLE)


def test_adapters_keep_the_model_that_they_belong_to():
    sections = without_checkpoints(lora={"rank": RANK})
    with_adapters = dataclasses.replace(MODEL, lora=Lora(RANK, 2.0))
    models = dict.fromkeys(("sft", "dpo", "prm"), with_adapters)
    whole = need_of(run_of(**sections), **models)
    assert need_of(run_of("needed", **sections), **models) == whole


def test_what_is_finished_is_counted_no_more():
    config = run_of(**without_checkpoints())
    assert need_of(config, ("prm",)).least == 4 * (WHOLE - 100 * 8 + 8)
    assert need_of(config, ("export",)).least == 0


def test_a_disk_that_certainly_is_too_small_is_refused_before_anything_is_written(
    tmp_path, monkeypatch
):
    config = run_of(**without_checkpoints())
    needed = need_of(config).least
    models = {name: MODEL for name in ("base", "sft", "search", "preferences", "dpo", "prm")}
    workdir = tmp_path / "run"

    def start(free, keep="all"):
        monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
        disk.check_disk(config.stages, config.stages, models, keep, workdir)

    start(needed)
    with pytest.raises(UserError, match=r"free: free some space, .*runtime.keep_models 'needed'"):
        start(needed - 1)
    with pytest.raises(UserError, match="has 9 bytes free") as caught:
        start(9, keep="needed")
    assert "keep_models" not in str(caught.value) and "\n" not in str(caught.value)
    monkeypatch.setattr(pipeline, "look", lambda entries, workdir, fill=None: {
        entry.name: StageState(False, {}, "") for entry in entries
    })  # fmt: skip
    with pytest.raises(UserError, match="the models that this run makes take"):
        pipeline.run(config, workdir, models=models)
    assert not (workdir / "config.json").exists()


def test_what_a_stage_under_way_has_written_is_a_part_of_what_it_needs(tmp_path, monkeypatch):
    config = run_of(**without_checkpoints())
    left = [entry for entry in config.stages if entry.name == "prm"]
    needed = need_of(config, ("prm",)).least
    (tmp_path / "prm").mkdir()
    (tmp_path / "prm/part").write_bytes(bytes(100))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=needed - 100))
    disk.check_disk(config.stages, left, {"prm": MODEL}, "all", tmp_path)


def test_the_sheet_says_what_is_needed_and_what_is_free(tmp_path, monkeypatch):
    config = run_of(**without_checkpoints())
    states = {entry.name: StageState(False, {}, "") for entry in config.stages}
    large = dataclasses.replace(MODEL, vocab_size=2**17)
    models = {name: large for name in ("base", "sft", "dpo", "prm")}

    def last_line(free):
        monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
        return format_sheet(config, tmp_path / "none", states, models).splitlines()[-1]

    # four times embedding and head in float32, one of them without the head
    assert "disk        about 28.0 MiB at most, 50.0 MiB free" in last_line(50 * 2**20)
    assert last_line(2**20).endswith("1.0 MiB free: the disk may be full before the end")
