"""/v1/score, /tokenize and /detokenize."""

import numpy as np
import pytest

from stair_jax.text import steps

ANSWER = steps.format_answer([("A", "b"), ("C", "d")], "e")


def test_an_answer_is_scored_step_by_step(ask_guided, guided, chat_tokenizer):
    from stair_jax.text.chat import encode_prompt

    body = {"model": "tiny", "prompt": "why?", "answer": [ANSWER, "a plain one"]}
    found = ask_guided(body, "/v1/score").json()
    first, second = found["data"]
    assert [step["text"].strip() for step in first["steps"]] == [
        steps.format_step("A", "b"),
        steps.format_step("C", "d"),
        steps.format_output("e"),
    ]
    prompt = encode_prompt(chat_tokenizer, "why?")
    whole = chat_tokenizer.encode_answer(ANSWER)
    ends = np.cumsum([step["tokens"] for step in first["steps"]])
    expected = guided._prm.score([[*prompt, *whole[:end]] for end in ends])
    np.testing.assert_allclose([step["score"] for step in first["steps"]], expected, rtol=1e-5)
    assert first["score"] == first["steps"][-1]["score"]
    assert len(second["steps"]) == 1


def test_the_last_turn_of_a_chat_is_scored_too(ask_guided):
    chat = [{"role": "user", "content": "why?"}, {"role": "assistant", "content": ANSWER}]
    by_chat = ask_guided({"model": "tiny", "messages": chat}, "/v1/score").json()
    body = {"model": "tiny", "prompt": "why?", "answer": ANSWER}
    assert by_chat["data"] == ask_guided(body, "/v1/score").json()["data"]


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": "why?"},
        {"prompt": "why?", "answer": []},
        {"prompt": "why?", "messages": [{"role": "user", "content": "a"}], "answer": "b"},
        {"messages": [{"role": "assistant", "content": "a"}], "answer": "b"},
        {"prompt": "why?", "answer": "x " * 200},
        {"prompt": "why?", "answer": "b", "n": 2},
    ],
)
def test_what_cannot_be_scored_is_refused(ask_guided, body):
    response = ask_guided({"model": "tiny", **body}, "/v1/score")
    assert response.status_code == 400 and response.json()["error"]["message"]


def test_without_a_reward_model_nothing_is_scored(ask):
    response = ask({"model": "tiny", "prompt": "a", "answer": "b"}, "/v1/score")
    assert response.status_code == 400 and "--prm" in response.json()["error"]["message"]


def test_tokens_of_a_text_and_back(ask, chat_tokenizer):
    text = "The <|Output|> of <|eot_id|> é"
    found = ask({"prompt": text, "return_token_strs": True}, "/tokenize").json()
    bos = chat_tokenizer.hf.bos_token
    assert found["count"] == len(found["tokens"]) == len(found["token_strs"])
    assert found["max_model_len"] == 128 and found["token_strs"][0] == bos
    assert chat_tokenizer.tags.output_open not in found["tokens"]
    back = ask({"tokens": found["tokens"]}, "/detokenize").json()
    assert back == {"prompt": bos + text}
    plain = ask({"prompt": text, "add_special_tokens": False}, "/tokenize").json()
    assert plain["tokens"] == found["tokens"][1:] == chat_tokenizer.encode_text(text)


def test_tokens_of_a_chat_are_those_of_its_template(ask, chat_tokenizer):
    chat = [{"role": "user", "content": "why?"}]
    found = ask({"messages": chat}, "/tokenize").json()["tokens"]
    expected = chat_tokenizer.hf.apply_chat_template(chat, add_generation_prompt=True)
    assert found == list(expected["input_ids"] if hasattr(expected, "keys") else expected)


@pytest.mark.parametrize(
    "turns",
    [[("user", " why? ")], [("system", "Be brief."), ("user", "why?")],
     [("user", "why?"), ("assistant", "<|Output|>Final")]],
)  # fmt: skip
def test_as_many_tokens_are_told_of_a_chat_as_are_read_of_it(ask, turns):
    chat = [{"role": role, "content": text} for role, text in turns]
    is_begun = turns[-1][0] == "assistant"
    found = ask({"messages": chat, "continue_final_message": is_begun}, "/tokenize").json()
    answered = ask({"model": "tiny", "messages": chat, "max_tokens": 1}).json()
    assert found["count"] == answered["usage"]["prompt_tokens"]


def test_a_chat_without_a_user_is_refused(ask):
    chat = [{"role": "system", "content": "Be brief."}]
    response = ask({"model": "tiny", "messages": chat})
    assert response.status_code == 400 and "user" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/tokenize", {}),
        ("/tokenize", {"prompt": "a", "messages": [{"role": "user", "content": "a"}]}),
        ("/tokenize", {"messages": []}),
        ("/tokenize", {"prompt": "a", "model": "other"}),
        ("/detokenize", {"tokens": [-1]}),
        ("/detokenize", {"tokens": [2**70]}),
        ("/detokenize", {"tokens": ["a"]}),
    ],
)
def test_what_cannot_be_tokenized_is_refused(ask, path, body):
    assert ask(body, path).status_code in (400, 404)
