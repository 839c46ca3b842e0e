"""The data stage of the pocket world writes what the other stages read."""

import pytest

from stair_jax.data.pairs import read_pairs
from stair_jax.data.prompts import read_prompts
from stair_jax.data.records import StepPair
from stair_jax.errors import UserError
from stair_jax.pocket import datasets, offline_pairs
from stair_jax.stages import Pocket
from stair_jax.storage import read_jsonl

SETTINGS = {
    "num_sft": 40,
    "careless": 0.5,
    "num_replay": 8,
    "num_search": 10,
    "iterations": 2,
    "split": "development",
    "per_family": 6,
}


@pytest.fixture
def run(run_stage):
    """`run(folder, seed, **settings)`: the bytes of each file that the stage writes."""

    def run(folder, seed=0, **settings):
        run_stage(Pocket, SETTINGS | settings, folder, {}, seed)
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    return run


def test_files(run, tmp_path):
    written = run(tmp_path / "data", seed=3)
    assert sorted(written) == [
        "evaluation.jsonl",
        "prompts1.jsonl",
        "prompts2.jsonl",
        "sft.jsonl",
        "system1.jsonl",
    ]
    structured, direct = datasets.sft_rows(3, 40, 0.5, 8)
    assert read_jsonl(tmp_path / "data/sft.jsonl") == [row.to_dict() for row in structured]
    assert read_jsonl(tmp_path / "data/system1.jsonl") == [row.to_dict() for row in direct]
    expected = datasets.evaluation_rows("development", 6)
    assert read_jsonl(tmp_path / "data/evaluation.jsonl") == expected
    for number in (1, 2):
        prompts = read_prompts(tmp_path / f"data/prompts{number}.jsonl")
        assert len(prompts) == 10
        assert not {p.prompt for p in prompts} & {row.prompt for row in structured}


def test_files_depend_on_the_seed_alone_but_for_the_evaluation(run, tmp_path):
    first, again, other = (
        run(tmp_path / name, seed) for name, seed in zip("abc", (1, 1, 2), strict=True)
    )
    assert first == again
    same = {name for name in first if first[name] == other[name]}
    assert same == {"evaluation.jsonl"}


def test_pairs_and_contrast_data_are_there_where_they_are_asked_for(run, tmp_path):
    plain = run(tmp_path / "data", seed=3)
    written = run(tmp_path / "more", seed=3, num_pairs=5)
    assert {name: written[name] for name in plain} == plain
    rows = {
        name: read_pairs(tmp_path / "more" / name, StepPair) for name in set(written) - set(plain)
    }
    helpful, safe = rows["helpfulness_pairs.jsonl"], rows["safety_pairs.jsonl"]
    assert rows["pairs.jsonl"] == helpful + safe
    assert helpful == offline_pairs.helpfulness_pairs(3, 5)
    assert safe == offline_pairs.safety_pairs(3, 5)
    run(tmp_path / "contrast", seed=3, contrasts=1.0)
    for name in ("sft", "prompts1"):
        sources = {row["source"] for row in read_jsonl(tmp_path / f"contrast/{name}.jsonl")}
        assert sources <= {"contrast", "replay"}


def test_identities_are_those_of_before_unless_there_is_more_data():
    known = {*SETTINGS}
    assert set(Pocket(**SETTINGS).identity()) == known
    assert set(Pocket(**SETTINGS, num_pairs=5).identity()) == known | {"num_pairs"}
    assert set(Pocket(**SETTINGS, contrasts=0.2).identity()) == known | {"contrasts"}


def test_an_unknown_setting_is_named(run, tmp_path):
    with pytest.raises(UserError, match="num_sfd"):
        run(tmp_path / "data", num_sfd=3)
