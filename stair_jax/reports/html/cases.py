"""The cases of the evaluations of a run: a line for each, and the answers to one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stair_jax.evaluation.benchmark import text_of
from stair_jax.evaluation.case import Answer
from stair_jax.reports.answers import Evaluated, GradedAnswer, Place, read_evaluation, with_texts
from stair_jax.reports.html import schema_cases as schema
from stair_jax.reports.html.parts import Columns, Part, in_turn
from stair_jax.reports.html.texts import as_turns, brief
from stair_jax.reports.records import RunRecords

Replies = Mapping[str, GradedAnswer]  # by label of the row


@dataclass(frozen=True)
class EvaluatedCases:
    """The cases of an evaluation.

    Attributes:
      stage: its name.
      found: all answers.
      places: what was asked, in the order of the answers.
    """

    stage: str
    found: Evaluated
    places: tuple[Place, ...]

    @property
    def rows(self) -> list[str]:
        """Labels of the models and methods."""
        return list(self.found.rows)

    def replies(self, place: Place) -> Replies:
        """The answers to a case by row; a row without one is not there."""
        return {row: given[place] for row, given in self.found.rows.items() if place in given}


def read_cases(run: RunRecords) -> list[EvaluatedCases]:
    """The cases of all finished evaluations.

    Raises:
      UserError: a file is missing or damaged.
    """
    found = []
    for stage in run.of_kind("evaluate"):
        answers = read_evaluation(stage, light=True)
        places = dict.fromkeys(place for row in answers.rows.values() for place in row)
        found.append(EvaluatedCases(stage.name, answers, tuple(places)))
    return found


def cases_part(evaluations: Sequence[EvaluatedCases]) -> Part:
    """The lists of all cases of a run."""
    lists = [_columns(evaluation) for evaluation in evaluations]
    places = [(each, place) for each in evaluations for place in each.places]
    flags = [
        (not judges, not rows)
        for columns in lists
        for judges, rows in zip(columns["judges_differ"], columns["rows_differ"], strict=True)
    ]
    strata: dict[tuple[Any, ...], list[int]] = {}
    for row, (evaluation, place) in enumerate(places):
        key = (*flags[row], evaluation.stage, place.benchmark, place.attack)
        strata.setdefault(key, []).append(row)

    def read(row: int) -> schema.Case:
        return _case(*places[row])

    order = in_turn({key: strata[key] for key in sorted(strata)})
    return Part("cases", lists, [len(each.places) for each in evaluations], read, order, False)


def _columns(evaluation: EvaluatedCases) -> Columns:
    """Of `CaseList`."""
    rows, places = evaluation.rows, evaluation.places
    answers = [evaluation.replies(place) for place in places]
    judges = list(dict.fromkeys(name for each in answers for name in _judges(each)))
    metrics = [_metric(each) for each in answers]
    values = [[_value(each.get(row)) for each in answers] for row in rows]
    asked = evaluation.found.asked
    known = [
        asked[place.benchmark].cases.get(place.case) if place.benchmark in asked else None
        for place in places
    ]
    return {
        "stage": evaluation.stage,
        "rows": rows,
        "judges": judges,
        "benchmark": [place.benchmark for place in places],
        "attack": [place.attack for place in places],
        "case": [place.case for place in places],
        "group": [case.group if case else "" for case in known],
        "prompt": [brief(case.prompt) if case else "" for case in known],
        "metric": [name for name, _ in metrics],
        "low_is_good": [is_low for _, is_low in metrics],
        "values": values,
        "labels": [
            [[_label(each.get(row), judge) for each in answers] for row in rows] for judge in judges
        ],
        "judges_differ": [any(map(_judges_differ, each.values())) for each in answers],
        "rows_differ": [
            len({one for one in own if one is not None}) > 1 for own in zip(*values, strict=True)
        ],
    }


def _judges(replies: Replies) -> list[str]:
    return [name for reply in replies.values() for name in (*reply.scores, *reply.verdicts)]


def _metric(replies: Replies) -> tuple[str, bool]:
    """The figure that a case counts for first, and whether a lower one is better."""
    named = (reply for reply in replies.values() if reply.metric)
    return next(((reply.metric, reply.low_is_good) for reply in named), ("", False))


def _value(reply: GradedAnswer | None) -> float | None:
    return None if reply is None else reply.value


def _label(reply: GradedAnswer | None, judge: str) -> str | None:
    verdict = None if reply is None else reply.verdicts.get(judge)
    return None if verdict is None else verdict.label


def _judges_differ(reply: GradedAnswer) -> bool:
    """Whether two judges gave different labels to one question, or scores of one name."""
    said: dict[str, set[Any]] = {}
    for verdict in reply.verdicts.values():
        if verdict.label is not None:
            said.setdefault(f"label/{verdict.question}", set()).add(verdict.label)
    for scores in reply.scores.values():
        for name, value in scores.items():
            if value is not None:
                said.setdefault(f"score/{name}", set()).add(value)
    return any(len(different) > 1 for different in said.values())


def _case(evaluation: EvaluatedCases, place: Place) -> schema.Case:
    asked = evaluation.found.asked.get(place.benchmark)
    case = asked.cases.get(place.case) if asked else None
    return {
        "turns": as_turns(case.messages) if case else [],
        "reference": text_of(case.reference) if case and not case.choices else "",
        "answers": [
            _answer(evaluation.rows.index(row), with_texts(reply))
            for row, reply in evaluation.replies(place).items()
        ],
    }


def _answer(row: int, reply: GradedAnswer) -> schema.Answer:
    answer = reply.answer
    return {
        "row": row,
        "text": _whole_text(answer),
        "final": answer.final,
        "finish": answer.finish,
        "tokens": answer.tokens,
        "generated_tokens": answer.generated_tokens,
        "asked": _asked(answer.asked),
        "grades": [
            _grade(judge, reply) for judge in dict.fromkeys([*reply.scores, *reply.verdicts])
        ],
    }


def _whole_text(answer: Answer) -> str:
    """The answer behind its reasoning, which endpoints tell apart from it."""
    is_apart = answer.reasoning and answer.reasoning not in answer.text
    return f"{answer.reasoning}\n\n{answer.text}" if is_apart else answer.text


def _asked(asked: Mapping[str, Any]) -> list[list[str]]:
    """The turns as an attack has them; what it puts into the model's mouth is the last one."""
    prefill = [["assistant", str(asked["prefill"])]] if asked.get("prefill") else []
    return [*as_turns(asked.get("messages", ())), *prefill]


def _grade(judge: str, reply: GradedAnswer) -> schema.Grade:
    verdict = reply.verdicts.get(judge)
    return {
        "judge": judge,
        "label": verdict.label if verdict else None,
        "scores": dict(reply.scores.get(judge) or (verdict.scores if verdict else {})),
        "text": verdict.text if verdict else "",
    }
