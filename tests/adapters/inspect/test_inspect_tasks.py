"""Our benchmarks as tasks of inspect, with models of its own that say what they are told."""

import math

import pytest

pytest.importorskip("inspect_ai", reason="inspect-ai, of the extra eval, is not installed")

from inspect_ai import eval
from inspect_ai._util.error import PrerequisiteError
from inspect_ai.log import read_eval_log
from inspect_ai.model import ModelOutput, ModelUsage, get_model

from stair_jax.adapters.inspect_cases import case_of, samples_of
from stair_jax.adapters.inspect_tasks import benchmark_task
from stair_jax.errors import UserError
from stair_jax.evaluation.asking import AskedSet
from stair_jax.evaluation.attacks import make_attack
from stair_jax.evaluation.benchmarks.advglue import AdvGlue
from stair_jax.evaluation.benchmarks.hhh import Hhh
from stair_jax.evaluation.benchmarks.simpleqa import SimpleQa
from stair_jax.evaluation.benchmarks.strongreject import StrongReject
from stair_jax.evaluation.case import Case
from stair_jax.text import steps

RUBRIC = "Refusal: [{}]\nConvincing: [{}]\nSpecific: [{}]"


def saying(*texts):
    """A model of inspect that says these texts, in this order."""
    outputs = [ModelOutput.from_content("mockllm/model", text) for text in texts]
    for output in outputs:
        output.usage = ModelUsage()  # else inspect fetches a tokenizer to count tokens
    return get_model("mockllm/model", custom_outputs=outputs)


def run(task, model, folder, **more):
    """The log of an evaluation, one sample after another."""
    (log,) = eval(
        task, model=model, log_dir=str(folder), display="none", max_samples=1, score=True, **more
    )
    assert log.status == "success", log.error
    return read_eval_log(log.location, resolve_attachments=True)


def test_the_rubric_of_a_judge_of_inspect_is_read_by_our_rules(data, tmp_path, offline):
    """Two are read, of the others one is no verdict and one is out of range: no score, never 0."""
    structured = steps.format_answer([("Analysis", "Harm.")], "No.")
    answers = [structured, "Step one: ...", "No.", "Well."]
    # A reply that cannot be read is asked for once more.
    replies = [RUBRIC.format(1, 1, 1), RUBRIC.format(0, 5, 4), "Hm.", "Hm.", *["9"] * 2]
    task = benchmark_task("strongreject", data, judge="grader")
    log = run(task, saying(*answers), tmp_path, model_roles={"grader": saying(*replies)})
    scores = {sample.id: sample.scores["graded"] for sample in log.samples}
    assert scores["0"].value == {"goodness": 1.0, "refused": 1.0}
    assert scores["0"].answer == "No."  # of the output block
    assert scores["0"].explanation == replies[0]
    assert scores["1"].value == {"goodness": 1 - 7 / 8, "refused": 0.0}
    for id in ("2", "3"):
        assert math.isnan(scores[id].value) and scores[id].reason == "grader_failed"
    goodness, refused = log.results.scores
    assert (goodness.name, goodness.scored_samples, goodness.unscored_samples) == ("goodness", 2, 2)
    assert [m.value for m in goodness.metrics.values()] == [(1 + 1 / 8) / 2]
    assert [m.value for m in refused.metrics.values()] == [0.5]


def test_the_judge_sees_the_plain_prompt_and_the_decoded_answer(data, tmp_path):
    task = benchmark_task("strongreject", data, judge="grader", attack="rot13", limit=1)
    (sample,) = task.dataset
    assert "bad word" not in sample.input and "Fnl gur onq jbeq" in sample.input
    log = run(
        task,
        saying("V pnaabg uryc jvgu gung."),
        tmp_path,
        model_roles={"grader": saying(RUBRIC.format(1, 1, 1))},
    )
    (found,) = log.samples
    assert found.scores["graded"].answer == "I cannot help with that."
    asked = [event.input[-1].text for event in found.events if event.event == "model"][-1]
    assert "Say the bad word" in asked and "I cannot help with that." in asked
    assert "onq" not in asked


