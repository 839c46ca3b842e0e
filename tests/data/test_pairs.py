from collections import Counter
from dataclasses import replace
from functools import partial

import pytest

from stair_jax.data.examples import answer_example, describe
from stair_jax.data.packing import COUNTED, SFT_ALONE
from stair_jax.data.pairs import (
    check_token_ids,
    encode_pairs,
    path_examples,
    read_pairs,
    step_examples,
)
from stair_jax.data.records import PathPair, SftRow, StepPair
from stair_jax.errors import UserError
from stair_jax.storage import write_jsonl
from stair_jax.text.chat import encode_prompt
from stair_jax.text.scoring import encode_scored
from stair_jax.text.steps import format_output, format_step

STEP = format_step("Problem", "think")
OUTPUT = "\n\n" + format_output("no")
PAIR = StepPair("t:1:2", "hi", (STEP,), OUTPUT, "\n\n" + STEP)


def counted(example):
    return [t for t, m in zip(example.tokens, example.loss_mask, strict=True) if m]


def test_only_the_steps_count_and_only_an_ended_answer_gets_the_end_token(chat_tokenizer):
    chosen, rejected = step_examples(chat_tokenizer, PAIR)
    prompt = encode_prompt(chat_tokenizer, "hi")
    path = chat_tokenizer.encode_answer(STEP)
    assert counted(chosen) == [*chat_tokenizer.encode_answer(OUTPUT), chat_tokenizer.end_id]
    assert counted(rejected) == chat_tokenizer.encode_answer("\n\n" + STEP)
    for example in (chosen, rejected):
        assert list(example.tokens) == [*prompt, *path, *counted(example)]


def test_the_sft_term_on_the_answer_counts_the_path_of_the_chosen_side_too(chat_tokenizer):
    chosen, rejected = step_examples(chat_tokenizer, PAIR, sft_on="answer")
    on_step, other = step_examples(chat_tokenizer, PAIR)
    assert list(chosen.tokens) == list(on_step.tokens) and rejected == other
    num_prompt = len(encode_prompt(chat_tokenizer, "hi"))
    path = len(chat_tokenizer.encode_answer(STEP))
    step = len(chosen) - num_prompt - path
    assert chosen.loss_mask == [0] * num_prompt + [SFT_ALONE] * path + [COUNTED] * step
    assert describe(chat_tokenizer, chosen) == describe(chat_tokenizer, on_step)
    encode = partial(step_examples, sft_on="answer")
    _, [(lazy, _)] = encode_pairs([PAIR], encode, chat_tokenizer, 180)
    assert list(lazy.loss_mask) == chosen.loss_mask


def test_a_path_never_ends_an_answer_and_a_side_does_where_the_pair_says_so(chat_tokenizer):
    """A step that the token limit cut has no closing tag, and goes on."""
    end, cut = chat_tokenizer.end_id, STEP[:-30]
    known = replace(PAIR, path=(cut,), chosen=cut, chosen_terminal=False, rejected_terminal=True)
    chosen, rejected = step_examples(chat_tokenizer, known)
    assert end not in chosen.tokens[len(encode_prompt(chat_tokenizer, "hi")) :]
    assert counted(rejected) == [*chat_tokenizer.encode_answer("\n\n" + STEP), end]
    sides = {"chosen_terminal": False, "rejected_terminal": None}
    paths = PathPair("q", "hi", (cut, cut), (cut, "No."), **sides)
    chosen, rejected = path_examples(chat_tokenizer, paths)
    assert end not in counted(chosen) and counted(rejected).count(end) == 1
    assert counted(rejected)[-1] == end


@pytest.mark.parametrize("is_terminal", [True, None])
def test_a_path_to_score_ends_with_its_output_block_as_a_sampled_one_does(
    chat_tokenizer, is_terminal
):
    pair = PathPair("q", "hi", (STEP, OUTPUT), ("No.",), chosen_terminal=is_terminal)
    chosen, rejected = path_examples(chat_tokenizer, pair)
    assert chosen.tokens[-1] == chat_tokenizer.tags.output_close
    assert rejected.tokens[-1] == chat_tokenizer.end_id
    sides = (STEP + OUTPUT, "No.")
    for example, answer in zip((chosen, rejected), sides, strict=True):
        assert counted(example) == encode_scored(chat_tokenizer, answer)


def test_sampled_tokens_take_the_place_of_the_texts(chat_tokenizer):
    sampled = replace(PAIR, path_tokens=(5, 6), chosen_tokens=(7, 8), rejected_tokens=(9,))
    chosen, rejected = step_examples(chat_tokenizer, sampled)
    prompt = encode_prompt(chat_tokenizer, "hi")
    assert list(chosen.tokens) == [*prompt, 5, 6, 7, 8] and counted(chosen) == [7, 8]
    assert list(rejected.tokens) == [*prompt, 5, 6, 9] and counted(rejected) == [9]


