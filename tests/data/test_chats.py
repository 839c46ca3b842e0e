"""Rows with a system turn and earlier turns: read, encoded, searched, and made into pairs."""

import copy
import json
from dataclasses import replace

import pytest

from stair_jax.data.examples import answer_example, encode_row
from stair_jax.data.pairs import path_examples, step_examples
from stair_jax.data.records import PathPair, Prompt, SftRow, StepPair, write_rows
from stair_jax.data.schema import ReadingOptions
from stair_jax.data.schemas import convert
from stair_jax.data.shuffling import prompt_of
from stair_jax.data.text_files import as_rows
from stair_jax.errors import UserError
from stair_jax.search.preference_pairs import (
    PrmPairSettings,
    StepPairSettings,
    prm_pairs,
    sibling_pairs,
)
from stair_jax.search.prompt_queue import PromptQueue
from stair_jax.search.sft_answers import SftAnswerSettings, sft_answers
from stair_jax.search.tree_records import Node, TreeRecord, write_trees
from stair_jax.stages import ExportData
from stair_jax.storage import read_json, read_jsonl
from stair_jax.text.chat import encode_prompt
from stair_jax.text.conversations import encode_chat
from stair_jax.text.steps import format_answer, format_output
from stair_jax.text.tokenizer import Tokenizer

ANSWER = format_answer([("Look", "It is a list.")], "three")
HISTORY = ({"role": "user", "content": " one? "}, {"role": "assistant", "content": ANSWER})
CHAT = {"system": " Be brief. ", "history": HISTORY}
PROMPT = Prompt("a", " two? ", "safety", "mine", **CHAT)


def turns(*texts, roles=("user", "assistant")):
    pairs = zip(roles * len(texts), texts, strict=False)
    return [{"role": role, "content": text} for role, text in pairs]


def made(rows, use, keep=("turns",)):
    """(records, reasons why others are left out, reasons why others cannot be read)."""
    found = convert(as_rows(rows), use, ReadingOptions({"*": "safety"}, keep), "mine.json")
    reasons = [dropped.reason for dropped in found.dropped]
    return [record for _, record in found.rows], reasons, [bad.reason for bad in found.unreadable]


def test_a_chat_is_encoded_with_all_of_its_turns(chat_tokenizer):
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "one?"},
        {"role": "assistant", "content": ANSWER},
        {"role": "user", "content": "two?"},
    ]
    expected = encode_chat(chat_tokenizer, messages)
    assert encode_row(chat_tokenizer, PROMPT) == expected
    alone = replace(PROMPT, system="", history=())
    assert encode_row(chat_tokenizer, alone) == encode_prompt(chat_tokenizer, " two? ")
    example = answer_example(chat_tokenizer, SftRow("a", "two?", ANSWER, "safety", **CHAT))
    assert list(example.tokens[: len(expected)]) == expected
    step = StepPair("p", "two?", (), ANSWER, format_output("no"), **CHAT)
    path = PathPair("p", "two?", (ANSWER,), (format_output("no"),), **CHAT)
    for side in (*step_examples(chat_tokenizer, step), *path_examples(chat_tokenizer, path)):
        assert list(side.tokens[: len(expected)]) == expected
    assert prompt_of(step) != prompt_of(replace(step, history=None)) != prompt_of(path)


def test_a_judge_reads_the_whole_chat_with_final_answers_alone():
    assert PROMPT.conversation == (
        "System:  Be brief. \n\nUser:  one? \n\nAssistant: three\n\nUser:  two? "
    )
    assert replace(PROMPT, system=None, history=None).conversation == " two? "


def test_a_search_passes_over_a_chat_that_the_template_refuses(chat_tokenizer):
    hf = copy.deepcopy(chat_tokenizer.hf)
    hf.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'system' %}"
        "{{ raise_exception('no system') }}{% endif %}{{ m['content'] }}<|eot_id|>{% endfor %}"
    )
    tokenizer = Tokenizer(hf)
    plain = Prompt("b", "three?", "safety")
    queue = PromptQueue([PROMPT, plain], tokenizer, 100, ())
    assert queue.take().prompt == plain and queue.next is None
    ((name, reason),) = queue.skipped
    assert name == "a" and "the chat of the row 'a'" in reason and "leave that out" in reason
    with pytest.raises(UserError, match="the chat of the row 'a'"):
        encode_row(tokenizer, PROMPT)


def test_a_tree_hands_its_chat_to_its_pairs_and_examples():
    nodes = (
        Node(-1, "", (1, 2), 0, 10, 0.0),
        Node(0, ANSWER, (3,), 1, 5, 1.0, reward=1.0, terminal=True),
        Node(0, "<no>", (4,), 1, 5, -1.0, reward=-1.0, terminal=True),
    )
    tree = TreeRecord("t", "two?", "safety", "s", "m", "c", nodes, **CHAT)
    assert TreeRecord.from_dict(json.loads(json.dumps(tree.to_dict()))) == tree
    plain = replace(tree, system=None, history=None)
    assert not {"system", "history"} & plain.to_dict().keys()
    made_of = [
        *sibling_pairs(tree, StepPairSettings())[0],
        *prm_pairs(tree, PrmPairSettings())[0],
        *sft_answers(tree, SftAnswerSettings())[0],
    ]
    assert len({type(row) for row in made_of}) == 3
    for row in made_of:
        assert (row.system, row.history) == (CHAT["system"], HISTORY)
        assert type(row).from_dict(json.loads(json.dumps(row.to_dict())), "x") == row


