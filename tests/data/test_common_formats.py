"""Pairs, chat messages, Alpaca, questions with answers, and the pairs of the paper's code."""

import pytest

from stair_jax.data.records import Prompt, SftRow, StepPair
from stair_jax.data.schema import ReadingOptions
from stair_jax.data.schemas import convert
from stair_jax.data.text_files import as_rows
from stair_jax.text.steps import format_output, format_step

A, B = format_step("Think", "a"), "\n\n" + format_step("More", "b")
OUTPUT, OTHER = "\n\n" + format_output("no"), "\n\n" + format_output("yes")
HELPFUL = {"*": "helpfulness"}


def read(rows, use, kinds=HELPFUL, keep=()):
    """(format, [(prompt, ...) of each record], reasons of the rows that are left out)."""
    found = convert(as_rows(rows), use, ReadingOptions(kinds, keep), "mine.json", "mine")
    assert not found.unreadable
    values = []
    for _, record in found.rows:
        if isinstance(record, SftRow):
            values.append((record.prompt, record.answer))
        elif isinstance(record, StepPair):
            values.append((record.prompt, record.chosen, record.rejected))
        elif isinstance(record, Prompt):
            values.append((record.prompt, record.reference))
    return found.name, values, [reason for _, reason in found.dropped]


def chat(*texts, names=("user", "assistant"), keys=("role", "content")):
    roles = names * len(texts)
    return [dict(zip(keys, pair, strict=True)) for pair in zip(roles, texts, strict=False)]


def sharegpt(*texts):
    return chat(*texts, names=("human", "gpt"), keys=("from", "value"))


def test_pairs_as_text_need_no_kind_and_are_checked_by_their_scores():
    row = {"prompt": "q", "chosen": "a", "rejected": "b"}
    assert read([row], "dpo", {}) == ("prompt-pairs", [("q", "a", "b")], [])
    scored = [
        row | {"chosen_score": 1, "rejected_score": 2.0},
        row | {"score_chosen": 2, "score_rejected": "2"},
        row | {"chosen-rating": 1.0, "rejected-rating": 3.0},
        row | {"metadata": {"score_chosen": 4.0, "score_rejected": 9.0}},
        row | {"chosen_score": float("nan"), "rejected_score": 2.0},
    ]
    lower, tie = "its scores contradict each other", "both answers have the same score"
    _, values, reasons = read([*scored, row | {"rejected": "a"}], "dpo")
    assert values == [("q", "a", "b")]
    assert reasons == [lower, tie, lower, lower, "both answers alike"]
    assert read(scored[1:2], "dpo", keep=("ties",))[1] == [("q", "a", "b")]
    assert read([row], "sft")[1] == [("q", "a")]
    assert read([row], "prompts")[1] == [("q", None)]


def test_pairs_of_steps_are_no_examples_of_whole_answers():
    whole = {"prompt": "q", "path": [], "chosen": A + OUTPUT, "rejected": OTHER}
    _, values, reasons = read([whole, whole | {"path": [A], "chosen": OUTPUT}], "sft")
    assert values == [("q", A + OUTPUT)]
    assert reasons == ["a step behind others is no whole answer"]


def test_pairs_as_messages():
    row = {
        "prompt": chat("q"),
        "chosen": chat("a", names=("assistant",)),
        "rejected": chat("q", "b"),
    }
    assert read([row], "dpo") == ("prompt-pairs", [("q", "a", "b")], [])
    row = {"conversations": sharegpt("q"), "chosen": sharegpt("q", "a")[1], "rejected": "b"}
    assert read([row], "dpo") == ("conversations-pairs", [("q", "a", "b")], [])
    row = {"instruction": "q", "input": "x", "chosen": "a", "rejected": "b"}
    assert read([row], "dpo") == ("Alpaca-pairs", [("q\n\nx", "a", "b")], [])


def test_a_conversation_about_another_prompt_is_left_out():
    row = {"prompt": "q", "chosen": chat(" q", "a"), "rejected": chat("r", "b")}
    reason = "its conversation begins with another prompt"
    assert read([row], "dpo")[1:] == ([], [reason])
    assert read([row], "sft")[1:] == ([("q", "a")], [])


@pytest.mark.parametrize(("column", "make"), [("messages", chat), ("conversations", sharegpt)])
def test_conversations_of_one_turn_are_taken_and_others_are_left_out_with_the_reason(column, make):
    rows = [
        make("q", "a"),
        make("q", "a", "r", "b"),
        make("q"),
        [],
        [*chat("be brief", names=("system",)), *chat("x", "y")],
        [*chat("q2"), *chat("f", names=("tool",)), *chat("a", names=("assistant",))],
        [*chat("q3"), {"role": "assistant", "content": None}],
        [*chat("q4"), {"role": "assistant", "content": "", "tool_calls": [{"id": 1}]}],
    ]
    name, values, reasons = read([{column: row} for row in rows], "sft")
    assert name == column and values == [("q", "a")]
    assert reasons == [
        "it has more than one turn",
        "a turn is missing",
        "a turn is missing",
        "it has a system turn",
        "it has a turn of 'tool'",
        "a turn is not text alone",
        "it calls a tool",
    ]
    assert read([{column: rows[4]}], "sft", keep=("system",))[1] == [("x", "y")]
    assert read([{column: rows[2]}], "prompts")[1] == [("q", None)]


