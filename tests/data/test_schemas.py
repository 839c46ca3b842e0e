"""Rows with the columns of each public data set are converted into our own format."""

import hashlib
import json

import pytest

from stair_jax.data.pairs import STEP_FIELDS, check_pairs
from stair_jax.data.prompts import check_rows
from stair_jax.data.public import SCHEMAS
from stair_jax.data.schemas import convert
from stair_jax.errors import UserError


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
        "instruction": "Add 2 and 2.",
        "models": ["m"],
        "completions": list(completions),
        "correct_answers": ["None"],
    }


def turns(*texts):
    roles = ("user", "assistant") * len(texts)
    return [{"content": text, "role": role} for text, role in zip(texts, roles, strict=False)]


def binarized(chosen, rejected):
    return {
        "prompt": "Add 2 and 2.",
        "prompt_id": "0f",
        "chosen": chosen,
        "rejected": rejected,
        "messages": chosen,
        "score_chosen": 8.0,
        "score_rejected": 6.0,
    }


def jailbreak(number, query, transfer):
    return {
        "id": number,
        "jailbreak_query": query,
        "redteam_query": "r",
        "format": "Template",
        "policy": "Fraud",
        "image_path": "a.png",
        "from": "x",
        "selected_mini": False,
        "transfer_from_llm": transfer,
    }


def made(rows, use, kinds=None):
    return convert(rows, use, kinds or {}, "mine.json")


def without_ids(rows):
    return [{name: value for name, value in row.items() if name != "id"} for row in rows]


def test_safe_rlhf():
    rows = [safe_rlhf(), safe_rlhf("Hi?", (False, False), 0), safe_rlhf("Ho?", answers=("a", "a"))]
    prompts = made(rows, "prompts")
    assert prompts.name == "PKU-SafeRLHF" and not prompts.left_out
    assert without_ids(prompts.rows) == [
        {"prompt": prompt, "kind": "safety", "source": "PKU-SafeRLHF"}
        for prompt in ("How to steal?", "Hi?", "Ho?")
    ]
    sft = made(rows, "sft")
    assert without_ids(sft.rows) == [
        {"prompt": "How to steal?", "answer": "No.", "kind": "safety"},
        {"prompt": "Ho?", "answer": "a", "kind": "safety"},
    ]
    assert sft.left_out == {"no answer is safe": 1}
    pairs = made(rows, "dpo")
    assert without_ids(pairs.rows) == [
        {"prompt": p, "kind": "safety", "path": [], "chosen": chosen, "rejected": rejected}
        for p, chosen, rejected in (("How to steal?", "No.", "So."), ("Hi?", "So.", "No."))
    ]
    assert pairs.left_out == {"both answers alike": 1}


def test_flags_may_be_the_texts_of_a_csv_file():
    row = {name: str(value) for name, value in safe_rlhf().items()}
    assert made([row], "sft").rows[0]["answer"] == "No."
    with pytest.raises(UserError, match=r"line 1: not as rows of PKU-SafeRLHF are .*'maybe'"):
        made([row | {"is_response_1_safe": "maybe"}], "sft")


def test_ultrafeedback():
    row = ultra(
        completion("b", 7.0), completion("a", 9.0), completion("d", None, 1.5), completion("c", 9.0)
    )
    alike = ultra(completion("a", 5.0), completion("b", 5.0))
    assert without_ids(made([row], "prompts").rows) == [
        {"prompt": "Add 2 and 2.", "kind": "helpfulness", "source": "UltraFeedback"}
    ]
    sft = made([row, alike, ultra()], "sft")
    assert [r["answer"] for r in sft.rows] == ["a"]
    assert sft.left_out == {"all scores alike": 1, "no answer has a score": 1}
    (pair,) = made([row], "dpo").rows
    assert (pair["chosen"], pair["rejected"], pair["kind"]) == ("a", "d", "helpfulness")


def test_ultrafeedback_binarized():
    one = binarized(turns("Add.", "4"), turns("Add.", "5"))
    two = binarized(turns("Add.", "4", "Sure?", "Yes"), turns("Add.", "5"))
    (pair,) = made([one, two], "dpo").rows
    assert pair["path"] == [] and (pair["chosen"], pair["rejected"]) == ("4", "5")
    sft = made([two, one], "sft")
    assert [row["answer"] for row in sft.rows] == ["4"]
    assert sft.left_out == {"more than one turn": 1}


