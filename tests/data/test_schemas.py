"""Rows with the columns of each known format are converted into our own."""

import dataclasses
import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stair_jax.data.records import Prompt, SftRow, StepPair
from stair_jax.data.schema import ReadingOptions
from stair_jax.data.schemas import SCHEMAS, convert
from stair_jax.data.text_files import as_rows
from stair_jax.errors import UserError

ADD = "Add 2 and 2."


def safe_rlhf(prompt="How to steal?", safe=(False, True), safer=1, answers=("So.", "No.")):
    return {
        "prompt": prompt,
        "response_0": answers[0],
        "response_1": answers[1],
        "prompt_source": "x",
        "is_response_0_safe": safe[0],
        "is_response_1_safe": safe[1],
        "response_0_severity_level": 2,
        "better_response_id": 0,
        "safer_response_id": safer,
    }


def completion(response, overall, fine=None):
    return {
        "model": "m",
        "response": response,
        "annotations": {},
        "overall_score": overall,
        "fine-grained_score": fine,
    }


def ultra(*completions):
    return {
        "source": "evol_instruct",
        "instruction": ADD,
        "models": ["m"],
        "completions": list(completions),
        "correct_answers": ["None"],
    }


def turns(*texts):
    roles = ("user", "assistant") * len(texts)
    return [{"content": text, "role": role} for text, role in zip(texts, roles, strict=False)]


def binarized(chosen, rejected):
    return {
        "prompt": ADD,
        "prompt_id": "0f",
        "chosen": chosen,
        "rejected": rejected,
        "messages": chosen,
        "score_chosen": 8.0,
        "score_rejected": 6.0,
    }


def jailbreak(number, query, transfer, source="GPT_Generate"):
    return {
        "id": number,
        "jailbreak_query": query,
        "redteam_query": "r",
        "format": "Template",
        "policy": "Fraud",
        "image_path": "a.png",
        "from": source,
        "selected_mini": False,
        "transfer_from_llm": transfer,
    }


def leaf(chosen, ends=True, score=1.5):
    return {
        "prompt": "Hi?",
        "chosen": chosen,
        "chosen_score": score,
        "chosen_is_terminal": ends,
        "chosen_visited_times": 7,
    }


def step_pair(chosen, rejected, ends=True, scores=(1.5, -1.0)):
    return leaf(chosen, ends, scores[0]) | {
        "rejected": rejected,
        "rejected_score": scores[1],
        "rejected_is_terminal": False,
        "rejected_visited_times": 3,
    }


def made(rows, use, kinds=None, keep=(), sources=("GPT-Generate", "Handcraft", "HH-RLHF")):
    options = ReadingOptions(kinds or {}, keep, sources)
    return convert(as_rows(rows, "line"), use, options, "data/mine.json", "mine")


def records(converted):
    return [record for _, record in converted.rows]


def without_ids(converted):
    return [dataclasses.replace(record, id="") for record in records(converted)]


def test_safe_rlhf():
    rows = [safe_rlhf(), safe_rlhf("Hi?", (False, False), 0), safe_rlhf("Ho?", answers=("a", "a"))]
    prompts = made(rows, "prompts")
    assert prompts.name == "PKU-SafeRLHF" and not prompts.left_out
    assert without_ids(prompts) == [
        Prompt("", prompt, "safety", "PKU-SafeRLHF") for prompt in ("How to steal?", "Hi?", "Ho?")
    ]
    sft = made(rows, "sft")
    assert without_ids(sft) == [
        SftRow("", "How to steal?", "No.", "safety"),
        SftRow("", "Ho?", "a", "safety"),
    ]
    assert sft.dropped == [("line 2", "no answer is safe")]


def test_safe_rlhf_pairs_whose_answers_are_unsafe_or_whose_labels_contradict_are_left_out():
    rows = [
        safe_rlhf(),
        safe_rlhf("Hi?", (False, False), 0),
        safe_rlhf("Ho?", answers=("a", "a")),
        safe_rlhf("Ha?", (False, True), 0),
        safe_rlhf("He?", (True, True), 0),
    ]
    first = StepPair("", "How to steal?", (), "No.", "So.", kind="safety")
    both_safe = StepPair("", "He?", (), "So.", "No.", kind="safety")
    pairs = made(rows, "dpo")
    assert without_ids(pairs) == [first, both_safe]
    assert pairs.dropped == [
        ("line 2", "no answer is safe, and one is chosen"),
        ("line 3", "both answers alike"),
        ("line 4", "the answer that it calls safer is labelled unsafe, and the other safe"),
    ]
    kept = made(rows, "dpo", keep=("unsafe",))
    second = StepPair("", "Hi?", (), "So.", "No.", kind="safety")
    assert without_ids(kept) == [first, second, both_safe]
    assert len(records(made(rows, "dpo", keep=("unsafe", "labels")))) == 4
    # No setting makes an example of an answer that is labelled unsafe.
    sft = made(rows, "sft", keep=("unsafe", "labels"))
    assert [record.prompt for record in records(sft)] == ["How to steal?", "Ho?", "He?"]


