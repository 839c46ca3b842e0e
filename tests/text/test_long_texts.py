"""All parsers of text from outside on a million characters: a quadratic one would take hours.

`soak/text.py` measures that their time is linear; here they have to end, with the right result.
"""

from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stair_jax.search.judging.replies import read_conclusion, release_safety
from stair_jax.search.judging.templates import split_template
from stair_jax.text import steps
from stair_jax.text.plain import valid_unicode

LENGTH = 2**20
HEADS = ("", "Conclusion:", "Conclusion: [5", "Conclusion: 4/", "<|Reasoning_step|>", "<|Output|>")
PIECES = ("a", " ", " \n", "\r", "\u2003", "<|Out", "[1", "*_`", "Conclusion: [5] ", "\ud800")
PIECES += ("Final Answer:", "{prompt}", "conclusion ", *steps.TAGS, steps.format_step("a", "b"))
TAILS = ("", "x", "]", "\nConclusion: [4]", steps.OUTPUT_CLOSE)
PARSERS = {
    "parse_tolerant": steps.parse_tolerant,
    "final_answer": steps.final_answer,
    "is_well_formed": steps.is_well_formed,
    "has_one_output": steps.has_one_output,
    "breaks_output": steps.breaks_output,
    "helpfulness": partial(read_conclusion, "helpfulness"),
    "safety": partial(read_conclusion, "safety"),
    "release_safety": release_safety,
    "valid_unicode": valid_unicode,
}


@settings(max_examples=12)
@given(st.sampled_from(HEADS), st.sampled_from(PIECES), st.sampled_from(TAILS))
def test_each_parser_reads_a_million_characters(head, piece, tail):
    text = head + piece * (LENGTH // len(piece)) + tail
    read = {name: parse(text) for name, parse in PARSERS.items()}
    assert not steps.TAG_PATTERN.search(read["final_answer"])
    assert read["parse_tolerant"].final == read["final_answer"]
    assert read["breaks_output"] <= (not read["has_one_output"])
    if tail == "\nConclusion: [4]":
        assert read["helpfulness"] == 0.5 and read["safety"] is None
    assert len(read["valid_unicode"]) == len(text)


@pytest.mark.parametrize("space", [" ", "\t", "\u2003", " \r"])
@pytest.mark.parametrize(
    ("before", "after", "score"),
    [
        ("Conclusion:", "[4]", 0.5),
        ("Conclusion:", "[4] [4]", None),
        ("Conclusion: [", "4]", 0.5),
        ("Conclusion: [4", "]", 0.5),
        ("Conclusion: [4]", ".", 0.5),
        ("Conclusion: 4", "x", None),
        ("Conclusion: 4 /", "5", 0.5),
        ("Conclusion", ": 4", 0.5),
        ("Conclusion", "4", None),
        ("Conclusion: [4]", "", 0.5),
        ("", "Conclusion: [4]", 0.5),
    ],
)
def test_white_space_of_any_length_does_not_change_a_verdict(before, after, score, space):
    assert read_conclusion("helpfulness", before + space * (LENGTH // 8) + after) == score


def test_a_template_of_a_million_characters_is_split():
    pieces = ("{" * LENGTH, "{prompt" * (LENGTH // 8), "}" * LENGTH)
    text = f"{pieces[0]}{{prompt}}{pieces[1]}{{answer}}{pieces[2]}"
    assert split_template("safety", text) == pieces
