"""Which runs are seeds of one arm."""

import pytest

from stair_jax import storage
from stair_jax.errors import UserError
from stair_jax.run.evaluated_runs import find_runs


def run(workdir, seed=0, beta=0.1, stages=("dpo", "evaluate"), **settings):
    """A working folder whose stages are finished."""
    storage.write_json(workdir / "config.json", {"stages": [f"kind:{name}" for name in stages]})
    for name in stages:
        is_evaluation = name.startswith("evaluate")
        record = {
            "kind": name, "name": name, "seed": seed, "fingerprint": f"{name}{seed}", "files": {},
            "settings": settings if is_evaluation else {"beta": beta},
            "inputs": {"dpo": "x"} if is_evaluation else {},
        }  # fmt: skip
        storage.write_json(workdir / name / "complete.json", record)
        if is_evaluation:
            storage.write_text(workdir / name / "graded.jsonl", "")
    return str(workdir)


def shown(runs):
    return [(each.workdir.name, each.arm, each.seed) for each in runs]


def test_runs_that_differ_in_the_seed_alone_are_one_arm(tmp_path):
    names = [run(tmp_path / f"r{seed}", seed) for seed in (0, 1)]
    assert shown(find_runs(names)) == [("r0", "", "0"), ("r1", "", "1")]
    names += [run(tmp_path / f"s{seed}", seed, beta=0.2) for seed in (0, 1)]
    assert shown(find_runs(names)) == [
        ("r0", "r0", "0"), ("r1", "r0", "1"), ("s0", "s0", "0"), ("s1", "s0", "1"),
    ]  # fmt: skip


def test_the_user_may_say_what_is_a_seed_of_what(tmp_path):
    """Evaluations of models that other runs made have the same seed."""
    names = [run(tmp_path / name, limit=n) for n, name in enumerate("abc")]
    found = find_runs([f"ours={names[0]}", f"ours={names[1]}", f"base={names[2]}"])
    assert shown(found) == [("a", "ours", "0"), ("b", "ours", "1"), ("c", "base", "0")]


def test_patterns_of_a_shell_are_read(tmp_path):
    """So that the command in a document is short."""
    for seed in (0, 1):
        for beta, name in ((1, "sft"), (2, "iter1")):
            run(tmp_path / str(seed) / name, seed, beta=beta)
    found = find_runs([f"{tmp_path}/[01]/{{sft,iter1}}"])
    assert shown(found) == [
        ("sft", "sft", "0"), ("sft", "sft", "1"), ("iter1", "iter1", "0"), ("iter1", "iter1", "1"),
    ]  # fmt: skip
    assert [each.arm for each in find_runs([f"x={tmp_path}/*/sft"])] == ["x", "x"]
    with pytest.raises(UserError, match=r"2/sft has no finished evaluation"):
        find_runs([f"{tmp_path}/{{0,2}}/sft"])


def test_cells_of_a_sweep_without_their_seeds_are_arms(tmp_path, capsys):
    cells = {f"beta-{b}_seed-{s}": {"dpo.beta": b, "seed": s} for b in ("1", "2") for s in "01"}
    manifest = {"schema": 1, "config": "c", "overrides": [], "cells": cells}
    storage.write_json(tmp_path / "s/sweep.json", manifest)
    for name in list(cells)[:3]:
        run(tmp_path / "s" / name, int(name[-1]), beta=int(name[5]))
    found = find_runs([str(tmp_path / "s")])
    assert [(each.arm, each.seed, each.values) for each in found] == [
        ("beta-1", "0", {"dpo.beta": "1"}), ("beta-1", "1", {"dpo.beta": "1"}),
        ("beta-2", "0", {"dpo.beta": "2"}),
    ]  # fmt: skip
    assert "beta-2_seed-1 has no finished evaluation yet" in capsys.readouterr().err
    (one, *_) = find_runs([f"x={tmp_path / 's'}"])
    assert one.arm == "x/beta-1"


def test_another_field_with_the_name_of_the_seed_tells_arms_apart(tmp_path):
    cells = {f"seed-{s}": {"evaluate.grading.seed": s} for s in "01"}
    manifest = {"schema": 1, "config": "c", "overrides": [], "cells": cells}
    storage.write_json(tmp_path / "s/sweep.json", manifest)
    for name in cells:
        run(tmp_path / "s" / name, grading=name)
    found = find_runs([str(tmp_path / "s")])
    assert shown(found) == [("seed-0", "seed-0", "0"), ("seed-1", "seed-1", "0")]


def test_a_run_may_have_several_evaluations(tmp_path):
    name = run(tmp_path / "r", stages=("dpo", "evaluate", "evaluate_dev"))
    (both,) = find_runs([name])
    assert [folder.name for folder in both.folders] == ["evaluate", "evaluate_dev"]
    (one,) = find_runs([name], stage="evaluate_dev")
    (same,) = find_runs([f"{name}/evaluate_dev"])
    assert one.folders == same.folders == (tmp_path / "r/evaluate_dev",)


def test_what_cannot_be_is_named(tmp_path):
    first, again = run(tmp_path / "a"), run(tmp_path / "b")
    with pytest.raises(UserError, match="are the same run with seed 0: leave one out"):
        find_runs([first, again])
    with pytest.raises(UserError, match="is named twice"):
        find_runs([first, first])
    with pytest.raises(UserError, match=r"has no finished evaluation with a graded\.jsonl"):
        find_runs([str(tmp_path)])
    with pytest.raises(UserError, match="has no finished evaluation of the stage x"):
        find_runs([first], stage="x")
    other = run(tmp_path / "x/a", beta=3)
    with pytest.raises(UserError, match="two different runs have the name a: name them"):
        find_runs([first, other])