def test_flags_may_be_the_texts_of_a_csv_file():
    row = {name: str(value) for name, value in safe_rlhf().items()}
    assert records(made([row], "sft"))[0].answer == "No."
    assert records(made([row | {"safer_response_id": 1.0}], "sft"))[0].answer == "No."
    odd = [row, row | {"is_response_1_safe": "maybe"}, row | {"safer_response_id": "2"}]
    found = made(odd, "sft")
    assert len(found.rows) == 1 and found.unreadable == [
        ("line 2", "not as rows of PKU-SafeRLHF are: is_response_1_safe is 'maybe', not true or "
                   "false"),
        ("line 3", "not as rows of PKU-SafeRLHF are: safer_response_id is '2', not 0 or 1"),
    ]  # fmt: skip


def test_ultrafeedback():
    row = ultra(
        completion("b", 7.0), completion("a", 9.0), completion("d", None, 1.5), completion("c", 9.0)
    )
    alike = ultra(completion("a", 5.0), completion("b", 5.0))
    assert without_ids(made([row], "prompts")) == [
        Prompt("", "Add 2 and 2.", "helpfulness", "UltraFeedback")
    ]
    sft = made([row, alike, ultra()], "sft")
    assert [row.answer for row in records(sft)] == ["a"]
    assert sft.left_out == {"both answers have the same score": 1, "no answer has a score": 1}
    (pair,) = records(made([row], "dpo"))
    assert (pair.chosen, pair.rejected, pair.kind) == ("a", "d", "helpfulness")
    (pair,) = records(made([alike], "dpo", keep=("ties",)))
    assert (pair.chosen, pair.rejected) == ("a", "b")


def test_a_score_of_ultrafeedback_that_is_no_number_is_none_and_counted():
    odd = [completion(str(value), value) for value in ("N/A", float("nan"), float("inf"), "")]
    row = ultra(completion("low", "2"), *odd, completion("high", 7.0))
    found = made([row, ultra(*odd)], "dpo")
    (pair,) = records(found)
    assert (pair.chosen, pair.rejected) == ("high", "low")
    assert found.notes == {"completions without a score": 8}
    assert found.dropped == [("line 2", "no answer has a score")]


def test_an_overall_score_against_the_fine_grained_one_leaves_the_row_out():
    row = ultra(completion("bad", 10.0, 1.25), completion("good", 8.0, 4.5))
    found = made([row], "dpo")
    assert found.dropped == [("line 1", "its scores contradict each other")]
    (pair,) = records(made([row], "dpo", keep=("scores",)))
    assert (pair.chosen, pair.rejected) == ("bad", "good")
    assert made([ultra(completion("a", 10.0, 3.0), completion("b", 1.0, 3.0))], "dpo").rows


def test_ultrafeedback_binarized():
    one = binarized(turns(ADD, "4"), turns(ADD, "5"))
    two = binarized(turns(ADD, "4", "Sure?", "Yes"), turns(ADD, "5"))
    (pair,) = records(made([one, two], "dpo"))
    assert pair.path == () and (pair.chosen, pair.rejected) == ("4", "5")
    sft = made([two, one], "sft")
    assert [row.answer for row in records(sft)] == ["4"]
    assert sft.left_out == {"it has more than one turn": 1}
    worse = one | {"score_chosen": 5.0}
    tied, unknown = (
        one | {"score_chosen": 6.0},
        one | {"score_chosen": "N/A", "chosen": turns(ADD, "four")},
    )
    found = made([one, worse, tied, unknown], "dpo")
    assert found.left_out == {
        "its scores contradict each other": 1,
        "both answers have the same score": 1,
    }
    assert len(found.rows) == 2
    assert found.notes == {"pairs without a number in score_chosen or score_rejected": 1}


