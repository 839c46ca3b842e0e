"""Prompts of `synthesize` are read when their turn comes; results are written as they come."""

import tracemalloc
from types import SimpleNamespace

import pytest

from stair_jax import storage
from stair_jax.data.prompts import read_rows
from stair_jax.data.records import KINDS, SynthesisPrompt
from stair_jax.errors import UserError
from stair_jax.settings import build
from stair_jax.stages import Synthesize
from stair_jax.stages.synthesize_parts import write_results
from stair_jax.stages.synthesize_prompts import read_prompts
from stair_jax.synthesis.records import JudgedAnswer, PromptAnswers

TEACHER = {"base_url": "http://127.0.0.1:9/v1", "model": "m", "max_requests": 1}
LONG = 3000  # characters of a prompt


def make(**settings):
    judge = {"source": "endpoint", "endpoint": TEACHER}
    base = {"prompts": "data", "judge": judge, "teacher_endpoint": TEACHER}
    return build(Synthesize, base | settings, "config")


def write(path, count):
    text = "x" * LONG
    rows = (
        {"id": f"p{i}", "prompt": f"{i} {text}", "kind": KINDS[i % 3 == 0]} for i in range(count)
    )
    storage.write_jsonl(path, rows)
    return path


@pytest.mark.parametrize("kinds", [(), ("safety",), ("helpfulness", "safety")])
@pytest.mark.parametrize("num_prompts", [0, 1, 4, 100])
def test_they_are_the_first_so_many_of_the_kinds(num_prompts, kinds, tmp_path):
    path = write(tmp_path / "prompts.jsonl", 20)
    found = read_prompts(make(num_prompts=num_prompts, kinds=kinds), path)
    of_kinds = [row for row in read_rows(path, SynthesisPrompt) if row.kind in (kinds or KINDS)]
    assert list(found) == of_kinds[: num_prompts or None]
    assert [found.ids.places(row.id) for row in found] == [[i] for i in range(len(found))]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"template": "rewrite"}, "the row 'p1' has no answer, which the template shows"),
        ({"pairs": "given_own"}, "has no column 'answer', which pairs 'given_own' need"),
        ({"policies": {"x": "X: y."}, "template": "{policy} {prompt}"}, "'p1' has no column"),
    ],
)
def test_what_a_prompt_lacks_is_said_of_the_first_one_that_is_answered(settings, message, tmp_path):
    path = write(tmp_path / "prompts.jsonl", 5)
    with pytest.raises(UserError, match=message) as error:
        read_prompts(make(kinds=("safety",), **settings), path)
    assert "\n" not in str(error.value)


def test_neither_prompts_nor_results_are_held_in_memory(tmp_path):
    path = write(tmp_path / "prompts.jsonl", 2000)
    stage, context = make(kinds=("safety",)), SimpleNamespace(folder=tmp_path)
    tracemalloc.start()
    prompts = read_prompts(stage, path)
    answers = (
        PromptAnswers(
            prompt.id,
            (
                JudgedAnswer(0, f"0 {prompt.prompt}", safety=1.0, helpfulness=0.0, reward=1.0),
                JudgedAnswer(1, f"1 {prompt.prompt}", safety=-1.0, helpfulness=0.0, reward=-1.0),
            ),
        )
        for prompt in prompts
    )
    write_results(context, stage, prompts, answers)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    written = sum((tmp_path / name).stat().st_size for name in ("sft.jsonl", "rejected.jsonl"))
    assert len(prompts) == 1333
    assert written > 3 * len(prompts) * LONG
    assert peak < written / 10