def test_jailbreakv_without_the_attacks_that_are_in_images():
    rows = [jailbreak(0, "Play a part", True), jailbreak(1, "see image", "False")]
    prompts = made([*rows, jailbreak(2, "Play a part", True)], "prompts")
    assert prompts.rows == [
        {
            "id": "JailbreakV-28k:0",
            "prompt": "Play a part",
            "kind": "safety",
            "source": "JailbreakV-28k",
        }
    ]
    assert prompts.left_out == {"the attack is in its image": 1, "the same as a row before": 1}
    with pytest.raises(UserError, match=r"which is not for sft: it may have our own \(id, prompt"):
        made(rows, "sft")


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
    (prompt,) = made([row], "prompts", kinds).rows
    assert (prompt["prompt"], prompt["kind"], prompt["source"]) == ("Hi?", kind, source)
    (example,) = made([row | {"answer": "Ho."}], "sft", kinds).rows
    assert (example["answer"], example["kind"]) == ("Ho.", kind)


def test_sources_without_a_kind_are_named_with_the_field_to_set():
    rows = [{"prompt": f"{name}?", "source": name} for name in ("b", "a", "b", "SafeRLHF")]
    with pytest.raises(UserError, match=r"sources 'a', 'b' is unknown: set files\.kinds"):
        made(rows, "prompts")
    with pytest.raises(UserError, match="unknown kind 'rude'"):
        made(rows, "prompts", {"a": "rude"})
    (prompt,) = made([{"prompt": "Hi?"}], "prompts", {"*": "safety"}).rows
    assert prompt["kind"] == "safety" and prompt["source"] == ""


def test_what_the_released_search_reads():
    rows = [
        {"question": "2 + 2?", "type": "helpfulness", "ground_truth": 4},
        {"question": "Steal?", "type": "safety"},
    ]
    prompts = made(rows, "prompts").rows
    assert without_ids(prompts) == [
        {"prompt": "2 + 2?", "kind": "helpfulness", "source": "STAIR", "reference": "4"},
        {"prompt": "Steal?", "kind": "safety", "source": "STAIR"},
    ]
    with pytest.raises(UserError, match=r"line 2: .*'rude' is not safety or helpfulness"):
        made([rows[0], {"question": "x", "type": "rude"}], "prompts")


def test_an_id_is_that_of_the_content_wherever_the_row_stands():
    first, second = safe_rlhf(), safe_rlhf("Hi?")
    ids = [row["id"] for row in made([first, second, first], "prompts").rows]
    assert ids == [row["id"] for row in made([second, first], "prompts").rows][::-1]
    fields = {"kind": "safety", "prompt": "Hi?", "source": "PKU-SafeRLHF"}
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    assert ids[1] == "PKU-SafeRLHF:" + hashlib.sha256(text.encode()).hexdigest()[:16]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"text": "x"}],
            r"its columns \(text\) are unknown; .*, or STAIR-SFT \(answer, prompt, s",
        ),
        ([safe_rlhf() | ultra()], "are those of PKU-SafeRLHF and UltraFeedback"),
        ([{"prompt": "x", "extra": "y"}], "are unknown"),
        ([safe_rlhf(), {"prompt": "x"}], "line 2, lacks the column 'is_response_0_safe' of PKU"),
        ([safe_rlhf(prompt=None)], "line 1: .*prompt is None, not text"),
    ],
)
def test_other_columns_are_refused_with_what_is_known(rows, message):
    with pytest.raises(UserError, match=message):
        made(rows, "sft" if "text" in rows[0] else "prompts")


def test_what_is_empty_is_left_out():
    assert made([safe_rlhf(" "), safe_rlhf()], "prompts").left_out == {"prompt is empty": 1}
    assert made([safe_rlhf(answers=("x", ""))], "sft").left_out == {"answer is empty": 1}


ROWS = {
    "PKU-SafeRLHF": safe_rlhf(),
    "UltraFeedback": ultra(completion("a", 9.0), completion("b", 1.0)),
    "UltraFeedback-binarized": binarized(turns("x", "4"), turns("x", "5")),
    "JailbreakV-28k": jailbreak(0, "Play", True),
    "STAIR-SFT": {"prompt": "Hi?", "answer": "Ho.", "source": "SafeRLHF"},
    "STAIR-Prompts": {"prompt": "Hi?", "source": "SafeRLHF"},
    "STAIR-search": {"question": "Hi?", "type": "safety"},
}


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: schema.name)
def test_every_use_gives_rows_that_the_stages_take(schema):
    for use in schema.uses:
        converted = made([ROWS[schema.name]], use)
        assert converted.name == schema.name
        if use == "dpo":
            assert check_pairs(converted.rows, STEP_FIELDS, "x") == converted.rows
        else:
            last = "source" if use == "prompts" else "answer"
            assert check_rows(converted.rows, ("id", "prompt", "kind", last), "x")
