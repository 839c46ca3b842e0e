"""Which pairs the DPO stage trains on."""

import pytest

from stair_jax.data.records import StepPair, write_rows
from stair_jax.errors import UserError
from stair_jax.run.run_config import read_config
from stair_jax.stages import STAGES, Dpo
from stair_jax.stages.dpo_data import read_step_pairs
from stair_jax.storage import read_jsonl, write_jsonl
from stair_jax.training import loop


def pair(name, kind=None, **fields):
    return StepPair(name, "p", (), "yes", "no", kind=kind, **fields)


@pytest.fixture
def paths(tmp_path):
    rows = {"a": [pair("a1", "safety"), pair("a2", "helpfulness")], "b": [pair("b1", "safety")]}
    for name, pairs in rows.items():
        write_rows(tmp_path / f"{name}.jsonl", pairs)
    return [tmp_path / f"{name}.jsonl" for name in rows]


def test_pairs_of_several_files_follow_one_another_and_those_of_other_kinds_are_left(paths, capsys):
    assert [row.id for row in read_step_pairs("dpo", paths, (), 10)] == ["a1", "a2", "b1"]
    assert "dpo: 1 pairs in" in capsys.readouterr().err
    taken = read_step_pairs("dpo", paths, ("safety",), 10)
    assert [row.id for row in taken] == ["a1", "b1"]
    assert "dpo: 2 of 3 pairs are of the kind safety" in capsys.readouterr().err
    with pytest.raises(UserError, match="none of 1 pairs is of the kind helpfulness"):
        read_step_pairs("dpo", paths[1:], ("helpfulness",), 10)


def test_kinds_need_pairs_that_have_one(tmp_path):
    write_rows(tmp_path / "c.jsonl", [pair("c1", "safety"), pair("c2")])
    assert len(read_step_pairs("dpo", [tmp_path / "c.jsonl"], (), 10)) == 2
    with pytest.raises(UserError, match=r"c\.jsonl: pair 'c2' has no kind, and kinds is safety"):
        read_step_pairs("dpo", [tmp_path / "c.jsonl"], ("safety",), 10)
    with pytest.raises(UserError, match=r"kinds is 'safe': it must be one of"):
        Dpo(kinds=("safe",))


def test_one_stage_or_several_hold_the_pairs():
    values = {
        "stages": ("model:base", "files", "files:more", "dpo:one", "dpo:all"),
        "files": {"dpo": "a.jsonl"},
        "dpo": {"model": "base"},
        "one": {"preferences": "files"},
        "all": {"preferences": ("files", "more"), "kinds": ("safety",)},
    }
    one, both = read_config(values, STAGES).stages[-2:]
    assert one.input_names == ["base", "files"] and both.input_names == ["base", "files", "more"]
    assert one.stage.identity()["preferences"] == "files"
    assert "kinds" not in one.stage.identity()
    values["one"]["preferences"] = ("files", "base")
    with pytest.raises(UserError, match=r"config.one.preferences names 'base', .* does not make"):
        read_config(values, STAGES)


def test_a_stage_trains_on_the_pairs_of_several(
    monkeypatch, make_stage_inputs, run_stage, tmp_path
):
    folder = make_stage_inputs(tmp_path, 4)
    rows = read_jsonl(folder / "data" / "dpo.jsonl")
    more = [row | {"id": f"m{row['id']}", "kind": "helpfulness"} for row in rows]
    write_jsonl(folder / "more" / "dpo.jsonl", more)

    class Stop(Exception):
        pass

    def train(run, *arguments, **options):
        ids.extend(name for batch in run.batches for name in batch.ids)
        raise Stop

    ids = []
    monkeypatch.setattr(loop, "train", train)
    monkeypatch.setattr("stair_jax.stages.dpo._reference", lambda *args: [(0.0, 0.0)] * 8)
    inputs = {"model": folder / "model", "preferences": [folder / "data", folder / "more"]}
    settings = {"max_length": 160, "microbatch_rows": 4, "batch_size": 4}
    with pytest.raises(Stop):
        run_stage(Dpo, settings, tmp_path / "x", inputs)
    assert sorted(ids) == ["0", "1", "2", "3", "m0", "m1", "m2", "m3"]
