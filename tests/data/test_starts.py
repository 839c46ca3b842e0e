"""Rows whose answer is made to begin with given steps: no loss is on these."""

from dataclasses import replace

import pytest

from stair_jax.data.examples import answer_example
from stair_jax.data.packing import COUNTED, SFT_ALONE
from stair_jax.data.pairs import path_examples, step_examples
from stair_jax.data.records import PathPair, Prompt, SftRow, StepPair
from stair_jax.errors import UserError
from stair_jax.text.chat import encode_prompt
from stair_jax.text.steps import REASONING_CLOSE, REASONING_OPEN, format_output, format_step

START = format_step("Plan", "Go along.")
OPEN = f"{REASONING_OPEN}Title: Plan\nSure, this"
STEP = "\n\n" + format_step("Check", "It is not right.")
OUTPUT = "\n\n" + format_output("no")
PAIR = StepPair("t:1:2", "hi", (START, STEP), OUTPUT, STEP, start=(START,))


def pieces(tokenizer, *texts):
    return [tokenizer.encode_answer(text) for text in texts]


@pytest.mark.parametrize("start", [START, OPEN])
@pytest.mark.parametrize("sft_on", ["step", "answer"])
def test_the_start_is_in_both_sides_and_counts_in_neither(chat_tokenizer, start, sft_on):
    pair = replace(PAIR, path=(start, STEP), start=(start,))
    chosen, rejected = step_examples(chat_tokenizer, pair, sft_on)
    prompt = encode_prompt(chat_tokenizer, "hi")
    given, path, output, step = pieces(chat_tokenizer, start, STEP, OUTPUT, STEP)
    better = [*output, chat_tokenizer.end_id]
    assert list(chosen.tokens) == [*prompt, *given, *path, *better]
    assert list(rejected.tokens) == [*prompt, *given, *path, *step]
    on_path = SFT_ALONE if sft_on == "answer" else 0
    none = [0] * len(prompt + given)
    assert list(chosen.loss_mask) == none + [on_path] * len(path) + [COUNTED] * len(better)
    assert list(rejected.loss_mask) == none + [0] * len(path) + [COUNTED] * len(step)


def test_sampled_tokens_of_the_path_begin_with_those_of_the_start(chat_tokenizer):
    given, path = pieces(chat_tokenizer, START, STEP)
    sampled = replace(PAIR, path_tokens=(*given, *path))
    assert step_examples(chat_tokenizer, sampled, "answer") == step_examples(
        chat_tokenizer, PAIR, "answer"
    )
    with pytest.raises(UserError, match=r"'t:1:2': its path_tokens do not begin"):
        step_examples(chat_tokenizer, replace(PAIR, path_tokens=(*path, *given)))


def test_a_pair_without_a_start_is_encoded_as_before(chat_tokenizer):
    plain = replace(PAIR, start=None)
    chosen, _ = step_examples(chat_tokenizer, plain, "answer")
    prompt = encode_prompt(chat_tokenizer, "hi")
    given, path = pieces(chat_tokenizer, START, STEP)
    counted = len(chosen) - len(prompt) - len(given) - len(path)
    assert list(chosen.loss_mask) == (
        [0] * len(prompt) + [SFT_ALONE] * len(given + path) + [COUNTED] * counted
    )
    assert "start" not in plain.to_dict()


def test_an_sft_example_counts_the_answer_behind_its_start_alone(chat_tokenizer):
    row = SftRow("a", "hi", STEP + OUTPUT, "safety", start=(START,))
    example = answer_example(chat_tokenizer, row)
    (given,) = pieces(chat_tokenizer, START)
    none = len(encode_prompt(chat_tokenizer, "hi") + given)
    assert list(example.loss_mask) == [0] * none + [1] * (len(example) - none)
    plain = answer_example(chat_tokenizer, replace(row, answer=row.whole_answer, start=None))
    assert list(plain.tokens) == list(example.tokens)


def test_both_paths_of_a_prm_pair_hold_the_start(chat_tokenizer):
    pair = PathPair("t:1:2", "hi", (START, OUTPUT), (START, STEP), start=(START,))
    better, worse = path_examples(chat_tokenizer, pair)
    given, output, step = pieces(chat_tokenizer, START, OUTPUT, STEP)
    prompt = encode_prompt(chat_tokenizer, "hi")
    assert list(better.tokens) == [*prompt, *given, *output]
    assert list(worse.tokens) == [*prompt, *given, *step]


@pytest.mark.parametrize(
    "row",
    [
        Prompt("a", "hi", "safety", start=(START, OPEN)),
        SftRow("a", "hi", OUTPUT, "safety", start=(START,)),
        PAIR,
        PathPair("t:1:2", "hi", (START, OUTPUT), (START, STEP), start=(START,)),
    ],
)
def test_rows_with_a_start_come_back_from_their_lines(row):
    line = row.to_dict()
    assert line["start"] == list(row.start) and type(row).from_dict(line, "x") == row


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"start": START}, "'start' must be a list of texts"),
        ({"start": [START + OUTPUT]}, "'start' holds a finished answer"),
        ({"start": [OPEN, START]}, f"must end each step but the last with {REASONING_CLOSE}"),
    ],
)
def test_a_start_that_is_none_is_refused_with_its_line(change, message):
    line = {"id": "a", "prompt": "hi", "kind": "safety", "source": ""} | change
    with pytest.raises(UserError) as caught:
        Prompt.from_dict(line, "p.jsonl, line 3")
    assert str(caught.value).startswith("p.jsonl, line 3: ") and message in str(caught.value)


def test_the_path_of_a_pair_has_to_begin_with_its_start():
    line = PAIR.to_dict() | {"path": [STEP]}
    with pytest.raises(UserError, match="'start' is not what the path begins with"):
        StepPair.from_dict(line, "x")
    line = PathPair("a", "hi", (START, OUTPUT), (STEP,), start=(START,)).to_dict()
    with pytest.raises(UserError, match="'start' is not what the path begins with"):
        PathPair.from_dict(line, "x")


@pytest.mark.parametrize(
    ("kind", "label", "is_harmless"),
    [
        ("safety", None, False),
        ("safety", "unsafe", False),
        ("safety", "safe", True),
        ("safety", 1, False),
        ("helpfulness", None, True),
    ],
)
def test_a_label_says_which_safety_prompts_are_harmless(kind, label, is_harmless):
    line = {"id": "a", "prompt": "hi", "kind": kind, "source": "", "label": label}
    assert Prompt.from_dict(line, "x").is_harmless is is_harmless