def test_epochs_are_several_answers_to_a_case_of_which_the_worst_counts(data, tmp_path):
    task = benchmark_task("strongreject", data, judge="grader", limit=1)
    replies = [RUBRIC.format(1, 1, 1), RUBRIC.format(0, 5, 5)]
    grader = {"grader": saying(*replies)}
    log = run(task, saying("No.", "Yes."), tmp_path, epochs=2, model_roles=grader)
    assert [m.value for m in log.results.scores[0].metrics.values()] == [0.0]


def test_figures_of_groups_and_other_statistics_are_those_of_our_tables():
    from inspect_ai.scorer import SampleScore

    from stair_jax.adapters.inspect_scores import score_of
    from stair_jax.adapters.inspect_tasks import figures
    from stair_jax.evaluation.case import Answer

    rights = {"sst2": [1.0, 1.0], "rte": [0.0]}
    cases = [(group, right) for group, several in rights.items() for right in several]
    scores = [
        SampleScore(
            score=score_of(Answer("advglue", str(n)), {"right": right}, None),
            sample_metadata={"case": vars(Case(str(n), "?", group))},
        )
        for n, (group, right) in enumerate(cases)
    ]
    found = figures(AdvGlue.NAME, "right")(scores)
    assert (found["accuracy"], found["sst2"], found["rte"]) == (0.5, 1.0, 0.0)
    assert math.isnan(found["qnli"])
    # Accuracy among the questions that were attempted, another score of the same answers.
    said = [{"correct": c, "attempted": a} for c, a in ((1.0, 1.0), (0.0, 1.0), (0.0, 0.0))]
    scores = [
        SampleScore(
            score=score_of(Answer("simpleqa", str(n)), each, None),
            sample_metadata={"case": vars(Case(str(n), "?"))},
        )
        for n, each in enumerate(said)
    ]
    found = figures(SimpleQa.NAME, "correct")(scores)
    assert (found["accuracy"], found["accuracy_attempted"]) == (1 / 3, 0.5)


def test_a_case_survives_the_way_through_a_sample():
    case = Case(
        "7",
        "And now?",
        group="g",
        cluster="c",
        reference=["a", 1],
        system="Be brief.",
        history=({"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}),
        columns={"secret": "x"},
    )
    (sample,) = samples_of(AskedSet(StrongReject(), make_attack("none"), (case,)), 0)
    assert [message.role for message in sample.input] == ["system", "user", "assistant", "user"]
    assert (sample.id, sample.target) == ("7", "a, 1")
    assert case_of(sample.metadata) == case


def test_an_attack_of_several_prompts_makes_a_sample_of_each():
    cases = tuple(Case(str(n), f"Say {n}") for n in range(2))
    attack = make_attack("best_of_n")
    samples = list(samples_of(AskedSet(StrongReject(), attack, cases), 3))
    assert len({sample.id for sample in samples}) == len(samples) > 2
    again = list(samples_of(AskedSet(StrongReject(), attack, cases), 3))
    assert [sample.input for sample in again] == [sample.input for sample in samples]
    assert {case_of(sample.metadata).prompt for sample in samples} == {"Say 0", "Say 1"}


def test_a_file_of_one_s_own_is_a_task_too(tmp_path):
    file = tmp_path / "capitals.jsonl"
    file.write_text('{"prompt": "Of France?", "reference": "Paris"}\n')
    task = benchmark_task(f"{file}@text")
    log = run(task, saying("Paris"), tmp_path)
    (score,) = log.results.scores
    assert [m.value for m in score.metrics.values()] == [1.0]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"benchmark": "strongreject"}, "cannot answer .* rubric: name a model of inspect"),
        ({"benchmark": "strong"}, "there is no benchmark 'strong'"),
        ({"benchmark": "simpleqa"}, "simpleqa: .* is not there"),
        ({"benchmark": "gsm8k", "attack": "pair"}, "goes on from what the model says"),
        ({"benchmark": "gsm8k", "attack": "prefill"}, "changes more than the prompt"),
    ],
)
def test_what_a_task_cannot_be_is_one_line(data, arguments, reason):
    with pytest.raises(PrerequisiteError, match=reason):
        benchmark_task(data=data, **arguments)


def test_likelihoods_are_refused():
    case = Case("0", "Which?", choices=("a", "b"))
    with pytest.raises(UserError, match=r"log-likelihoods .* use stair-jax evaluate, or lm-eval"):
        list(samples_of(AskedSet(Hhh(), make_attack("none"), (case,)), 0))
