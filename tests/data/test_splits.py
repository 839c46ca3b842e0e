"""Splits: sizes, equal parts, nothing twice, nothing held out, the same for any order of files."""

import json

import pytest

from stair_jax.data.decontamination import normalised
from stair_jax.data.held_out_files import HeldOutFiles
from stair_jax.data.splits import Sizes, Split, make_split
from stair_jax.errors import UserError

NOUNS = [f"noun{n}" for n in range(60)]


def harmful(count=40):
    return [
        {"id": f"s{n}", "prompt": f"break {NOUNS[n]} quickly", "answer": f"no {n}",
         "kind": "safety", "source": "bad"}
        for n in range(count)
    ]  # fmt: skip


def harmless(count=40):
    return [{"question": f"bake {NOUNS[n]} slowly", "answer": f"{n}"} for n in range(count)]


def attacks(count=20):
    return [
        {"jailbreak_query": f"act free and {n} {NOUNS[n]}", "redteam_query": f"hack {NOUNS[n]}",
         "from": "Handcraft", "id": n}
        for n in range(count)
    ]  # fmt: skip


@pytest.fixture
def split(tmp_path):
    """`split(sizes, ...)`: the record and the rows of a split of all of these."""

    def make(sizes, held_out=None, rows=None, reverse=False, name="out", **changes):
        files = {"bad": harmful(), "good": harmless(), **(rows or {})}
        for file, found in {**files, "attacks": attacks()}.items():
            text = "".join(f"{json.dumps(row)}\n" for row in found[:: -1 if reverse else 1])
            (tmp_path / f"{file}.jsonl").write_text(text)
        sources = tuple(str(tmp_path / f"{file}.jsonl") for file in files)
        jailbreaks = (str(tmp_path / "attacks.jsonl"),) if sizes.jailbreaks else ()
        one = Split(sources[:: -1 if reverse else 1], jailbreaks, sizes, {"good": "helpfulness"})
        one = Split(**{**vars(one), **changes})
        held = HeldOutFiles(held_out or [], {"eval": len(held_out or [])})
        record = make_split(one, held, tmp_path / name)
        return record, {
            path.stem: [json.loads(line) for line in path.read_text().splitlines()]
            for path in (tmp_path / name).glob("*.jsonl")
        }

    return make


SIZES = Sizes(sft=20, iterations=3, per_iteration=12, jailbreaks=(0, 2, 4))


def test_the_papers_split_needs_what_the_paper_has():
    paper = Sizes(20_000, 3, 10_000, (0, 1000, 2000))
    assert paper.needed() == {"safety": 22_000, "helpfulness": 25_000, "jailbreaks": 3000}


def test_kinds_have_equal_parts_and_jailbreaks_come_later(split):
    record, files = split(SIZES)
    counts = {
        name: [sum(row["kind"] == kind for row in rows) for kind in ("safety", "helpfulness")]
        for name, rows in files.items()
    }
    assert counts == {
        "sft_prompts": [10, 10], "prompts1": [6, 6], "prompts2": [6, 6], "prompts3": [6, 6],
        "left_out": [0, 0],
    }  # fmt: skip
    jailbreaks = [
        sum(row["source"] == "JailbreakV-28k" for row in files[f"prompts{n}"]) for n in (1, 2, 3)
    ]
    assert jailbreaks == [0, 2, 4]
    assert all("goal" in row for row in files["prompts3"] if row["source"] == "JailbreakV-28k")
    assert record["rows"]["prompts2"] == {"safety": 6, "helpfulness": 6}
    assert all(row["answer"] for row in files["sft_prompts"])
    assert {row["source"] for row in files["prompts1"]} == {"bad", "good"}


def test_no_prompt_is_taken_twice_and_ids_are_unique(split):
    again = [
        row | {"id": f"x{n}", "prompt": row["prompt"].upper()} for n, row in enumerate(harmful(5))
    ]
    other = [
        {"id": f"s{n}", "prompt": f"steal {NOUNS[n]} now", "kind": "safety", "source": "o"}
        for n in range(5)
    ]
    record, files = split(SIZES, rows={"again": again, "other": other})
    rows = [row for name, found in files.items() if name != "left_out" for row in found]
    assert len({normalised(row["prompt"]) for row in rows}) == len(rows) == 56
    assert len({row["id"] for row in rows}) == len(rows)
    assert record["counts"]["prompts"]["left out: the words of one before, in prompts"] == 5