def test_jailbreakv_without_the_attacks_that_are_in_images():
    rows = [jailbreak(0, "Play a part", True), jailbreak(1, "see image", "False")]
    prompts = made([*rows, jailbreak(2, "Play a part", True)], "prompts")
    assert records(prompts) == [
        Prompt("JailbreakV-28k:0", "Play a part", "safety", "JailbreakV-28k")
    ]
    assert prompts.left_out == {"the attack is in its image": 1, "the same as a row before": 1}
    with pytest.raises(UserError, match=r"which is not for sft: it may have our own \(id, prompt"):
        made(rows, "sft")


def test_jailbreakv_from_the_sources_of_the_paper_unless_others_are_named():
    names = ["Ours: GPT Generate", "GPT_Generate", "Handcraft", "hh-rlhf", "AdvBench", "", "Other"]
    rows = [jailbreak(n, f"q{n}", True, source) for n, source in enumerate(names)]
    found = made(rows, "prompts")
    assert [record.prompt for record in records(found)] == ["q0", "q1", "q2", "q3"]
    reason = "its source 'AdvBench' is none of files.jailbreak_sources"
    assert found.dropped[0] == ("line 5", reason)
    assert len(records(made(rows, "prompts", sources=()))) == 7
    assert [r.prompt for r in records(made(rows, "prompts", sources=("advbench",)))] == ["q4"]


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("PKU-SafeRLHF", "safety"),
        ("saferlhf_train", "safety"),
        ("JailBreakV", "safety"),
        ("openbmb/UltraFeedback", "helpfulness"),
        ("helpfulness", "helpfulness"),
        ("mine", "helpfulness"),
        ("other", "safety"),
    ],
)
def test_stair_rows_have_the_kind_of_their_source(source, kind):
    kinds = {"mine": "helpfulness", "*": "safety"}
    row = {"prompt": "Hi?", "source": source}
    (prompt,) = records(made([row], "prompts", kinds))
    assert (prompt.prompt, prompt.kind, prompt.source) == ("Hi?", kind, source)
    (example,) = records(made([row | {"answer": "Ho."}], "sft", kinds))
    assert (example.answer, example.kind) == ("Ho.", kind)


def test_sources_without_a_kind_are_named_with_the_field_to_set():
    rows = [{"prompt": f"{name}?", "source": name} for name in ("b", "a", "b", "SafeRLHF")]
    with pytest.raises(UserError, match=r"sources 'a', 'b' is unknown: set files\.kinds"):
        made(rows, "prompts")
    with pytest.raises(UserError, match="unknown kind 'rude'"):
        made(rows, "prompts", {"a": "rude"})
    (prompt,) = records(made([{"prompt": "Hi?"}], "prompts", {"*": "safety"}))
    assert prompt.kind == "safety" and prompt.source == ""


def test_rows_without_a_source_have_the_kind_of_their_file_or_their_own():
    with pytest.raises(
        UserError, match=r'neither a kind nor a source: .* \{"mine": "helpfulness"\}'
    ):
        made([{"prompt": "Hi?"}], "prompts")
    rows = [{"prompt": "Hi?"}, {"prompt": "Ho?", "kind": "helpfulness"}]
    kinds = [record.kind for record in records(made(rows, "prompts", {"mine": "safety"}))]
    assert kinds == ["safety", "helpfulness"]


def test_what_the_released_search_reads():
    rows = [
        {"question": "2 + 2?", "type": "helpfulness", "ground_truth": 4},
        {"question": "Steal?", "type": "safety"},
    ]
    prompts = made(rows, "prompts")
    assert without_ids(prompts) == [
        Prompt("", "2 + 2?", "helpfulness", "STAIR", "4"),
        Prompt("", "Steal?", "safety", "STAIR"),
    ]
    found = made([rows[0], {"question": "x", "type": "rude"}], "prompts")
    reason = "not as rows of STAIR-search are: type 'rude' is not safety or helpfulness"
    assert found.unreadable == [("line 2", reason)]


