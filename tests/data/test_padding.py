"""Padded batches hold the sequences of their rows, and weigh what the losses count."""

import numpy as np
import pytest

from stair_jax.data.packing import Example, pack
from stair_jax.data.padding import dpo_batch, pad, prm_batch, sft_batch
from stair_jax.data.records import StepPair
from stair_jax.errors import UserError
from stair_jax.testing.tiny_tokenizers import byte_tokenizer
from stair_jax.text.chat import encode_prompt


@pytest.fixture(scope="module")
def tokenizer():
    return byte_tokenizer()


def counted(batch):
    """The targets of each row that count."""
    rows = zip(batch["targets"], batch["weights"], strict=True)
    return [targets[weights > 0].tolist() for targets, weights in rows]


def test_rows_by_hand():
    batch = pad([Example([7, 8, 9], [0, 1, 1]), Example([5], [0])], length=4)
    assert batch["tokens"].tolist() == [[7, 8, 9, 0], [5, 0, 0, 0]]
    assert batch["targets"].tolist() == [[8, 9, 0, 0], [0, 0, 0, 0]]
    assert batch["positions"].tolist() == [[0, 1, 2, 0], [0, 0, 0, 0]]
    assert batch["segment_ids"].tolist() == [[1, 1, 1, 0], [1, 0, 0, 0]]
    assert batch["weights"].tolist() == [[1, 1, 0, 0], [0, 0, 0, 0]]
    assert batch["last"].tolist() == [2, 0]


def test_a_row_is_what_packing_makes_of_one_example():
    rng = np.random.default_rng(0)
    for length in (1, 5, 8):
        example = Example(rng.integers(0, 40, length), rng.integers(0, 2, length))
        ours, theirs = pad([example], 8), pack([example], 8, 1)
        for name in ours:
            np.testing.assert_array_equal(ours[name], getattr(theirs, name), err_msg=name)


def test_the_answers_count_with_their_end(tokenizer):
    rows = [{"prompt": "a?", "answer": "yes"}, {"prompt": "bb?", "answer": "n"}]
    batch = sft_batch(tokenizer, rows)
    end = tokenizer.end_id
    assert counted(batch) == [
        [*tokenizer.encode_text("yes"), end],
        [*tokenizer.encode_text("n"), end],
    ]
    prompt = encode_prompt(tokenizer, "a?")
    assert batch["tokens"][0, : len(prompt)].tolist() == prompt


def test_both_sides_of_a_pair_have_one_shape_and_count_their_steps(tokenizer):
    step = "<|Reasoning_step|>a<|/Reasoning_step|>"
    pairs = [
        {"prompt": "q", "path": [step], "chosen": "<|Output|>good<|/Output|>", "rejected": step},
        {"prompt": "q", "chosen": step, "rejected": "<|Output|>c<|/Output|>"},
    ]
    chosen, rejected = dpo_batch(tokenizer, pairs)
    assert chosen["tokens"].shape == rejected["tokens"].shape
    ids = tokenizer.encode_answer(step)
    assert counted(rejected)[0] == ids == counted(chosen)[1]
    assert counted(chosen)[0][-2:] == [tokenizer.tags.output_close, tokenizer.end_id]
    context = len(encode_prompt(tokenizer, "q")) + len(ids)
    np.testing.assert_array_equal(chosen["tokens"][0, :context], rejected["tokens"][0, :context])


def test_tokens_as_sampled_take_the_place_of_the_texts(tokenizer):
    pair = {"prompt": "q", "chosen_path": ["a"], "rejected_path": ["b"]}
    sampled = {"chosen_tokens": [1, 2, 3], "rejected_tokens": [4]}
    chosen, rejected = prm_batch(tokenizer, [pair | sampled])
    start = len(encode_prompt(tokenizer, "q"))
    assert chosen["tokens"][0, start : start + 3].tolist() == [1, 2, 3]
    assert (chosen["last"].item(), rejected["last"].item()) == (start + 2, start)


def test_records_are_taken_as_they_are(tokenizer):
    fields = {"prompt": "q", "path": [], "chosen": "a", "rejected": "b", "chosen_tokens": [1, 2]}
    pair = StepPair.from_dict(fields | {"id": "p"}, "x")
    for ours, theirs in zip(*(dpo_batch(tokenizer, [one]) for one in (pair, fields)), strict=True):
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


def test_rows_have_any_kind_or_none_and_what_is_missing_is_named(tokenizer):
    row = {"prompt": "a?", "answer": "yes", "kind": "sums"}
    assert counted(sft_batch(tokenizer, [row])) == [
        [*tokenizer.encode_text("yes"), tokenizer.end_id]
    ]
    with pytest.raises(UserError, match="row 1, lacks the column 'answer'"):
        sft_batch(tokenizer, [row, {"prompt": "b?"}])
    with pytest.raises(UserError, match="row 0: the field 'chosen' must be text"):
        dpo_batch(tokenizer, [{"prompt": "q", "rejected": "b"}])


def test_what_does_not_fit_is_refused_by_name(tokenizer):
    with pytest.raises(UserError, match="no example is left"):
        dpo_batch(tokenizer, [])
    rows = [{"id": "mine", "prompt": "a?", "answer": "long"}]
    with pytest.raises(UserError, match=r"'mine' has \d+ tokens, more than length 4"):
        sft_batch(tokenizer, rows, length=4)
    with pytest.raises(UserError, match="example '0' has an empty answer"):
        prm_batch(tokenizer, [{"prompt": "q", "chosen_path": [], "rejected_path": ["b"]}])
    with pytest.raises(UserError, match="example '0' has an empty answer"):
        sft_batch(tokenizer, [{"prompt": "q", "answer": ""}])
    with pytest.raises(UserError, match="both sides of pair '0' are the same"):
        dpo_batch(tokenizer, [{"prompt": "q", "chosen": "b", "rejected": "b"}])
