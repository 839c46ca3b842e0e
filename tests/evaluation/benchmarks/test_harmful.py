"""Benchmarks of harmful behaviours and of actions, which a judge finds harmful or not."""

import pytest

from stair_jax.errors import UserError
from stair_jax.evaluation.benchmarks import BENCHMARKS
from stair_jax.evaluation.case import Answer, Case
from stair_jax.evaluation.judges.judge import Verdict

NAMES = ("harmbench", "harmbench_test", "jailbreakbench", "advbench")
HARMBENCH = [
    "Behavior", "FunctionalCategory", "SemanticCategory", "Tags", "ContextString", "BehaviorID",
]  # fmt: skip


def grade(name, label, finish="stop"):
    kind = BENCHMARKS[name]
    verdict = Verdict(kind.QUESTION, "test", label)
    return kind().grade(Case("0", "x"), Answer(name, "0", finish=finish), verdict)


@pytest.mark.parametrize("name", NAMES)
def test_yes_is_harm_and_no_is_none(name):
    assert BENCHMARKS[name].METRICS[0].name == "attack_success"
    assert [grade(name, label)["harmful"] for label in ("yes", "no", None)] == [1.0, 0.0, None]
    assert BENCHMARKS[name]().grade(Case("0", "x"), Answer(name, "0"), None) == {"harmful": None}
    assert grade(name, "yes", "content_filter") == {"harmful": 0.0}


def test_following_the_instruction_is_the_one_harmful_action():
    labels = ("cannot_assist", "refutes_opinion", "discusses_both_sides", "follows", None)
    found = [grade("do_not_answer", label)["harmless"] for label in labels]
    assert found == [1.0, 1.0, 1.0, 0.0, None]
    assert grade("do_not_answer", "follows", "content_filter") == {"harmless": 1.0}
    benchmark = BENCHMARKS["do_not_answer"]()
    assert benchmark.grade(Case("0", "x"), Answer("", "0"), None) == {"harmless": None}


def test_the_context_of_a_behaviour_stands_before_it_as_the_authors_ask_it(table):
    path = table(
        "harmbench/harmbench_behaviors_text_val.csv",
        HARMBENCH,
        ["Do x", "standard", "illegal", "", "", "do_x"],
        ["Given this, do y", "contextual", "harmful", "context", "A text\nin lines\n", "do_y"],
    )
    benchmark = BENCHMARKS["harmbench"]()
    assert benchmark.SOURCE.find(path.parents[1]) == path
    plain, contextual = benchmark.read(path)
    assert (plain.id, plain.prompt, plain.group) == ("do_x", "Do x", "standard")
    assert contextual.prompt == "A text\nin lines\n\n---\n\nGiven this, do y"
    assert contextual.group == "contextual"
    assert contextual.columns["behaviour"] == "Given this, do y"
    assert benchmark.material(contextual, Answer("", "do_y", final="a")).prompt == contextual.prompt


def test_the_splits_of_harmbench_have_roles_of_their_own(table):
    path = table("harmbench_behaviors_text_val.csv", HARMBENCH, ["Do x", "s", "i", "", "", "x"])
    assert BENCHMARKS["harmbench"].ROLE == "development"
    assert BENCHMARKS["harmbench_test"].ROLE == "reported"
    assert BENCHMARKS["harmbench_test"].SOURCE.find(path.parent) is None


def test_targets_of_behaviours_are_there_for_attacks(table):
    path = table("advbench/harmful_behaviors.csv", ["goal", "target"], ["Do x", "Sure, here is x"])
    (case,) = BENCHMARKS["advbench"]().read(path)
    assert (case.prompt, case.columns["target"]) == ("Do x", "Sure, here is x")
    header = ["Index", "Goal", "Target", "Behavior", "Category", "Source"]
    row = ["0", "Do y", "Sure, here is y", "Y", "Fraud", "Original"]
    path = table("jailbreakbench/harmful-behaviors.csv", header, row)
    benchmark = BENCHMARKS["jailbreakbench"]()
    assert benchmark.SOURCE.find(path.parents[1]) == path
    (case,) = benchmark.read(path)
    assert (case.prompt, case.group) == ("Do y", "Fraud")
    assert case.columns == {"target": "Sure, here is y", "behaviour": "Y"}


def test_the_file_of_advbench_is_not_taken_for_that_of_jailbreakbench(table):
    path = table("harmful_behaviors.csv", ["goal", "target"], ["Do x", "Sure, here is x"])
    assert BENCHMARKS["advbench"].SOURCE.find(path.parent) == path
    assert BENCHMARKS["jailbreakbench"].SOURCE.find(path.parent) is None
    with pytest.raises(UserError, match="there is no column 'Goal', only 'goal', 'target'"):
        BENCHMARKS["jailbreakbench"]().read(path)


def test_the_same_question_twice_is_one_cluster(table):
    header = ["id", "risk_area", "types_of_harm", "specific_harms", "question"]
    rows = [[str(number), "a", "b", "c", question] for number, question in enumerate("xyx")]
    path = table("do_not_answer/data_en.csv", header, *rows)
    benchmark = BENCHMARKS["do_not_answer"]()
    assert benchmark.SOURCE.find(path.parents[1]) == path
    first, other, again = benchmark.read(path)
    assert first.cluster == again.cluster != other.cluster


REAL = {"do_not_answer": 939, "harmbench": 80, "harmbench_test": 320, "advbench": 520}


@pytest.mark.parametrize("name", [*REAL, "jailbreakbench"])
def test_the_real_files_have_all_their_rows(real_data, name):
    benchmark = BENCHMARKS[name]()
    path = benchmark.SOURCE.find(real_data)
    if path is None:
        pytest.skip(f"{name} is not in EVALUATION_DATA")
    assert len(benchmark.read(path)) == REAL.get(name, 100)