def test_an_id_is_that_of_the_content_wherever_the_row_stands():
    first, second = safe_rlhf(), safe_rlhf("Hi?")
    ids = [row.id for row in records(made([first, second, first], "prompts"))]
    assert ids == [row.id for row in records(made([second, first], "prompts"))][::-1]
    fields = {"kind": "safety", "prompt": "Hi?", "source": "PKU-SafeRLHF"}
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    assert ids[1] == "PKU-SafeRLHF:" + hashlib.sha256(text.encode()).hexdigest()[:16]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"text": "x"}],
            r"its columns \(text\) are unknown; .*; STAIR-SFT \(answer, prompt, s.*, or prompt-com",
        ),
        ([safe_rlhf() | ultra()], "are those of PKU-SafeRLHF and UltraFeedback"),
        ([{"prompt": "x", "extra": "y"}], "are unknown"),
    ],
)
def test_other_columns_are_refused_with_what_is_known(rows, message):
    with pytest.raises(UserError, match=message):
        made(rows, "sft" if "text" in rows[0] else "prompts")


def test_a_row_that_lacks_a_column_or_holds_no_text_is_unreadable_and_the_others_are_read():
    found = made([{"prompt": "x"}, safe_rlhf(), safe_rlhf(prompt=None), safe_rlhf()], "prompts")
    assert found.name == "PKU-SafeRLHF" and len(found.rows) == 1
    assert found.unreadable == [
        ("line 1", "lacks the column 'is_response_0_safe' of PKU-SafeRLHF"),
        ("line 3", "not as rows of PKU-SafeRLHF are: prompt is None, not text"),
    ]


def test_what_is_empty_is_left_out():
    assert made([safe_rlhf(" "), safe_rlhf()], "prompts").left_out == {"prompt is empty": 1}
    assert made([safe_rlhf(answers=("x", ""))], "sft").left_out == {"answer is empty": 1}


ROWS = {
    "PKU-SafeRLHF": safe_rlhf(),
    "UltraFeedback": ultra(completion("a", 9.0), completion("b", 1.0)),
    "UltraFeedback-binarized": binarized(turns(ADD, "4"), turns(ADD, "5")),
    "JailbreakV-28k": jailbreak(0, "Play", True),
    "STAIR-SFT": {"prompt": "Hi?", "answer": "Ho.", "source": "SafeRLHF"},
    "STAIR-Prompts": {"prompt": "Hi?", "source": "SafeRLHF"},
    "STAIR-search": {"question": "Hi?", "type": "safety"},
    "STAIR-pairs": step_pair("x", "y"),
    "STAIR-leaves": leaf("x"),
    "prompt-pairs": {"prompt": "Hi?", "chosen": "x", "rejected": "y"},
    "question-pairs": {"question": "Hi?", "chosen": "x", "rejected": "y"},
    "conversations-pairs": {
        "conversations": [{"from": "human", "value": "Hi?"}],
        "chosen": {"from": "gpt", "value": "x"},
        "rejected": {"from": "gpt", "value": "y"},
    },
    "Alpaca-pairs": {"instruction": "Hi?", "input": "", "chosen": "x", "rejected": "y"},
    "messages": {"messages": turns("Hi?", "Ho.")},
    "conversations": {
        "conversations": [{"from": "human", "value": "Hi?"}, {"from": "gpt", "value": "Ho."}]
    },
    "Alpaca": {"instruction": "Hi?", "input": "", "output": "Ho."},
    "question-answer": {"question": "Hi?", "answer": "Ho."},
    "question-response": {"question": "Hi?", "response": "Ho."},
    "prompt-answer": {"prompt": "Hi?", "answer": "Ho.", "x": 1},
    "prompt-response": {"prompt": "Hi?", "response": "Ho."},
    "prompt-completion": {"prompt": "Hi?", "completion": "Ho."},
}


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: schema.name)
def test_every_use_gives_rows_that_the_stages_take(schema):
    for use in schema.uses:
        converted = made([ROWS[schema.name]], use, {"*": "helpfulness"})
        assert converted.name == schema.name
        kind = {"prompts": Prompt, "sft": SftRow, "dpo": StepPair}[use]
        (row,) = records(converted)
        assert kind.from_dict(row.to_dict(), "x") == row


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "from", "value", "response", "overall_score"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: schema.name)
@given(data=st.data())
def test_whatever_a_column_holds_the_row_is_read_left_out_or_listed(schema, data):
    row = ROWS[schema.name]
    odd = row | {data.draw(st.sampled_from(sorted(row))): data.draw(anything)}
    for use in schema.uses:
        found = made([row, odd], use, {"*": "helpfulness"}, sources=())
        assert found.name == schema.name
        assert len(found.rows) + len(found.dropped) + len(found.unreadable) == 2
        for _, record in found.rows:
            assert type(record).from_dict(json.loads(json.dumps(record.to_dict())), "x") == record
