"""The end of a turn, wherever a checkpoint names it; SFT closes answers as the template does."""

import json

import pytest

from stair_jax.errors import UserError
from stair_jax.text import chat, steps
from stair_jax.text.endings import stored_stop_ids, template_end
from stair_jax.text.tokenizer import Tokenizer, add_tags

TURNS = (
    "{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>{{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}ANSWER_END{% else %}<|eom_id|>{% endif %}{% endfor %}"
)


@pytest.fixture
def base(make, tmp_path):
    """A folder with the tokenizer of a Llama base model: its end is that of a text."""
    hf, _ = make("llama3_1")
    hf.eos_token = "<|end_of_text|>"
    hf.save_pretrained(tmp_path)
    return tmp_path


def ids_of(tokenizer, *names):
    return [tokenizer.hf.convert_tokens_to_ids(f"<|{name}|>") for name in names]


def test_the_template_alone_may_name_the_end_of_a_turn(base):
    tokenizer = chat.prepare_tokenizer(base)
    text, turn = ids_of(tokenizer, "end_of_text", "eot_id")
    assert (tokenizer.eos_id, tokenizer.end_id) == (text, turn)
    assert tokenizer.stop_ids == (text, turn)
    answer = steps.format_answer([("a", "b")], "c")
    assert chat.encode_answer(tokenizer, answer) == [*tokenizer.encode_answer(answer), turn]
    assert tokenizer.describe_ends() == (
        f"answers are closed with <|eot_id|> ({turn}), the chat template's end of a turn; "
        f"<|end_of_text|> ({text}) end a sampled answer too"
    )


def test_what_all_files_name_ends_an_answer_and_pads_none(base):
    text, message, turn, pad = ids_of(
        chat.prepare_tokenizer(base), "end_of_text", "eom_id", "eot_id", "finetune_right_pad_id"
    )
    (base / "config.json").write_text(json.dumps({"eos_token_id": [text, message]}))
    assert chat.prepare_tokenizer(base).stop_ids == (text, message, turn)
    (base / "generation_config.json").write_text(json.dumps({"eos_token_id": pad}))
    tokenizer = chat.prepare_tokenizer(base)
    assert tokenizer.stop_ids == (text, pad, message, turn)
    assert tokenizer.pad_id not in tokenizer.stop_ids
    tokenizer.save(base)
    assert Tokenizer.load(base).stop_ids == tokenizer.stop_ids


def test_an_id_of_config_json_that_is_a_word_ends_no_answer(base, capsys):
    tokenizer = chat.prepare_tokenizer(base)
    (base / "config.json").write_text(json.dumps({"eos_token_id": 2}))
    assert chat.prepare_tokenizer(base).stop_ids == tokenizer.stop_ids
    assert "config.json: eos_token_id 2 is no control token" in capsys.readouterr().err
    (base / "config.json").write_text(json.dumps({"eos_token_id": "</s>"}))
    with pytest.raises(UserError, match=r"config\.json: eos_token_id must be a token id or a list"):
        stored_stop_ids(base, tokenizer.hf)


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        ("<|eot_id|>", "<|eot_id|>"),
        (" \n<|eot_id|>\n", "<|eot_id|>"),
        ("<|eom_id|>", "<|eom_id|>"),  # after which a user's turn ends, too
        ("", None),
        ("### end<|eot_id|>", None),
        ("</turn>", None),
        ("<|end_header_id|>", None),  # which opens the turn
        ("{{ raise_exception('no assistant') }}", None),
        ("{{ m['content'] }}<|eot_id|>", None),
    ],
)
def test_the_end_is_what_stands_right_behind_an_assistants_turn(make, end, expected):
    hf, _ = make("llama3_1")
    hf.chat_template = TURNS.replace("ANSWER_END", end)
    add_tags(hf)
    tokenizer = Tokenizer(hf)
    token = None if expected is None else hf.convert_tokens_to_ids(expected)
    assert template_end(hf, tokenizer.chat) == token
    assert tokenizer.end_id == (tokenizer.eos_id if token is None else token)


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("llama3_1", "<|eot_id|>"),
        ("qwen2", "<|im_end|>"),
        ("qwen3", "<|im_end|>"),
        ("r1_qwen", "<\uff5cend\u2581of\u2581sentence\uff5c>"),
        ("llama2", "</s>"),
    ],
)
def test_each_family_closes_its_turns_with_the_end_that_it_is_known_for(make, name, end):
    hf, stop_ids = make(name)
    add_tags(hf, stop_ids)
    tokenizer = Tokenizer(hf, stop_ids)
    assert tokenizer.end_id == tokenizer.eos_id == hf.convert_tokens_to_ids(end)
