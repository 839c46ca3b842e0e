"""Ids, orders and lengths of texts."""

import random

import pytest

from stair_jax.data.study.catalogue import SETS
from stair_jax.data.study.judge_rows import wrong_number
from stair_jax.data.study.texts import (
    estimate_tokens,
    items,
    ordered,
    pick,
    prompt_id,
    sentences,
    token_counter,
)
from stair_jax.errors import UserError
from stair_jax.text.steps import format_answer

ALPACA = SETS["alpaca"]


def test_ids_are_of_the_words_of_a_prompt():
    assert prompt_id("set", "Open the gate!") == prompt_id("set", " open THE gate")
    assert prompt_id("set", "Open the gate") != prompt_id("set", "Open a gate")
    name, digits = prompt_id("set", "Open the gate").split(":")
    assert name == "set" and len(digits) == 12 and int(digits, 16) >= 0


def test_rows_keep_their_order_whatever_comes_before_and_between_them():
    rows = [{"instruction": f"Say {n}", "output": "x"} for n in range(40)]
    shuffled = [*rows, *({"instruction": f"Other {n}", "output": "y"} for n in range(9))]
    random.Random(3).shuffle(shuffled)
    known = {item.id for item in items(ALPACA, rows, 0)}
    found = [item.id for item in items(ALPACA, shuffled, 0) if item.id in known]
    assert found == [item.id for item in items(ALPACA, rows, 0)]
    assert found != [item.id for item in items(ALPACA, rows, 1)]


def test_of_rows_with_one_prompt_the_same_one_stays_in_any_order():
    rows = [{"instruction": "Say it", "output": text} for text in ("b", "a", "c")]
    for order in (rows, rows[::-1]):
        (item,) = items(ALPACA, order, 0)
        assert item.row["output"] == "a"


def test_an_input_is_part_of_the_prompt_where_it_is_asked_for():
    rows = [{"instruction": "Sum up", "input": f"Text {n}", "output": "x"} for n in range(2)]
    assert len(items(ALPACA, rows, 0)) == 1
    assert {item.prompt for item in items(ALPACA, rows, 0, with_input=True)} == {
        "Sum up\n\nText 0",
        "Sum up\n\nText 1",
    }


def test_a_row_without_the_column_names_those_that_it_has():
    with pytest.raises(UserError, match=r"no column 'instruction', only 'question', 'answer'"):
        items(ALPACA, [{"question": "x", "answer": "y"}], 0)


def test_orders_and_picks_are_those_of_sha256():
    assert ordered(["a", "b", "c"], str, 0) == ordered(["c", "a", "b"], str, 0)
    assert {pick("ab", "x", number) for number in range(20)} == {"a", "b"}
    assert pick("ab", "x", 5) == pick("ab", "x", 5)


def test_sentences_end_with_their_punctuation():
    assert sentences(" One.  Two? Three 1.5 four") == ["One.", "Two?", "Three 1.5 four"]


def test_the_estimate_counts_pieces_by_hand():
    # "Hello" 1, "," 1, "internationally" 15 letters 3, "2" and "0" 2, "!" 1, "\n" 1.
    assert estimate_tokens("Hello, internationally 20!", "") == 9
    answer = format_answer([("A", "b")], "c")
    # The line break behind the prompt and the first tag's are one run; "Title: A", "b", and
    # "Final Answer: c" have 3, 1 and 4; runs of line breaks and tags between them are 1 each.
    assert estimate_tokens("x", answer) == 1 + 1 + 3 + 1 + 1 + 1 + 4 + 1


def test_a_tokenizer_counts_exactly_with_one_token_for_a_tag(tmp_path, chat_tokenizer):
    chat_tokenizer.save(tmp_path)
    count = token_counter(tmp_path)
    answer = format_answer([("Title", "The sum is four.")], "4")
    wanted = len(chat_tokenizer.encode_text("2 + 2?")) + len(chat_tokenizer.encode_answer(answer))
    assert count("2 + 2?", answer) == wanted
    assert count("2 + 2?", "") == len(chat_tokenizer.encode_text("2 + 2?"))


@pytest.mark.parametrize("right", ["1", "0", "-3", "72", "10.50", "100000"])
def test_a_wrong_number_is_another_one_in_the_same_form(right):
    wrong = wrong_number(right)
    assert float(wrong) != float(right)
    assert len(wrong.partition(".")[2]) == len(right.partition(".")[2])
    assert abs(float(wrong) - float(right)) <= max(1, 0.34 * abs(float(right)))