def test_messages_may_be_in_parts_of_text():
    parts = [{"type": "text", "text": "q"}, {"type": "text", "text": "!"}]
    image = [{"type": "image_url", "image_url": "x"}]
    rows = [{"messages": [{"role": "user", "content": content}]} for content in (parts, image)]
    assert read(rows, "prompts")[1:] == ([("q!", None)], ["a turn is not text alone"])


def test_alpaca():
    rows = [
        {"instruction": "Add.", "input": "2 2", "output": "4"},
        {"instruction": "Hi", "input": None, "output": "Ho", "history": []},
        {"instruction": "Hi", "input": "", "output": "He", "history": [["a", "b"]]},
        {"instruction": "Hi", "output": "Ha", "system": "Be brief."},
    ]
    name, values, reasons = read(rows, "sft")
    assert name == "Alpaca" and values == [("Add.\n\n2 2", "4"), ("Hi", "Ho")]
    assert reasons == ["it has more than one turn", "it has a system turn"]


def test_questions_with_answers():
    row = {"question": "2 + 2?", "answer": "It is\n#### 4"}
    assert read([row], "sft") == ("question-answer", [("2 + 2?", row["answer"])], [])
    assert read([row], "prompts")[1] == [("2 + 2?", row["answer"])]
    row = {"prompt": "q", "response": "a", "data_type": "x"}
    assert read([row], "sft") == ("prompt-response", [("q", "a")], [])


@pytest.mark.parametrize(
    ("row", "use"),
    [
        ({"question": "q", "response": "a", "system_prompt": "Be brief."}, "sft"),
        ({"prompt": "q", "chosen": "a", "rejected": "b", "system": "Be brief."}, "dpo"),
        ({"conversations": sharegpt("q", "a"), "system": "Be brief."}, "prompts"),
        ({"question": "q", "answer": "a", "system": "Be brief."}, "prompts"),
    ],
)
def test_a_system_turn_in_a_column_of_its_own_is_not_dropped_in_silence(row, use):
    assert read([row], use)[1:] == ([], ["it has a system turn"])
    assert len(read([row], use, keep=("system",))[1]) == 1


def actor(chosen, rejected, ends=True):
    return {
        "prompt": "q",
        "chosen": chosen,
        "rejected": rejected,
        "chosen_score": 1.5,
        "rejected_score": -0.5,
        "chosen_is_terminal": ends,
        "rejected_is_terminal": False,
        "chosen_visited_times": 9,
        "rejected_visited_times": 4,
    }


@pytest.mark.parametrize(
    ("chosen", "rejected", "path", "steps"),
    [
        (A + B, A + OUTPUT, (A,), (B, OUTPUT)),
        (A, B, (), (A, B)),
        (A + B + OUTPUT, A + B + OTHER, (A, B), (OUTPUT, OTHER)),
        (A + OUTPUT, A + B + OTHER, (A,), (OUTPUT, B + OTHER)),
        (A, A + B, (), (A, A + B)),
    ],
)
def test_pairs_of_the_released_code_become_path_and_steps(chosen, rejected, path, steps):
    row = actor(chosen, rejected)
    found = convert(as_rows([row]), "dpo", ReadingOptions({}), "actor_data.jsonl")
    ((_, pair),) = found.rows
    assert found.name == "STAIR-pairs" and pair.kind is None
    assert (pair.path, (pair.chosen, pair.rejected)) == (path, steps)
    assert "".join((*pair.path, pair.chosen)) == chosen
    assert "".join((*pair.path, pair.rejected)) == rejected
    assert (pair.chosen_value, pair.rejected_value) == (1.5, -0.5)
    assert (pair.chosen_visits, pair.rejected_visits) == (9, 4)
    assert pair.depth == chosen.count("<|/Reasoning_step|>") + chosen.endswith("<|/Output|>")


def test_whole_answers_of_the_released_code_are_examples():
    rows = [actor(A + OUTPUT, A + OTHER), actor(A, A + B, ends=False)]
    reason = "the answer is not finished"
    assert read(rows, "sft") == ("STAIR-pairs", [("q", A + OUTPUT)], [reason])
    leaves = [{k: v for k, v in row.items() if not k.startswith("rejected")} for row in rows]
    assert read(leaves, "sft") == ("STAIR-leaves", [("q", A + OUTPUT)], [reason])
