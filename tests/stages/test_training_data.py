"""What the stages of training make of their data, up to the first step."""

import pytest

from stair_jax.errors import UserError
from stair_jax.stages import Prm, Sft
from stair_jax.storage import read_jsonl, write_jsonl
from stair_jax.training import loop

COMMON = {"max_length": 160, "microbatch_rows": 4, "batch_size": 4}


class _Stop(Exception):
    pass


@pytest.fixture
def batches_of(monkeypatch, make_stage_inputs, run_stage, tmp_path):
    """`batches_of(kind, **settings)`: what the stage gives to `train`; 8 rows, the odd safe."""
    folder = make_stage_inputs(tmp_path, 8)
    for name in ("sft", "prm"):
        path = folder / "data" / f"{name}.jsonl"
        rows = read_jsonl(path)
        write_jsonl(path, [r | {"kind": ("helpfulness", "safety")[int(r["id"]) % 2]} for r in rows])

    def batches_of(kind, field, **settings):
        def train(run, *arguments, **options):
            found.append(run.batches)
            raise _Stop

        found = []
        monkeypatch.setattr(loop, "train", train)
        inputs = {"model": folder / "model", field: folder / "data"}
        values = {**COMMON, "reader": "datasets", **settings}
        with pytest.raises(_Stop):
            run_stage(kind, values, tmp_path / "x", inputs, seed=3)
        return found[0]

    return batches_of


def test_prm_pairs_are_mixed_at_rates(batches_of):
    settings = {"rates": {"safety": 1.0}, "epochs": 1.5, "held_out": 0.0}
    batches = batches_of(Prm, "preferences", **settings)
    ids = [name for batch in batches for name in batch.ids]
    assert len(ids) == 12 and {int(name) % 2 for name in ids} == {1}
    assert sorted(ids[:4]) == sorted(ids[4:8]) == ["1", "3", "5", "7"]  # whole passes
    with pytest.raises(UserError, match="unknown kind 'rude'"):
        Prm(rates={"rude": 1})


def test_prm_pairs_come_in_whole_passes_without_rates(batches_of):
    batches = batches_of(Prm, "preferences", epochs=2.0, held_out=0.0)
    ids = [name for batch in batches for name in batch.ids]
    assert sorted(ids[:8]) == sorted(ids[8:]) == [str(i) for i in range(8)]
    assert [batches.state(step)["epoch"] for step in (0, 1, 2, 4)] == [0, 0, 1, 2]


def test_sft_says_how_full_its_rows_are_and_truncates(batches_of, capsys):
    whole = batches_of(Sft, "data")
    lengths = [len(group.examples[0]) for group in whole._groups]
    padding = 1 - sum(lengths) / (24 * 160)  # 6 batches of one micro-batch of 4 rows
    shown = f"x: {sum(lengths):,} tokens in 24 rows of 160, {padding:.1%} padding"
    assert shown in capsys.readouterr().err
    cut = min(lengths) - 3
    short = batches_of(Sft, "data", max_length=cut, overlong="truncate")
    assert "24 of 24 examples above max_length, truncated" in capsys.readouterr().err
    first, other = whole[0].arrays["micro"], short[0].arrays["micro"]
    assert whole[0].ids == short[0].ids
    assert other["weights"].sum() < first["weights"].sum()
    with pytest.raises(UserError, match="there are no training examples"):
        batches_of(Sft, "data", max_length=cut)


def test_sft_refuses_a_second_output_block_in_any_format(make_stage_inputs, run_stage, tmp_path):
    folder = make_stage_inputs(tmp_path, 3)
    path = folder / "data" / "sft.jsonl"
    rows = read_jsonl(path)
    rows[1]["answer"] = "<|Output|>harm<|/Output|><|Output|>Final Answer: no<|/Output|>"
    write_jsonl(path, rows)
    inputs = {"model": folder / "model", "data": folder / "data"}
    settings = {**COMMON, "reader": "datasets", "answer_format": "plain"}
    with pytest.raises(UserError, match="line 2: the answer must end with its only output block"):
        run_stage(Sft, settings, tmp_path / "x", inputs)
