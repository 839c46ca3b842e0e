"""IFEval: strict and loose, prompts and instructions, and what cannot be checked."""

import json

import numpy as np
import pytest

from stair_jax.errors import UserError
from stair_jax.evaluation.benchmarks.ifeval import IfEval
from stair_jax.evaluation.case import Answer, Graded

BENCHMARK = IfEval()
ROWS = [
    {
        "key": 1000,
        "prompt": "Be short, without commas.",
        "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
        "kwargs": [{"num_words": None}, {"num_words": 4, "relation": "less than"}],
    },
    {
        "key": 1001,
        "prompt": "Use JSON.",
        "instruction_id_list": ["detectable_format:json_format"],
        "kwargs": [{}],
    },
    {
        "key": 1002,
        "prompt": "En français, sans virgule.",
        "instruction_id_list": ["language:response_language", "punctuation:no_comma", "new:one"],
        "kwargs": [{"language": "fr"}, None, {"any": 1}],
    },
]


def read(tmp_path, rows=ROWS):
    path = tmp_path / "input_data.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return BENCHMARK.read(path)


def grade(case, final):
    return BENCHMARK.grade(case, Answer("ifeval", case.id, final=final), None)


def test_figures_by_hand(tmp_path):
    first, second, _ = read(tmp_path)
    scores = [grade(first, "So it is, yes, now"), grade(second, "Here:\n{}")]
    assert list(scores[0].values()) == [0.0, 0.0, 0.0, 0.0, 2.0]
    assert list(scores[1].values()) == [0.0, 1.0, 0.0, 1.0, 1.0]
    scores.append(grade(first, "So be it"))
    assert list(scores[2].values()) == [1.0, 1.0, 2.0, 2.0, 2.0]
    cases = [first, second, first]
    rows = [Graded(case, Answer("", ""), score) for case, score in zip(cases, scores, strict=True)]
    found = [
        metric.statistic(rows, np.array([row.scores[metric.key] for row in rows]), np.ones((1, 3)))
        for metric in BENCHMARK.METRICS
    ]
    np.testing.assert_allclose(np.ravel(found), [1 / 3, 2 / 3, 2 / 5, 3 / 5])


def test_instructions_without_a_check_are_named_and_their_prompts_missing(tmp_path, capsys):
    cases = read(tmp_path)
    assert capsys.readouterr().err == (
        "ifeval: 1 of 3 prompts are missing, without a check of: "
        "language:response_language (fr) in 1, new:one in 1\n"
    )
    assert set(grade(cases[2], "Oui").values()) == {None}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kwargs": [{}]}, "line 1: there are 2 instructions and 1 kwargs"),
        ({"kwargs": [{}, {"num_words": 4}]}, "line 1: .*number_words needs 'relation'"),
        ({"kwargs": [{}, 4]}, "line 1: instruction_id_list is no list of text, or kwargs none of"),
        ({"instruction_id_list": []}, "line 1: instruction_id_list and kwargs are not lists with"),
    ],
)
def test_a_row_of_another_form_is_refused(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, [ROWS[0] | change])
