"""Each checkable instruction: responses that follow it, and responses that do not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stair_jax.evaluation.instructions.checks import (
    CHECKS,
    BadArguments,
    checked_arguments,
    follows,
    follows_loosely,
    uncheckable,
)
from stair_jax.evaluation.instructions.lengths import count_sentences

# id, arguments, responses that follow, responses that do not
EXAMPLES = [
    ("keywords:existence", {"keywords": ["cat", "Dog"]}, ["Dogs and CATS"], ["a cat"]),
    (
        "keywords:frequency",
        {"keyword": "ab", "frequency": 2, "relation": "at least"},
        ["ab AB", "abab ab"],
        ["ab"],
    ),
    (
        "keywords:frequency",
        {"keyword": "ab", "frequency": 2, "relation": "less than"},
        ["ab", "none"],
        ["ab ab"],
    ),
    ("keywords:forbidden_words", {"forbidden_words": ["bad"]}, ["badly"], ["So Bad!"]),
    (
        "keywords:letter_frequency",
        {"letter": "Q", "let_frequency": 2, "let_relation": "at least"},
        ["q Q"],
        ["q"],
    ),
    ("language:response_language", {"language": "ko"}, ["안녕하세요 AI"], ["Hello", "... 7"]),
    ("language:response_language", {"language": "ta"}, ["வணக்கம்"], ["ನಮಸ್ಕಾರ"]),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 2, "relation": "at least"},
        ["One. Two!", "Is it? It is"],
        ["One", "Dr. Who came at 3.5 p.m. today"],
    ),
    (
        "length_constraints:number_paragraphs",
        {"num_paragraphs": 2},
        ["a\n***\nb", "***\na\n***\nb\n***"],
        ["a", "a\n***\n\n***\nb", "a\n***\nb\n***\nc"],
    ),
    (
        "length_constraints:number_words",
        {"num_words": 3, "relation": "less than"},
        ["two words"],
        ["it's two"],
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "then"},
        ["First.\n\n**Then** it rained."],
        ["Then.\n\nFirst", "a\n\nThen\n\nb", "Then"],
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, ["[a] [b c] [d]"], ["[a]"]),
    (
        "detectable_content:postscript",
        {"postscript_marker": "P.S."},
        ["Bye\nP. S. one more", "p.s. yes"],
        ["PS yes", "Bye\nP.S.", "none"],
    ),
    (
        "detectable_content:postscript",
        {"postscript_marker": "P.P.S"},
        ["P.P.S. again"],
        ["P.S. once"],
    ),
    (
        "detectable_format:number_bullet_lists",
        {"num_bullets": 2},
        ["Two:\n* a\n - b"],
        ["* a", "* a\n* b\n- c", "**a**\n**b**"],
    ),
    ("detectable_format:constrained_response", {}, ["So: my answer is NO."], ["My answer is: no"]),
    (
        "detectable_format:number_highlighted_sections",
        {"num_highlights": 2},
        ["*a* and **b**"],
        ["*a*", "** ** * *", "*a\nb* *c*"],
    ),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "SECTION", "num_sections": 2},
        ["SECTION 1\na\nSECTION2\nb"],
        ["SECTION 1", "Section 1 Section 2"],
    ),
    (
        "detectable_format:json_format",
        {},
        ['{"a": 1}', '```json\n{"a": [1]}\n```', "```\n[]\n```"],
        ["Here: {}", "{'a': 1}", "```json\n{}"],
    ),
    ("detectable_format:title", {}, ["<<Spring>>\nIt is"], ["<Spring>", "<<>>", "<< >>"]),
    (
        "combination:two_responses",
        {},
        ["a\n******\nb", "a******b******"],
        ["a", "a******a", "a******b******c", "a************b"],
    ),
    (
        "combination:repeat_prompt",
        {"prompt_to_repeat": "Say hi."},
        ["say hi. Hi", "  Say hi.\nHi"],
        ["Hi. Say hi."],
    ),
    ("startend:end_checker", {"end_phrase": "The end."}, ['"So. THE END."'], ["The end. Bye"]),
    ("startend:quotation", {}, [' "all of it" '], ['"', 'a "quote"', '"a" b']),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "less than"},
        ["one CAPITAL Word"],
        ["I AM"],
    ),
    ("change_case:english_capital", {}, ["ALL 3 OF IT"], ["ALMOST all", "33"]),
    ("change_case:english_lowercase", {}, ["all 3 of it"], ["Almost", "33"]),
    ("punctuation:no_comma", {}, ["One; two"], ["One, two"]),
]


def test_every_check_has_an_example():
    assert {name for name, *_ in EXAMPLES} == set(CHECKS)


@pytest.mark.parametrize(("name", "arguments", "good", "bad"), EXAMPLES)
def test_responses_follow_or_do_not(name, arguments, good, bad):
    arguments = checked_arguments(name, arguments | {"of another instruction": None})
    for response in good:
        assert follows(response, name, arguments), response
        assert follows_loosely(response, name, arguments), response
    for response in bad:
        assert not follows(response, name, arguments), response


@given(st.sampled_from(EXAMPLES), st.text(max_size=60))
def test_any_response_can_be_checked_and_strict_implies_loose(example, response):
    name, arguments, *_ = example
    if follows(response, name, arguments):
        assert follows_loosely(response, name, arguments)


@pytest.mark.parametrize("text", ["A. ", "[ ", "<<", "***", "* ", "p.", "```", "\n"])
def test_long_responses_are_checked_in_a_single_pass(text):
    # That it ends is shown too: with a check that goes back for each of them, it takes hours.
    response = text * 50_000
    for name, arguments, *_ in EXAMPLES:
        checked = checked_arguments(name, arguments)
        assert follows_loosely(response, name, checked) or not follows(response, name, checked)


@pytest.mark.parametrize("name", sorted(CHECKS))
def test_an_empty_response_follows_nothing(name):
    arguments = next(arguments for other, arguments, *_ in EXAMPLES if other == name)
    assert not follows(" \n", name, arguments)


@pytest.mark.parametrize(
    ("response", "name"),
    [
        ("Sure, here it is:\nno comma here", "punctuation:no_comma"),
        ("no comma here\nHope this helps, bye", "punctuation:no_comma"),
        ("Sure, so:\nall of it\nHope, bye", "punctuation:no_comma"),
        ('**"Quoted"**', "startend:quotation"),
    ],
)
def test_loosely_the_first_and_last_line_and_asterisks_do_not_count(response, name):
    assert not follows(response, name, {})
    assert follows_loosely(response, name, {})


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("No mark", 1),
        ("One. Two? Three! Four", 4),
        ("Mr. Smith, e.g., met J. R. Ewing.", 1),
        ("It costs 3.50 dollars... Really?!", 2),
        ('He said "Go." She went.', 2),
        ("- a line\n- another", 2),
        ("1. First point.\n2. Second point.", 2),
        ("It is at No. 7.", 1),
        ("So be it, etc.", 1),
    ],
)
def test_sentences_are_counted(text, count):
    assert count_sentences(text) == count


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("punctuation:no_comma", {"much": 1}, "punctuation:no_comma takes no 'much'"),
        ("startend:end_checker", {}, "startend:end_checker needs 'end_phrase' as str"),
        ("keywords:existence", {"keywords": "cat"}, "needs 'keywords' as list"),
        (
            "length_constraints:number_words",
            {"num_words": 2.5, "relation": "at least"},
            "needs 'num_words' as int",
        ),
        (
            "length_constraints:number_words",
            {"num_words": 2, "relation": "at most"},
            "needs 'relation' as str",
        ),
    ],
)
def test_arguments_that_do_not_fit_are_refused(name, arguments, message):
    with pytest.raises(BadArguments, match=message):
        checked_arguments(name, arguments)


def test_whole_numbers_may_be_written_as_tables_do():
    found = checked_arguments("detectable_format:number_bullet_lists", {"num_bullets": 3.0})
    assert found == {"num_bullets": 3}


def test_what_cannot_be_checked_has_a_name():
    assert uncheckable("new:thing", {}) == "new:thing"
    assert uncheckable("language:response_language", {"language": "fr"}) == (
        "language:response_language (fr)"
    )
    assert uncheckable("language:response_language", {"language": "ko"}) == ""
    assert uncheckable("punctuation:no_comma", {}) == ""
