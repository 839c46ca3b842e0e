"""From answers and verdicts to the files of a finished evaluation."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stair_jax import storage
from stair_jax.evaluation.asking import AskedSet
from stair_jax.evaluation.benchmark import Benchmark
from stair_jax.evaluation.calibration import Calibration
from stair_jax.evaluation.case import Answer, Graded
from stair_jax.evaluation.drawing import write_scaling
from stair_jax.evaluation.graded_rows import GRADED_FILE, graded_rows
from stair_jax.evaluation.judges.judge import Verdict
from stair_jax.evaluation.method_scaling import main_results
from stair_jax.evaluation.runner import answer_key
from stair_jax.evaluation.table import RowKey, Table, row_label
from stair_jax.evaluation.tabulate import Result, tabulate
from stair_jax.evaluation.tradeoff import ATTACK_MEANS
from stair_jax.evaluation.writers import write_table
from stair_jax.inference.candidates import TestTimeSettings

Answers = Mapping[RowKey, Sequence[Answer]]


@dataclass(frozen=True)
class Verdicts:
    """What one judge said.

    Attributes:
      judge: its name.
      identity: what makes its verdicts comparable.
      questions: that it can answer.
      found: by `answer_key`.
      calibrations: by question, against labelled rows.
    """

    judge: str
    identity: Mapping[str, Any]
    questions: frozenset[str]
    found: Mapping[str, Verdict]
    calibrations: Mapping[str, Calibration] = field(default_factory=dict)


def grade(
    asked: AskedSet, answers: Sequence[Answer], verdicts: Mapping[str, Verdict], question: str
) -> list[Graded]:
    """The graded answers of a set.

    Args:
      asked: the set.
      answers: to it.
      verdicts: of one judge, by `answer_key`.
      question: that it was asked; "": no judge.
    """
    benchmark, cases = asked.benchmark, {case.id: case for case in asked.cases}
    graded = []
    for answer in answers:
        case = cases[answer.case]
        verdict = verdicts.get(answer_key(answer))
        scores = benchmark.grade_by(question, case, answer, verdict)
        graded.append(Graded(case, answer, scores))
    return graded


def results_of(
    sets: Sequence[AskedSet],
    answers: Answers,
    judges: Sequence[Verdicts],
) -> Iterator[Result]:
    """Graded answers by row, set and judge; those that no judge could grade are left out.

    Args:
      sets: in the order of the columns.
      answers: by row, in the order of the rows.
      judges: in the order in which they were named.
    """
    for row, of_row in answers.items():
        by_set: dict[tuple[str, str], list[Answer]] = {}
        for answer in of_row:
            by_set.setdefault((answer.benchmark, answer.attack), []).append(answer)
        for asked in sets:
            name = (asked.benchmark.NAME, asked.attack.name)
            for judge, question in _judges_of(asked.benchmark, judges):
                if name not in by_set:
                    continue
                yield Result(
                    model=row.model,
                    method=row.method,
                    benchmark=name[0],
                    attack=name[1],
                    metrics=asked.benchmark.metrics_by(question),
                    rows=grade(asked, by_set[name], judge.found if judge else {}, question),
                    role=asked.benchmark.ROLE,
                    judge=judge.judge if judge else "",
                    identity=judge.identity if judge else {},
                    calibration=judge.calibrations.get(question) if judge else None,
                )


def _judges_of(
    benchmark: Benchmark, judges: Sequence[Verdicts]
) -> Iterator[tuple[Verdicts | None, str]]:
    """Who graded a benchmark, and by which question."""
    if not benchmark.QUESTION:
        yield None, ""
        return
    for judge in judges:
        if question := benchmark.question_for(judge.questions.__contains__):
            yield judge, question


def write_report(
    folder: Path,
    results: Sequence[Result],
    sets: Sequence[AskedSet],
    test_time: TestTimeSettings | None = None,
) -> Table:
    """Writes the table in all its forms, the details, the graded answers, and figures.

    Args:
      folder: gets table.json, table.md, table.tex, table.csv, details.json and graded.jsonl; where
        a method searches, figures/ and, with several sizes of one, equal_tokens.md.
      results: of `results_of`.
      sets: that were asked.
      test_time: of the searches, where their names have no size; None: the defaults.
    """
    table = tabulate(results, ATTACK_MEANS)
    benchmarks = {asked.benchmark.NAME: asked.benchmark for asked in sets}
    details: dict[str, Any] = {}
    named = {(one.benchmark, one.attack): one.judge for one in reversed(results)}
    for result in results:
        if found := benchmarks[result.benchmark].details(result.rows):
            row = details.setdefault(row_label(result.key), {})
            row[_name_of(result, named)] = found
    storage.write_jsonl(folder / GRADED_FILE, graded_rows(results))
    storage.write_json(folder / "details.json", details)
    write_table(table, folder)
    write_scaling(folder, table, main_results(results, benchmarks), test_time or TestTimeSettings())
    return table


def _name_of(result: Result, first: Mapping[tuple[str, str], str]) -> str:
    """Benchmark and attack as the user names them; with the judge, unless it is the first one."""
    attack = "" if result.attack == "none" else f":{result.attack}"
    is_first = first[result.benchmark, result.attack] == result.judge
    return result.benchmark + attack + ("" if is_first else f", {result.judge}")
