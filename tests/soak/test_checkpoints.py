"""A small run of the soak test of hostile checkpoints, and the faults that it finds."""

import pickle
from pathlib import Path

import pytest

from soak import checkpoints, loader
from soak.hostile import ATTACKS, KINDS
from soak.loader import Loaded, Loader
from stair_jax.models import huggingface
from stair_jax.text import template_limits

INTACT = Loaded("loaded", "its parameters")


def first(kind, **fields):
    """The number of the first attack of a kind with these fields."""
    found = (
        number
        for number, attack in enumerate(ATTACKS)
        if attack.kind == kind and all(getattr(attack, name) == fields[name] for name in fields)
    )
    return next(found)


def test_hostile_folders_are_refused_with_one_line_or_loaded_correctly(tmp_path, monkeypatch):
    monkeypatch.setattr(template_limits, "SECONDS", 1)
    others = set(KINDS) - {"config"}
    fixed = checkpoints.run(len(ATTACKS), 0, tmp_path, others, loader.load)
    drawn = checkpoints.run(40, len(ATTACKS), tmp_path, load=loader.load)
    config = checkpoints.run(len(ATTACKS) // 4, 0, tmp_path, {"config"}, loader.load)
    results = (fixed, drawn, config)
    assert [failure for result in results for failure in result.failures] == []
    tried = {name.rpartition(" ")[0] for result in results for name in result.counts}
    assert tried == set(KINDS)
    assert sum(sum(result.counts.values()) for result in results) > 300


@pytest.mark.parametrize(
    ("loaded", "said"),
    [
        (Loaded("raised", "KeyError: 'a'"), "header: raised: KeyError: 'a'"),
        (Loaded("refused", "two\nlines"), "header: was refused in 2 lines"),
        (Loaded("refused", "one line", 5000.0), "header: allocated more than 1000 MB"),
        (INTACT, "header: was loaded, and must be refused"),
    ],
)
def test_a_wrong_outcome_is_found(tmp_path, loaded, said):
    def load(folder):
        return loaded if folder.name == "copy" else INTACT

    number = first("header")
    result = checkpoints.run(1, number, tmp_path, load=load)
    assert said in result.failures[0].what
    assert f"--seed {number} ({ATTACKS[number].name})" in result.failures[0].reproduce


def test_code_that_runs_is_found(tmp_path):
    """With a loader that reads pickles."""

    def load(folder):
        for path in (*folder.glob("*.bin"), *folder.glob("*.p*t*")):
            pickle.loads(path.read_bytes())
        return INTACT

    number = first("code", must_refuse=False)
    result = checkpoints.run(1, number, tmp_path, load=load)
    names = [failure.what for failure in result.failures]
    assert names == ["code: code of the checkpoint ran"], ATTACKS[number]


def test_other_parameters_are_found(monkeypatch, tmp_path):
    load_params = huggingface.load_params

    def load(folder, config):
        params = load_params(folder, config)
        return params | {"final_norm": params["final_norm"] + (Path(folder).name == "copy")}

    monkeypatch.setattr(huggingface, "load_params", load)
    number = first("code", must_refuse=False)
    result = checkpoints.run(1, number, tmp_path, load=loader.load)
    assert [failure.what for failure in result.failures] == [
        "code: was loaded with other parameters"
    ]


@pytest.mark.slow
@pytest.mark.distributed
def test_a_folder_that_hangs_is_given_up_and_the_next_one_is_loaded():
    base = checkpoints._BASE
    with Loader(seconds=300) as own:
        before = own.load(base)
        assert before[:2] == loader.load(base)[:2]
        own._seconds = 0.0  # which any folder exceeds
        assert own.load(base).outcome == "hung"
        own._seconds = 300.0
        assert own.load(base)[:2] == before[:2]
