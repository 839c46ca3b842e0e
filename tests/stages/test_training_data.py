"""What the stages of training make of their data, up to the first step."""

import pytest

from stair_jax.errors import UserError
from stair_jax.stages import Dpo, Prm, Sft
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


def test_sft_mixes_the_sources_of_several_files_and_stages(batches_of, tmp_path, capsys):
    rows = read_jsonl(tmp_path / "data" / "sft.jsonl")
    contrast = [row | {"source": "contrast"} for row in rows[:2]]
    write_jsonl(tmp_path / "data" / "sft_contrast.jsonl", contrast)
    two = {"file": ("sft.jsonl", "sft_contrast.jsonl")}
    ids = [name for batch in batches_of(Sft, "data", epochs=1.0, **two) for name in batch.ids]
    both = [f"data/sft:{i}" for i in range(8)] + [f"data/sft_contrast:{i}" for i in range(2)]
    assert sorted(ids) == both  # one file's ids are not another's
    assert "x: 2 examples in" in capsys.readouterr().err
    rates = {"rates": {"contrast": 3, "sft": 1}, "rates_by": "source"}
    batches = batches_of(Sft, "data", epochs=20.0, **two, **rates)
    ids = [name for batch in batches for name in batch.ids]
    assert sum("contrast" in name for name in ids) / 200 == pytest.approx(0.75, abs=0.12)
    one = {"rates": {"data": 1}, "rates_by": "source"}  # rows without a source are of their stage
    assert len(batches_of(Sft, "data", epochs=1.0, **one)) == 2
    with pytest.raises(UserError, match="rates_by is 'source', and there are no rates"):
        Sft(rates_by="source")
    assert "rates_by" not in Sft().identity() and Sft().identity()["file"] == "sft.jsonl"


@pytest.mark.parametrize("overlong", ["drop", "truncate"])
def test_sft_examples_without_a_token_of_an_answer_are_dropped_and_counted(
    batches_of, tmp_path, capsys, overlong
):
    path = tmp_path / "data" / "sft.jsonl"
    rows = read_jsonl(path)
    rows[1]["answer"] = ""
    rows[2]["prompt"] *= 60  # the prompt alone fills the row
    write_jsonl(path, rows)
    settings = {"overlong": overlong, "answer_format": "plain", "epochs": 2.0}
    batches = batches_of(Sft, "data", **settings)
    ids = [name for batch in batches for name in batch.ids]
    assert sorted(ids[:6]) == sorted(ids[6:]) == ["0", "3", "4", "5", "6", "7"]
    left = 2 if overlong == "drop" else 4  # in two epochs; the long one is told as too long
    assert f"x: {left} of 16 examples without an answer, dropped" in capsys.readouterr().err
    write_jsonl(path, rows[1:3])
    with pytest.raises(UserError, match="there are no training examples: of 4, 2 are above max_"):
        batches_of(Sft, "data", **settings)


def test_pairs_without_weight_are_dropped_and_ids_of_no_token_refused(batches_of, tmp_path, capsys):
    path = tmp_path / "data" / "dpo.jsonl"
    rows = read_jsonl(path)
    rows[0]["rejected"], rows[1]["chosen"] = "", rows[1]["rejected"]
    write_jsonl(path, rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stair_jax.stages.dpo._reference", lambda *args: [(0.0, 0.0)] * 6)
        batches = batches_of(Dpo, "preferences")
        ids = [name for batch in batches for name in batch.ids]
        assert sorted(ids) == ["2", "3", "4", "5", "6", "7"]
        shown = "x: 6 pairs, 1 with an empty side, 1 with both sides alike left out"
        assert shown in capsys.readouterr().err
        write_jsonl(path, rows[:2])
        with pytest.raises(UserError, match=r"none to train on .*1 with an empty side"):
            batches_of(Dpo, "preferences")
    write_jsonl(path, [*rows[2:4], rows[4] | {"chosen_tokens": [3, 10**6]}])
    with pytest.raises(
        UserError, match=r"dpo\.jsonl, line 3: chosen_tokens has the token id 1000000"
    ):
        batches_of(Dpo, "preferences")
    path = tmp_path / "data" / "prm.jsonl"
    write_jsonl(path, [read_jsonl(path)[0] | {"rejected_tokens": [10**6]}])
    with pytest.raises(UserError, match=r"prm\.jsonl, line 1: rejected_tokens has the token id"):
        batches_of(Prm, "preferences")


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