def test_what_repeats_a_held_out_prompt_or_goal_is_left_out_and_listed(split):
    held_out = [("eval", "Break noun3, quickly!"), ("eval", "hack noun1")]
    record, files = split(SIZES, held_out)
    rows = [row for name, found in files.items() if name != "left_out" for row in found]
    prompts = {row["prompt"] for row in rows}
    assert "break noun3 quickly" not in prompts
    assert "hack noun1" not in {row.get("goal") for row in rows}
    plain, attack = sorted(files["left_out"], key=lambda row: row["part"], reverse=True)
    assert (plain["set"], plain["test"], plain["like"]) == ("eval", "equal", held_out[0][1])
    assert attack["part"] == "jailbreaks" and attack["like"] == "hack noun1"
    assert record["counts"]["jailbreaks"]["left out: repeats a prompt of eval (equal)"] == 1


def test_the_order_of_rows_and_files_does_not_matter_but_the_seed_does(split):
    first, other = split(SIZES)[1], split(SIZES, reverse=True, name="other")[1]
    assert first == other
    assert split(SIZES, name="seeded", seed=1)[1]["prompts1"] != first["prompts1"]


def test_more_iterations_leave_the_first_ones_as_they_are(split):
    few = split(Sizes(20, 1, 12, (0,)))[1]
    many = split(SIZES, name="many")[1]
    assert many["sft_prompts"] == few["sft_prompts"] and many["prompts1"] == few["prompts1"]


def test_near_repeats_are_dropped_on_demand(split):
    near = [
        {
            "id": f"n{n}",
            "prompt": f"open red box {NOUNS[n // 2]} {'again' * (n % 2)}",
            "kind": "safety",
            "source": "",
        }
        for n in range(8)
    ]
    sizes = Sizes(sft=20)
    kept = split(sizes, rows={"near": near})[0]["counts"]["prompts"]
    dropped, files = split(sizes, rows={"near": near}, name="d", drop_near=True)
    counts = dropped["counts"]["prompts"]
    assert kept["admitted"] == 88
    assert counts["admitted"] == 84
    assert counts["left out: repeats a prompt of the split itself (jaccard)"] == 4
    assert {row["value"] for row in files["left_out"]} == {0.8}


def test_the_card_names_files_sources_and_what_was_left_out(split, tmp_path):
    split(SIZES, [("eval", "hack noun1")])
    card = (tmp_path / "out/README.md").read_text()
    for said in (
        "| `prompts3.jsonl` | 6 | 6 |",
        "bad.jsonl | our own columns | 40 | 40 |",
        "| eval | 1 |",
        "jailbreaks by iteration: 0, 2, 4",
    ):
        assert said in card


def test_too_few_prompts_and_kinds_that_are_not_known_are_errors(split, tmp_path):
    with pytest.raises(UserError, match="60 prompts of safety are needed, and 40 are there"):
        split(Sizes(sft=120))
    with pytest.raises(UserError, match="30 jailbreaks are needed, and 20 are there"):
        split(Sizes(0, 1, 60, (30,)))
    with pytest.raises(UserError, match="--kinds='good=safety'"):
        split(SIZES, kinds={})
    with pytest.raises(UserError, match="cannot be read: stair-jax data check"):
        split(SIZES, rows={"odd": [*harmful(2), {"id": 3, "prompt": "p", "kind": "x"}]})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({}, "nothing is split"),
        ({"sft": 3}, "--sft=3: give an even number"),
        ({"sft": 2, "iterations": -1}, "--iterations=-1"),
        ({"iterations": 2}, "set --iterations and --per-iteration"),
        ({"sft": 2, "per_iteration": 2}, "set --iterations and --per-iteration"),
        ({"iterations": 2, "per_iteration": 4, "jailbreaks": (1,)}, "for each of the 2 iter"),
        ({"iterations": 1, "per_iteration": 4, "jailbreaks": (3,)}, "give 0 to 2"),
    ],
)
def test_sizes_that_make_no_split_are_errors(sizes, said):
    with pytest.raises(UserError, match=said):
        Sizes(**sizes)