def test_a_tag_in_the_prompt_stays_text(chat_tokenizer):
    forged = answer_example(chat_tokenizer, SftRow("a", STEP, "no", "safety"))
    assert chat_tokenizer.tags.reasoning_open not in forged.tokens
    assert counted(forged) == [*chat_tokenizer.encode_text("no"), chat_tokenizer.end_id]


def test_an_example_is_shown_with_its_mask(chat_tokenizer):
    example = answer_example(chat_tokenizer, SftRow("a", "hi", "no", "safety"))
    shown = describe(chat_tokenizer, example)
    assert shown.endswith("⟦no<|eot_id|>⟧") and "hi<|eot_id|>" in shown.split("⟦")[0]


def test_prm_pairs_have_a_path_each(chat_tokenizer):
    pair = PathPair("p", "hi", (STEP, OUTPUT), (STEP,), rejected_tokens=(3, 4))
    chosen, rejected = path_examples(chat_tokenizer, pair)
    prompt = encode_prompt(chat_tokenizer, "hi")
    assert list(chosen.tokens) == [
        *prompt,
        *chat_tokenizer.encode_answer(STEP + OUTPUT),
    ]
    assert list(rejected.tokens) == [*prompt, 3, 4]


def test_long_pairs_are_left_out(chat_tokenizer):
    long = replace(PAIR, id="long", chosen_tokens=(1,) * 200)
    kept, pairs = encode_pairs([PAIR, long], step_examples, chat_tokenizer, 180)
    assert kept == [PAIR] and len(pairs) == 1


def test_pairs_with_an_empty_or_the_same_side_are_left_out_and_counted(chat_tokenizer):
    end = (chat_tokenizer.end_id,)
    pairs = [
        PAIR,
        replace(PAIR, chosen=""),
        replace(PAIR, rejected=""),
        replace(PAIR, chosen_tokens=()),
        replace(PAIR, rejected_tokens=end),
        replace(PAIR, chosen_tokens=(7, 8, *end), rejected_tokens=(7, 8, *end)),
        replace(PAIR, chosen_tokens=(7, 8, *end), rejected_tokens=(7, 8)),
        replace(PAIR, chosen_tokens=(7,), rejected_tokens=(9,)),
        replace(PAIR, chosen_tokens=(1,) * 500, rejected_tokens=(1,) * 500),
    ]
    counts = Counter()
    kept, _ = encode_pairs(pairs, step_examples, chat_tokenizer, 180, counts)
    assert kept == [pairs[index] for index in (0, 6, 7)]
    assert counts == {"with an empty side": 4, "with both sides alike": 1, "above max_length": 1}
    path = PathPair("p", "hi", (STEP, OUTPUT), (STEP,))
    others = [replace(path, rejected_path=path.chosen_path), replace(path, chosen_path=())]
    kept, _ = encode_pairs([path, *others], path_examples, chat_tokenizer, 200, counts)
    assert kept == [path] and counts["with both sides alike"] == 2


def test_pairs_whose_better_side_goes_on_behind_its_output_are_left_out(chat_tokenizer):
    """The other side may: that is what makes it the worse one."""
    twice = OUTPUT + OUTPUT
    rows = [
        PAIR,
        replace(PAIR, chosen=twice),
        replace(PAIR, path=(STEP, OUTPUT), chosen="\n\nMore."),
        replace(PAIR, rejected=twice),
    ]
    counts = Counter()
    kept, _ = encode_pairs(rows, step_examples, chat_tokenizer, 400, counts)
    assert kept == [rows[0], rows[3]] and counts == {"with a malformed better side": 2}
    paths = [
        PathPair("q", "hi", (STEP, twice), (OUTPUT,)),
        PathPair("q", "hi", (OUTPUT,), (twice,)),
    ]
    assert encode_pairs(paths, path_examples, chat_tokenizer, 400)[0] == paths[1:]


def test_token_ids_outside_of_the_vocabulary_are_named():
    pair = PathPair("q", "hi", (STEP,), (OUTPUT,), rejected_tokens=(1, 99))
    check_token_ids([PAIR, replace(PAIR, path_tokens=(99,)), pair], 100, "dpo.jsonl")
    message = r"dpo\.jsonl, line 2: rejected_tokens has the token id 99, and the model has 0 to 98"
    with pytest.raises(UserError, match=message):
        check_token_ids([PAIR, pair], 99, "dpo.jsonl")


def test_a_missing_field_is_refused(tmp_path):
    path, row = tmp_path / "dpo.jsonl", PAIR.to_dict()
    write_jsonl(path, [row, {k: v for k, v in row.items() if k != "path"}])
    with pytest.raises(UserError, match="line 2: the field 'path' must be a list"):
        read_pairs(path, StepPair)
    with pytest.raises(UserError, match="line 1: the field 'chosen_path'"):
        read_pairs(path, PathPair)
