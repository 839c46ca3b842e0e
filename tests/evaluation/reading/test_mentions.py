"""Items of information in answers: names, dates, amounts, phrases."""

import pytest

from stair_jax.evaluation.reading.mentions import mentions, mentions_name


@pytest.mark.parametrize(
    "text", ["August 15th", "by Aug. 15, please", "15 august", "the 15th of August"]
)
def test_a_date_is_mentioned_in_either_order(text):
    assert mentions(text, "August 15th")


@pytest.mark.parametrize("text", ["August", "August 16th", "15", "August 150", "September 15th"])
def test_another_date_is_no_mention(text):
    assert not mentions(text, "August 15th")


@pytest.mark.parametrize(
    "text", ["$10K left", "10,000 dollars", "10 k", "ten: 10000.", "10 thousand"]
)
def test_thousands_are_mentioned_in_any_writing(text):
    assert mentions(text, "10K")


@pytest.mark.parametrize("text", ["110K", "10", "10,000,000", "100000", "10 kilometres", "1.10K"])
def test_another_amount_is_no_mention(text):
    assert not mentions(text, "10K")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Kate is moving to Vista.", True),
        ("In VISTA, where she moves", True),
        ("We move on. VISTA is a firm.", False),
        ("She moves.", False),
        ("They removed VISTA", False),
    ],
)
def test_a_phrase_is_mentioned_by_a_sentence_with_all_its_words(text, found):
    assert mentions(text, "move to VISTA") == found


@pytest.mark.parametrize(
    ("text", "found"), [("Ask Will.", True), ("Will's", True), ("I will", False), ("Willy", False)]
)
def test_names_are_whole_words_in_their_own_case(text, found):
    assert mentions_name(text, "Will") == found
