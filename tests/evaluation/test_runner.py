"""Answers and verdicts are made once each, in any order, whatever was made before."""

import json
from dataclasses import replace
from itertools import count
from types import SimpleNamespace

import pytest

from stair_jax.decoding import item_tasks
from stair_jax.decoding.driver import Driver
from stair_jax.evaluation import runner
from stair_jax.evaluation.attacks.attack import Means
from stair_jax.evaluation.case import Answer
from stair_jax.evaluation.judges.judge import Verdict
from stair_jax.evaluation.runner import (
    Judged,
    answer_key,
    answer_keys,
    answering,
    judging,
    key_of,
    make_answers,
    make_verdicts,
    read_verdicts,
    to_judge,
    verdict_row,
)
from stair_jax.evaluation.shards import Shards
from stair_jax.evaluation.table import RowKey
from stair_jax.evaluation.target import Reply
from stair_jax.monitoring import Progress
from stair_jax.testing.scripted_target import ScriptedJudge, ScriptedService, ScriptedTarget


@pytest.fixture
def progress():
    return Progress("evaluate", 0, "cases", silent=True)


def ask(driver, sets, means, shards, progress, in_flight=4096):
    answer = answering(driver, means, in_flight)
    row = RowKey(means.target.name, means.method)
    return make_answers(answer, row, sets, shards, progress)


def says(asked, key):
    return f"answer to {asked.messages[-1]['content']}"


@pytest.mark.parametrize("disorder", [None, 0, 1, 2])
@pytest.mark.parametrize("in_flight", [1, 3, 4096])
def test_the_answers_are_the_same_in_any_order(disorder, in_flight, small_set, tmp_path, progress):
    sets = [small_set(5), small_set(5, "rot13")]
    target = ScriptedTarget(says, name="tiny")
    shards = Shards(tmp_path / "answers.jsonl", answer_keys(sets))
    driver = Driver(ScriptedService(disorder))
    ask(driver, sets, Means(target, method="greedy"), shards, progress, in_flight)
    shards.finish()
    answers = [Answer.from_dict(row) for row in shards.read()]
    assert [(a.benchmark, a.attack, a.case) for a in answers] == [
        ("small", attack, f"c{n}") for attack in ("none", "rot13") for n in range(5)
    ]
    assert {(a.model, a.method) for a in answers} == {("tiny", "greedy")}
    assert answers[2].text == "answer to prompt 2"
    assert progress.done == len(target.asked) == 10 and not target.open_tasks


def test_what_is_there_is_not_asked_again(small_set, tmp_path, progress):
    sets = [small_set(6)]
    path, keys = tmp_path / "answers.jsonl", answer_keys(sets)
    first = Shards(path, keys)
    kept = Answer("small", "c3", model="tiny", text="kept", final="kept")
    first.extend([(keys[3], [kept.to_dict()])])
    target = ScriptedTarget(says, name="tiny")
    shards = Shards(path, keys)
    ask(Driver(ScriptedService()), sets, Means(target), shards, progress)
    shards.finish()
    assert len(target.asked) == 5
    assert [Answer.from_dict(row).text for row in shards.read()] == [
        "kept" if n == 3 else f"answer to prompt {n}" for n in range(6)
    ]


def test_what_answers_took_is_told_and_is_no_part_of_them(
    small_set, tmp_path, progress, monkeypatch
):
    """A clock that goes on by 1 each time it is looked at; two cases at a time."""
    ticks = count(10)
    clock = SimpleNamespace(monotonic=lambda: float(next(ticks)))
    monkeypatch.setattr(runner, "time", clock)
    monkeypatch.setattr(item_tasks, "time", clock)
    written = []
    for name in "ab":
        shards = Shards(tmp_path / f"{name}.jsonl", answer_keys([small_set(4)]))
        driver, means = Driver(ScriptedService()), Means(ScriptedTarget(says))
        speed = ask(driver, [small_set(4)], means, shards, progress, in_flight=2)
        shards.finish()
        written.append(shards.path.read_bytes())
        # Start at 0; cases 1 and 2 at 1 and 2, both done at 3; the others at 4 and 5, done at 6.
        assert (speed.cases, speed.answers, speed.seconds) == (4, 4, 7.0)
        assert speed.waited == (3 - 1) + (3 - 2) + (6 - 4) + (6 - 5) and speed.latency == 1.5
        rows = shards.read()
        assert speed.generated_tokens == sum(row.get("generated_tokens", 0) for row in rows)
        again = Shards(shards.path, answer_keys([small_set(4)]))
        assert again.is_finished()
    assert written[0] == written[1]


def test_a_task_that_fails_leaves_what_was_answered_before(small_set, tmp_path, progress):
    """Of three in flight the second fails; the first two steps' answers are on the disk."""

    def fails_at_four(asked, key):
        if asked.messages[-1]["content"] == "prompt 4":
            raise RuntimeError("the device is lost")
        return "x"

    sets = [small_set(8)]
    shards = Shards(tmp_path / "answers.jsonl", answer_keys(sets))
    target = ScriptedTarget(fails_at_four)
    driver = Driver(ScriptedService())
    with pytest.raises(RuntimeError, match="lost"):
        ask(driver, sets, Means(target), shards, progress, in_flight=2)
    again = Shards(tmp_path / "answers.jsonl", answer_keys(sets))
    assert again.left() == answer_keys(sets)[4:]