def test_chats_are_kept_where_the_user_says_so():
    rows = [
        {"messages": turns("a", "b", "c", "d")},
        {"messages": [{"role": "system", "content": "s"}, *turns("e", "f")]},
        {"messages": turns("g", "h", "i")},
        {"messages": turns("j", "k", roles=("user", "user"))},
        {"messages": turns("l", "m", "n", roles=("user", "assistant", "assistant"))},
        {"messages": turns("o", "p")},
    ]
    several, missing = "it has more than one turn", "a turn is missing"
    not_alternating = "its turns do not alternate"
    prompts, reasons, _ = made(rows, "prompts")
    before = tuple(turns("a", "b"))
    assert [(row.prompt, row.system, row.history) for row in prompts] == [
        ("c", None, before),
        ("e", "s", None),
        ("i", None, tuple(turns("g", "h"))),
        ("o", None, None),
    ]
    assert reasons == [not_alternating, missing]
    examples, reasons, _ = made(rows, "sft")
    assert [(row.prompt, row.answer, row.history) for row in examples] == [
        ("c", "d", before),
        ("e", "f", None),
        ("o", "p", None),
    ]
    assert reasons == [missing, not_alternating, missing]
    assert made(rows, "prompts", ())[1] == [several, "it has a system turn", *[several] * 3]
    assert made([{"messages": turns("a")}], "sft")[1] == [missing]
    alone = made(rows[1:2], "prompts", ("turns", "system"))[0]
    assert [(row.prompt, row.system) for row in alone] == [("e", None)]


def test_turns_in_columns_of_their_own_are_kept_too():
    alpaca = {"instruction": "c", "output": "d", "history": [["a", "b"]], "system": "s"}
    (row,), _, _ = made([alpaca], "sft")
    assert (row.prompt, row.answer, row.system) == ("c", "d", "s")
    assert row.history == tuple(turns("a", "b"))
    (row,), _, _ = made([{"question": "q", "answer": "4", "system_prompt": "s"}], "prompts")
    assert (row.system, row.history, row.reference) == ("s", None, "4")
    (row,), _, _ = made([{"conversations": turns("a", "b", "c"), "system": "s"}], "prompts")
    assert (row.prompt, row.system, row.history) == ("c", "s", tuple(turns("a", "b")))
    for history in (turns("a", "b"), [["a"]], "ab", [["a", None]]):
        assert made([alpaca | {"history": history}], "sft")[2] == [
            "not as rows of Alpaca are: its history is no list of [question, answer]"
        ]
    pair = {"prompt": "q", "chosen": "a", "rejected": "b", "system": "s"}
    assert made([pair], "dpo")[1] == ["it has a system turn"]


def test_the_ids_of_rows_without_such_turns_are_what_they_were():
    """They are hashes of what a row says: a column that it lacks is no part of them."""
    row = {"messages": turns("a", "b")}
    (one,), (other,) = made([row], "prompts", ())[0], made([row], "prompts")[0]
    assert one == other and one.id == "messages:989e0c6e60b2945d"
    (chat,), _, _ = made([{"messages": turns("x", "y", "a", "b")}], "prompts")
    assert chat.id != one.id and chat.prompt == one.prompt


@pytest.mark.parametrize(
    "history",
    ["a", {"role": "user"}, [["a", "b"]], turns("a", roles=("system",)), [{"role": "user"}]],
)
def test_a_history_of_another_form_is_refused_by_line_and_column(history):
    row = {"id": "a", "prompt": "b", "kind": "safety", "source": "", "history": history}
    with pytest.raises(UserError, match=r"x\.jsonl, line 2: the column 'history' must be a list"):
        Prompt.from_dict(row, "x.jsonl, line 2")


def test_the_files_of_the_released_code_have_no_chats(run_stage, tmp_path, capsys):
    root = Node(-1, "", (1, 2), 0, 10, 0.0)
    trees = [TreeRecord(name, "two?", "safety", "s", "m", "c", (root,)) for name in "ab"]
    pairs = [StepPair(name, "two?", (), "x", "y") for name in "ab"]
    (tmp_path / "in").mkdir()
    write_trees(tmp_path / "in/trees.jsonl.gz", [replace(trees[0], **CHAT), trees[1]])
    write_rows(tmp_path / "in/dpo.jsonl", [replace(pairs[0], **CHAT), pairs[1]])
    sources = {"trees": tmp_path / "in", "preferences": tmp_path / "in"}
    settings = {name: "in" for name in sources}
    folder = run_stage(ExportData, settings, tmp_path / "out", sources)
    assert [row["id"] for row in read_json(folder / "prompts.json")] == ["b"]
    assert len(read_json(folder / "mct_data.json")) == 1
    assert len(read_jsonl(folder / "actor_data.jsonl")) == 1
    said = capsys.readouterr().err
    assert "1 trees of chats or with a start left out" in said
    assert "1 pairs of chats or with a start left out" in said
