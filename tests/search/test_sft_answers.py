"""Good answers of a tree become SFT examples."""

from dataclasses import replace

import pytest

from stair_jax.search.sft_answers import SftAnswerSettings, sft_answers
from stair_jax.search.tree_records import Node, TreeRecord
from stair_jax.text.steps import format_output, format_step

STEP = format_step("Problem", "Think.")


def tree(*answers, id="t"):
    """One step, and answers (value, text) after it; each node has ten tokens."""
    ten = tuple(range(10))
    nodes = [Node(-1, "", ten, 0, 9, 0.0), Node(0, STEP, ten, 1, 9, 2.0)]
    for value, text in answers:
        visits = 0 if value is None else 1
        nodes.append(Node(1, text, ten, 2, visits, value, reward=value, terminal=True))
    return TreeRecord(id, "why?", "safety", "s", "m", "c", tuple(nodes))


def output(text):
    return "\n\n" + format_output(text)


def test_full_answers_of_high_value_are_taken_and_the_others_counted():
    record = tree((0.8, output("a")), (0.7, output("b")), (None, output("c")), (1.0, "plain"),
                  (1.0, output("a")), (3.0, output("d")))  # fmt: skip
    rows, counts = sft_answers(record, SftAnswerSettings())
    assert [row.to_dict() for row in rows] == [
        {"schema": 1, "id": f"t:{node}", "prompt": "why?", "answer": STEP + output(text),
         "kind": "safety"}
        for node, text in ((2, "a"), (7, "d"))
    ]  # fmt: skip
    assert counts == {"answers": 2, "low_value": 1, "no_value": 1, "malformed": 1, "repeated": 1}
    plain, _ = sft_answers(record, SftAnswerSettings(answer_format="plain"))
    assert [row.answer for row in plain][1] == STEP + "plain"


def test_steps_are_no_answers_whatever_their_value():
    assert sft_answers(tree(), SftAnswerSettings()) == ([], {"answers": 0})


def test_length_counts_prompt_and_answer_where_it_is_known():
    record = tree((1.0, output("a")))
    assert sft_answers(record, SftAnswerSettings(max_tokens=30))[0]
    assert sft_answers(record, SftAnswerSettings(max_tokens=29))[1]["too_long"] == 1
    unknown = replace(record, nodes=tuple(replace(node, tokens=None) for node in record.nodes))
    assert sft_answers(unknown, SftAnswerSettings(max_tokens=1))[0]


@pytest.mark.parametrize(("limit", "kept"), [(8, 8), (0, 12), (20, 12)])
def test_at_most_so_many_of_a_prompt_by_a_fixed_choice(limit, kept):
    answers = [(1.0, output(str(number))) for number in range(12)]
    settings = SftAnswerSettings(max_per_prompt=limit)
    rows, counts = sft_answers(tree(*answers), settings)
    assert len(rows) == kept == counts["answers"] and counts["limit"] == 12 - kept
    numbers = [int(row.id.split(":")[1]) for row in rows]
    assert numbers == sorted(set(numbers))
    assert rows == sft_answers(tree(*answers), settings)[0]
    if limit == 8:
        others = sft_answers(tree(*answers, id="u"), settings)[0]
        assert [row.answer for row in others] != [row.answer for row in rows]
