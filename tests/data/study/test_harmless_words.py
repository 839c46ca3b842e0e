"""Harmless prompts of our own wording: the reader of frames, the prompts, their share."""

import json
from collections import Counter

import pytest

from stair_jax.data.decontamination import normalised
from stair_jax.data.study import harmless_words as own
from stair_jax.data.study.needs import _FEEDS, check_not_empty
from stair_jax.data.study.sizes import FULL, SMALL
from stair_jax.data.study.sources import Choice, Sources
from stair_jax.data.study.texts import estimate_tokens, prompt_id
from stair_jax.errors import UserError
from stair_jax.storage import read_jsonl

FILES = ("prompts1", "prompts2", "prompts3")


def ours(folder, name):
    return [row for row in read_jsonl(folder / f"{name}.jsonl") if row["source"] == own.SOURCE]


def test_each_place_of_a_frame_stands_for_its_parts_in_every_combination():
    text = "# A comment {\n\nHow do I {kill|end} a {job|task}?\n  Say | it.  \n"
    assert own.read_frames(text) == [
        "How do I kill a job?",
        "How do I kill a task?",
        "How do I end a job?",
        "How do I end a task?",
        "Say | it.",
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Kill {a|b", "a brace is not closed, or is in another one"),
        ("Kill a}", "a brace is not closed, or is in another one"),
        ("Kill {a|{b|c}}", "a brace is not closed, or is in another one"),
        ("Kill {a}", "a place has two or more parts"),
        ("Kill {a| }", "and no empty one"),
        ("Kill {a|A!}", "'Kill A!' is there already"),
        ("first one.", "'first one.' is there already"),
    ],
)
def test_a_frame_with_a_mistake_is_named_by_its_line(line, message):
    with pytest.raises(UserError, match=rf"harmless_frames.txt, line 3: .*{message}"):
        own.read_frames(f"First one\n\n{line}")


def test_the_prompts_are_many_distinct_and_varied():
    prompts = [item.prompt for item in own.harmless_words(0)]
    assert len({normalised(prompt) for prompt in prompts}) == len(prompts) >= 700
    assert not any(mark in prompt for prompt in prompts for mark in "{}|\n\t")
    assert all(prompt == prompt.strip() and "  " not in prompt for prompt in prompts)
    lengths = sorted(len(prompt.split()) for prompt in prompts)
    assert lengths[0] <= 3 and lengths[-1] >= 40
    asked = sum(prompt.endswith("?") for prompt in prompts) / len(prompts)
    assert 0.5 < asked < 0.95
    openings = Counter(" ".join(prompt.split()[:2]) for prompt in prompts)
    assert len(openings) > 90 and max(openings.values()) < len(prompts) / 4


def test_frames_outnumber_what_one_of_them_gives():
    lines = own._text().splitlines()
    frames = [line for line in lines if line and not line.startswith("#")]
    assert len(frames) >= 90
    assert max(len(own.read_frames(frame)) for frame in frames) <= 9


def test_ids_and_the_order_are_hashes_of_the_words_and_the_seed():
    items, again = own.harmless_words(0), own.harmless_words(1)
    assert all(item.id == prompt_id("harmless_words", item.prompt) for item in items)
    assert sorted(items) == sorted(again) and items != again
    assert items == own.harmless_words(0)


def test_sizes_add_up_and_give_one_prompt_in_four_of_a_file_or_nearly():
    for sizes, whole in ((FULL, 800), (SMALL, 32)):
        plain = sum(sizes.harmless.values())
        assert sizes.harmful + sizes.borderline + sizes.harmless_words + plain == whole
        assert sizes.harmless_words / whole == pytest.approx(0.225, abs=0.01)
        short = [
            item
            for item in own.harmless_words(0)
            if estimate_tokens(item.prompt, "") <= sizes.prompt_tokens
        ]
        assert len(short) >= 1.25 * 3 * sizes.harmless_words


def test_each_file_of_prompts_has_its_own_share_of_them(study):
    folder, record = study
    rows = [row for name in FILES for row in ours(folder, name)]
    assert [len(ours(folder, name)) for name in FILES] == [FULL.harmless_words] * 3
    assert len({row["id"] for row in rows}) == len(rows)
    assert {row["kind"] for row in rows} == {"helpfulness"} and not any("goal" in r for r in rows)
    assert record["counts"]["prompts harmless words"] == {"taken": len(rows)}


def test_one_that_repeats_a_held_out_prompt_is_left_out_and_counted(tmp_path, write_sources, build):
    first, second, *others = (item.prompt for item in own.harmless_words(0))
    longer = next(prompt for prompt in others if len(prompt.split()) > 12)
    near = longer.replace(longer.split()[-1], "today?")
    more = {
        "oktest/OKTest.csv": [{"prompt": first.upper()}, {"prompt": near}],
        "xstest/xstest_prompts.csv": [
            {"id": "v2-90", "prompt": second, "type": "homonyms", "focus": "words"}
        ],
    }
    write_sources(tmp_path / "sources", more=more)
    record = build(tmp_path / "out", tmp_path / "sources")
    taken = {row["prompt"] for name in FILES for row in ours(tmp_path / "out", name)}
    assert not taken & {first, second, longer}
    assert record["counts"]["prompts harmless words"] == {
        "left out: used already in dev oktest": 1,
        "left out: repeats a prompt of xstest (equal)": 1,
        "left out: repeats a prompt of oktest (jaccard)": 1,
        "taken": 3 * FULL.harmless_words,
    }
    listed = read_jsonl(tmp_path / "out" / "left_out.jsonl")
    own_part = {row["prompt"] for row in listed if row["part"] == "prompts harmless words"}
    assert own_part == {second, longer}


def test_the_record_and_the_card_say_where_they_come_from(study):
    folder, _ = study
    source = json.loads((folder / "data.json").read_text())["sources"]["harmless_words"]
    assert source["role"] == "training" and source["licence"] == "Apache-2.0"
    assert source["rows"] == len(own.harmless_words(0)) and len(source["sha256"]) == 64
    card = (folder / "README.md").read_text()
    assert f"| harmless_words | training | Apache-2.0 | {source['rows']} | the package |" in card
    assert "written for the package without looking at any set" in card


def test_a_file_that_has_nothing_but_these_counts_as_empty(tmp_path):
    files = {name: [{"source": "AdvBench"}] for name in _FEEDS} | {"eval/x": [{}]}
    sources = Sources(Choice(tmp_path, remote=False))
    check_not_empty(files, sources)
    with pytest.raises(UserError, match=r"prompts2.jsonl would be empty: bring advbench/"):
        check_not_empty(files | {"prompts2": [{"source": own.SOURCE}]}, sources)