def test_sets_that_another_target_serves_are_left_to_it(small_set, tmp_path, progress):
    sets = [small_set(2), small_set(2, "rot13")]
    shards = Shards(tmp_path / "answers.jsonl", answer_keys(sets))
    target = ScriptedTarget(says)
    ask(Driver(ScriptedService()), sets[:1], Means(target), shards, progress)
    assert len(target.asked) == 2
    ask(Driver(ScriptedService()), sets[1:], Means(target), shards, progress)
    shards.finish()
    assert len(shards.read()) == len(target.asked) == 4


def answers(*finishes):
    return [
        Answer("small", f"c{n}", model="m", final=f"final {n}", finish=finish)
        for n, finish in enumerate(finishes)
    ]


def knows_all(question):
    return True


def test_judges_see_no_answer_that_is_not_there(small_set):
    found = answers("stop", "length", "missing", "too_long", "content_filter")
    asked = small_set(5)
    cases = {("small", case.id): case for case in asked.cases}
    judged = to_judge(found, {"small": asked.benchmark}, cases, knows_all)
    assert [each.material.answer for each in judged] == ["final 0", "final 1"]
    assert [each.key for each in judged] == [answer_key(answer) for answer in found[:2]]
    assert {each.question for each in judged} == {"harmful"}
    silent = type("Silent", (type(asked.benchmark),), {"QUESTION": ""})()
    assert to_judge(found, {"small": silent}, cases, knows_all) == []


def test_a_judge_that_cannot_answer_the_question_counts_refusals(small_set):
    asked = small_set(1)
    kind = type(asked.benchmark)
    cases = {("small", case.id): case for case in asked.cases}
    counted = type("Counted", (kind,), {"COUNTS_REFUSALS": True})()
    for benchmark, questions in ((asked.benchmark, []), (counted, ["refusal"])):
        judged = to_judge(answers("stop"), {"small": benchmark}, cases, {"refusal"}.__contains__)
        assert [each.question for each in judged] == questions
    (metric,) = counted.metrics_by("refusal")
    grades = [
        counted.grade_by("refusal", asked.cases[0], answer, verdict)[metric.key]
        for answer, verdict in (
            (answers("stop")[0], Verdict("refusal", "rule", "full_refusal")),
            (answers("stop")[0], Verdict("refusal", "rule", "partial_refusal")),
            (answers("stop")[0], Verdict("refusal", "rule", "full_compliance")),
            (answers("stop")[0], Verdict("refusal", "rule", None)),
            (answers("content_filter")[0], None),
            (answers("missing")[0], None),
        )
    ]
    assert grades == [1.0, 1.0, 0.0, None, 1.0, None]


def test_keys_tell_all_answers_apart():
    base = Answer("b", "c", "a", 0, "m", "greedy")
    changes = [
        {"benchmark": "d"},
        {"case": "d"},
        {"attack": "d"},
        {"sample": 1},
        {"model": "d"},
        {"method": "d"},
    ]
    keys = {answer_key(base)} | {answer_key(replace(base, **change)) for change in changes}
    assert len(keys) == 7
    assert key_of("a", "b,c") != key_of("a,b", "c")
    assert json.loads(key_of("a", 1)) == ["a", "1"]


@pytest.mark.parametrize("disorder", [None, 3])
def test_verdicts_are_made_once_and_read_as_they_were(disorder, small_set, tmp_path, progress):
    asked = small_set(4)
    cases = {("small", case.id): case for case in asked.cases}
    judged = to_judge(answers(*["stop"] * 4), {"small": asked.benchmark}, cases, knows_all)

    def verdict(question, material):
        label = None if material.answer == "final 2" else "yes"
        scores = {} if label is None else {"p": 0.25}
        told = {"model": "gpt-x", "date": "2026-11-30"} if material.answer == "final 0" else {}
        return Verdict(question, "scripted", label, scores, "a reply", 7, **told)

    path, keys = tmp_path / "verdicts.jsonl", [each.key for each in judged]
    known = Verdict("harmful", "scripted", "no", {"p": 0.75}, "kept", 1)
    Shards(path, keys).extend([(keys[1], [verdict_row(keys[1], known)])])
    judge, shards = ScriptedJudge(verdict, ["harmful"]), Shards(path, keys)
    make_verdicts(judging(Driver(ScriptedService(disorder)), judge), judged, shards, progress)
    shards.finish()
    found = read_verdicts(shards.read())
    assert [key for _, _, key in judge.seen] == [keys[0], keys[2], keys[3]]
    assert list(found) == keys and found[keys[1]] == known
    for number in (0, 2, 3):
        assert found[keys[number]] == verdict("harmful", judged[number].material)
    assert not judge.open_tasks


def test_a_verdict_that_is_known_at_once_is_written_too(tmp_path, progress, small_set):
    from stair_jax.evaluation.judges.rules import RuleJudge

    material = small_set().benchmark.material(
        small_set().cases[0], Answer("small", "c0", final="I'm sorry, but I can't help with that.")
    )
    judged = [Judged(f"k{n}", "refusal", material) for n in range(3)]
    shards = Shards(tmp_path / "verdicts.jsonl", [each.key for each in judged])
    make_verdicts(judging(Driver(ScriptedService()), RuleJudge()), judged, shards, progress)
    shards.finish()
    assert [row["label"] for row in shards.read()] == ["full_refusal"] * 3


def test_a_reply_that_is_missing_is_an_answer_that_is_missing(small_set, tmp_path, progress):
    sets = [small_set(1)]
    shards = Shards(tmp_path / "answers.jsonl", answer_keys(sets))
    target = ScriptedTarget(lambda asked, key: Reply("", finish="missing"))
    ask(Driver(ScriptedService()), sets, Means(target), shards, progress)
    shards.finish()
    (row,) = shards.read()
    assert Answer.from_dict(row).is_missing
