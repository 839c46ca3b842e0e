"""Files of prompts and chats for `stair-jax answer`."""

import json

import pytest

from stair_jax.data.questions import make_question, read_questions
from stair_jax.errors import UserError
from stair_jax.storage import write_jsonl

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "2 + 2?"},
    {"role": "assistant", "content": "4"},
    {"role": "user", "content": "And 3 more?"},
]


def user(text):
    return {"role": "user", "content": text}


@pytest.fixture
def read(tmp_path):
    """`read(*rows)`: what a file of these rows asks."""

    def read(*rows, system=None):
        path = tmp_path / "rows.jsonl"
        write_jsonl(path, rows)
        return read_questions(path, system)

    return read


@pytest.mark.parametrize(
    ("row", "messages"),
    [
        ({"id": "a", "prompt": " Hi?\n", "kind": "safety"}, [user("Hi?")]),
        ({"question": "Hi?", "answer": "Ho"}, [user("Hi?")]),
        ({"instruction": "Add", "input": "1, 2", "output": "3"}, [user("Add\n\n1, 2")]),
        ({"messages": CHAT}, CHAT),
        ({"messages": [*CHAT, {"role": "assistant", "content": "7"}]}, CHAT),
        ({"prompt": [user("Hi?")], "chosen": [], "rejected": []}, [user("Hi?")]),
        ({"conversations": [{"from": "human", "value": "Hi?"}, {"from": "gpt", "value": "Ho"}]},
         [user("Hi?")]),
        ({"prompt": "Hi?", "system": "Be brief."}, [CHAT[0], user("Hi?")]),
        ({"messages": [user([{"type": "text", "text": "Hi?"}])]}, [user("Hi?")]),
    ],
)  # fmt: skip
def test_rows_of_many_forms_are_chats(read, row, messages):
    (question,) = read(row)
    assert list(question.messages) == messages


def test_text_files_have_a_prompt_a_line(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\n\n  two\xe2\x80\xa8lines \n")
    assert [question.text for question in read_questions(path)] == ["one", "two\u2028lines"]
    path.write_bytes(b"good\nb\xffd\n")
    with pytest.raises(UserError, match="line 2 is not UTF-8"):
        read_questions(path)


def test_ids_are_those_of_the_rows_or_stay_the_same_for_the_same_text(read):
    named, *others = read(
        {"id": 7, "prompt": "a"}, {"prompt": "b"}, {"prompt": "c"}, {"prompt": "b"}
    )
    assert named.id == "7"
    assert others[0].id == make_question("b").id == others[2].id.removesuffix("-2")
    assert len({question.id for question in others}) == 3


def test_a_system_turn_is_added_where_there_is_none(read):
    chat, single = read({"messages": CHAT}, {"prompt": "Hi?"}, system="Be kind.")
    assert chat.messages[0]["content"] == "Be brief."
    assert single.messages[0] == {"role": "system", "content": "Be kind."}
    assert make_question("Hi?", system="Be kind.").id == single.id != make_question("Hi?").id


def test_a_judge_reads_a_chat_as_one_text(read):
    (chat,) = read({"messages": CHAT, "kind": "safety"})
    prompt = chat.to_prompt()
    assert prompt.kind == "safety"
    assert prompt.prompt == "User: 2 + 2?\n\nAssistant: 4\n\nUser: And 3 more?"
    assert make_question("Hi?").to_prompt().prompt == "Hi?"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"text": "x"}, r"line 1: it has no prompt \(its columns are text\)"),
        ({"prompt": " "}, "has no prompt"),
        ({"messages": []}, "no message of the user at its end"),
        ({"messages": [CHAT[1], CHAT[0]]}, "no message of the user at its end"),
        ({"messages": [CHAT[1], CHAT[0], CHAT[3]]}, "a system message must be the first one"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "a message of 'tool': known are system"),
        ({"messages": [{"role": "user"}]}, "the text of a message is missing"),
        ({"messages": ["x"]}, "a message must be"),
        ({"id": [1], "prompt": "x"}, "the column 'id' must be text"),
    ],
)
def test_rows_that_ask_nothing_are_named(read, row, said):
    with pytest.raises(UserError, match=said):
        read(row)


def test_files_that_cannot_be_read(read, tmp_path):
    with pytest.raises(UserError, match="line 2: id 'a' is already used in line 1"):
        read({"id": "a", "prompt": "x"}, {"id": "a", "prompt": "y"})
    with pytest.raises(UserError, match="there is no file"):
        read_questions(tmp_path / "gone.jsonl")
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(UserError, match="is empty"):
        read_questions(tmp_path / "empty.txt")
    (tmp_path / "bad.jsonl").write_text(json.dumps({"prompt": "x"}) + "\n{")
    with pytest.raises(UserError, match=r"bad\.jsonl, line 2"):
        read_questions(tmp_path / "bad.jsonl")
