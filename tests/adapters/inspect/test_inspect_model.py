"""Our engine as a model of inspect: its own `eval()`, offline, with a tiny random model."""

import asyncio
import configparser
import importlib
from pathlib import Path

import pytest

pytest.importorskip("inspect_ai", reason="inspect-ai, of the extra eval, is not installed")

from inspect_ai import Task, eval
from inspect_ai._util.error import PrerequisiteError
from inspect_ai.dataset import Sample
from inspect_ai.log import read_eval_log
from inspect_ai.model import ChatMessageUser, GenerateConfig, get_model
from inspect_ai.scorer import match

import stair_jax
from stair_jax.adapters import inspect_registry
from stair_jax.adapters.inspect_messages import DETAILS
from stair_jax.adapters.inspect_tasks import benchmark_task
from stair_jax.evaluation.case import Answer
from stair_jax.run.answering import answer
from stair_jax.text import steps

WORDS = ("rate", "safe", "1 rate", "2 safe")


@pytest.fixture(scope="module")
def model(checkpoint):
    """One model for all tests of its samples."""
    found = get_model(f"stair_jax/{checkpoint}", max_answer_tokens=12)
    yield found
    found.api.close()


def generate(model, *prompts, **config):
    """The outputs of prompts that are asked at the same time."""

    async def ask():
        chats = [[ChatMessageUser(content=prompt)] for prompt in prompts]
        asked = (model.generate(chat, config=GenerateConfig(**config)) for chat in chats)
        return await asyncio.gather(*asked)

    return asyncio.run(ask())


def test_an_evaluation_by_inspect_has_the_answers_and_grades_of_ours(
    checkpoint, data, tmp_path, offline
):
    (log,) = eval(
        benchmark_task("gsm8k", data),
        model=f"stair_jax/{checkpoint}",
        model_args={"max_answer_tokens": 12},
        log_dir=str(tmp_path),
        display="none",
    )
    assert log.status == "success", log.error
    read = read_eval_log(log.location)
    samples = sorted(read.samples, key=lambda sample: sample.id)
    ours = answer(str(checkpoint), WORDS, max_answer_tokens=12)
    texts = [sample.output.metadata[DETAILS][0]["text"] for sample in samples]
    assert texts == [one.text for one in ours]
    for sample, one in zip(samples, ours, strict=True):
        assert sample.output.completion == steps.parse_tolerant(one.text).final or (
            not steps.TAG_PATTERN.search(one.text)
        )
        assert sample.output.usage.input_tokens == one.prompt_tokens
        assert sample.output.usage.output_tokens == one.generated_tokens
        assert sample.output.stop_reason == {"stop": "stop", "length": "max_tokens"}[one.finish]
        assert sample.metadata["case"]["reference"] == sample.target
    (found,) = read.results.scores
    assert (found.name, found.scored_samples, found.unscored_samples) == ("right", 4, 0)
    (figure,) = found.metrics.values()
    grades = [sample.scores["graded"].value["right"] for sample in samples]
    assert (figure.name, figure.value) == ("accuracy", sum(grades) / 4)


def test_the_model_goes_with_tasks_that_are_not_ours(model, tmp_path):
    task = Task([Sample(input=word, target="rate") for word in WORDS], scorer=match())
    (log,) = eval(task, model=model, log_dir=str(tmp_path), display="none", epochs=2)
    assert log.status == "success", log.error
    assert len(log.samples) == 8


def test_stop_texts_end_an_answer_and_are_no_part_of_it(model):
    (whole,) = generate(model, "rate")
    text = whole.metadata[DETAILS][0]["text"]
    stop = text.split()[2]
    (cut,) = generate(model, "rate", stop_seqs=[stop])
    assert cut.metadata[DETAILS][0]["text"] == text[: text.index(stop)]
    assert cut.stop_reason == "stop"


def test_samples_of_one_chat_differ_and_those_of_a_seed_come_back(checkpoint, model):
    (several,) = generate(model, "5 5", temperature=1.0, seed=7, num_choices=6)
    texts = [each["text"] for each in several.metadata[DETAILS]]
    assert len(set(texts)) > 1 and len(several.choices) == 6
    # A model that was asked nothing yet, as in a new process.
    again = get_model(f"stair_jax/{checkpoint}", memoize=False, max_answer_tokens=12)
    found = generate(again, *["5 5"] * 6, temperature=1.0, seed=7)
    again.api.close()
    assert sorted(each.metadata[DETAILS][0]["text"] for each in found) == sorted(texts)


def test_a_search_by_a_reward_model_counts_all_that_it_sampled(checkpoint, prm):
    settings = {"method": "best_of_n", "n": 3, "max_answer_tokens": 12}
    searching = get_model(f"stair_jax/{checkpoint}", prm=str(prm), **settings)
    outputs = generate(searching, "1 rate", "2 safe")
    searching.api.close()
    details = [output.metadata[DETAILS][0] for output in outputs]
    assert [each["method"] for each in details] == ["best_of_n"] * 2
    for output, each in zip(outputs, details, strict=True):
        assert each["score"] is not None
        assert output.usage.output_tokens == each["generated_tokens"] > each["tokens"]


def test_a_chat_without_room_ends_by_the_length_of_the_model(model):
    (output,) = generate(model, " ".join(["rate"] * 80))
    assert (output.stop_reason, output.completion) == ("model_length", "")


def test_mistakes_are_one_line_that_inspect_shows(checkpoint, tmp_path):
    cases = [
        ({"method": "best_of_n"}, "needs a reward model"),
        ({"metod": "greedy"}, "metod"),
        ({"kind": "rude"}, "kind is 'rude'"),
    ]
    for arguments, reason in cases:
        with pytest.raises(PrerequisiteError, match=reason):
            get_model(f"stair_jax/{checkpoint}", **arguments)
    with pytest.raises(PrerequisiteError, match="nowhere"):
        get_model(f"stair_jax/{tmp_path}/nowhere")


def test_the_entry_point_of_the_package_makes_the_model_known():
    setup = configparser.ConfigParser()
    setup.read(Path(stair_jax.__file__).parents[1] / "setup.cfg")
    name, _, module = setup["options.entry_points"]["inspect_ai"].strip().partition(" = ")
    assert name == "stair_jax"
    assert importlib.import_module(module) is inspect_registry


def test_a_field_of_answers_that_is_told_by_the_model_is_one_of_ours(model):
    (output,) = generate(model, "rate")
    own = set(output.metadata[DETAILS][0])
    assert own <= set(Answer.__dataclass_fields__)
