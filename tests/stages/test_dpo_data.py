"""Which pairs the DPO stage trains on."""

from collections import Counter
from dataclasses import replace

import pytest

from stair_jax.data.mixtures import draw
from stair_jax.data.records import StepPair, write_rows
from stair_jax.errors import UserError
from stair_jax.run.run_config import read_config
from stair_jax.search.pair_outcomes import Regret, write_regrets
from stair_jax.stages import STAGES, Dpo
from stair_jax.stages.dpo_data import adapted, balanced, read_step_pairs
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


class Stop(Exception):
    pass


def ids_of(monkeypatch, run_stage, count):
    """`ids(settings, folder, inputs)`: of the pairs that a stage trains on, in their order."""

    def ids(settings, folder, inputs):
        found = []

        def train(run, *arguments, **options):
            found.extend(name for batch in run.batches for name in batch.ids)
            raise Stop

        monkeypatch.setattr(loop, "train", train)
        common = {"max_length": 160, "microbatch_rows": 4, "batch_size": 4}
        with pytest.raises(Stop):
            run_stage(Dpo, common | settings, folder, inputs)
        return found

    monkeypatch.setattr("stair_jax.stages.dpo._reference", lambda *args: [(0.0, 0.0)] * count)
    return ids


def test_a_stage_trains_on_the_pairs_of_several(
    monkeypatch, make_stage_inputs, run_stage, tmp_path
):
    folder = make_stage_inputs(tmp_path, 4)
    rows = read_jsonl(folder / "data" / "dpo.jsonl")
    more = [row | {"id": f"m{row['id']}", "kind": "helpfulness"} for row in rows]
    write_jsonl(folder / "more" / "dpo.jsonl", more)
    inputs = {"model": folder / "model", "preferences": [folder / "data", folder / "more"]}
    found = ids_of(monkeypatch, run_stage, 8)({}, tmp_path / "x", inputs)
    assert sorted(found) == ["0", "1", "2", "3", "m0", "m1", "m2", "m3"]


def teaching(name, chosen, rejected, kind="safety"):
    return pair(name, kind, chosen_refusals=chosen, rejected_refusals=rejected)


def test_as_many_pairs_teach_to_refuse_as_to_comply(capsys):
    rows = [teaching(f"r{i}", 1.0, 0.0) for i in range(6)]
    rows += [teaching(f"c{i}", 0.0, 1.0) for i in range(2)]
    rows += [teaching(f"n{i}", 0.5, 0.5) for i in range(3)] + [pair("?", "safety", depth=2)]
    labels, rates = balanced("dpo", [*rows[:11], replace(rows[11], path=("s",))], None)
    assert labels == ["refuse"] * 6 + ["comply"] * 2 + ["neither"] * 4
    assert rates == {"refuse": 4, "comply": 4, "neither": 4}
    shown = "refuse 6 (rate 4), comply 2 (rate 4), neither 4 (rate 4); of 1 it is not known"
    assert shown in capsys.readouterr().err
    order = draw(rows, rates, 600, 0, "datasets", labels=labels)
    drawn = Counter(labels[index] for index in order)
    for label in rates:
        assert drawn[label] / 600 == pytest.approx(1 / 3, abs=0.08)  # 4 standard deviations
    assert balanced("dpo", rows, {"comply": 1})[1] == {"comply": 1}
    with pytest.raises(UserError, match="none of 6 pairs teaches to comply"):
        balanced("dpo", rows[:6], None)


def test_adaptive_rates_follow_the_mean_regret_of_each_kind(capsys):
    rows = [pair("a", "safety"), pair("b", "helpfulness")]
    regrets = {"safety": Regret(4, 0.5), "helpfulness": Regret(2, 2.0)}
    assert adapted("dpo", rows, None, 2.0, regrets) == {"safety": 0.25, "helpfulness": 4.0}
    assert "helpfulness 4 (regret 2 of 2 trees)" in capsys.readouterr().err
    assert adapted("dpo", rows, {"safety": 3}, 1.0, regrets) == {"safety": 1.5}
    with pytest.raises(UserError, match="no tree tells the regret of the kind 'helpfulness'"):
        adapted("dpo", rows, None, 1.0, {"safety": Regret(1, 1.0)})
    with pytest.raises(UserError, match="leave nothing to gain"):
        adapted("dpo", rows[:1], None, 1.0, {"safety": Regret(1, 0.0)})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"balance": "outcome", "rates": {"safety": 1}}, "unknown outcome 'safety': use refuse"),
        ({"rates": {"refuse": 1}}, "unknown kind 'refuse'"),
        ({"balance": "outcome", "adaptive_rates": 1.0}, "adaptive_rates are rates of kinds"),
    ],
)
def test_rates_that_cannot_be_are_named(settings, message):
    with pytest.raises(UserError, match=message):
        Dpo(**settings)
    assert not {"balance", "adaptive_rates"} & Dpo().identity().keys()


def test_a_stage_draws_pairs_by_what_they_teach_or_by_regret(
    monkeypatch, make_stage_inputs, run_stage, tmp_path
):
    folder = make_stage_inputs(tmp_path, 8)
    path = folder / "data" / "dpo.jsonl"
    rows = read_jsonl(path)
    for number, row in enumerate(rows):
        row |= {"kind": "safety" if number < 6 else "helpfulness"}
        row |= {"chosen_refusals": float(number < 6), "rejected_refusals": float(number >= 6)}
    write_jsonl(path, rows)
    write_regrets(path.parent, {"safety": Regret(1, 1.0), "helpfulness": Regret(1, 3.0)})
    ids = ids_of(monkeypatch, run_stage, 8)
    inputs = {"model": folder / "model", "preferences": folder / "data"}
    common = {"epochs": 40.0, "reader": "datasets"}
    for settings, share in (({"balance": "outcome"}, 0.5), ({"adaptive_rates": 1.0}, 0.75)):
        drawn = ids(common | settings, tmp_path / "x", inputs)
        assert sum(int(name) >= 6 for name in drawn) / 320 == pytest.approx(share, abs=0.1)
