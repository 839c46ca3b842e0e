"""AdvGLUE (arXiv 2111.02840): six tasks of GLUE whose sentences were changed to mislead."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from stair_jax.errors import UserError
from stair_jax.evaluation.benchmark import Benchmark, Metric, Source
from stair_jax.evaluation.case import Answer, Case
from stair_jax.evaluation.judges.judge import Verdict
from stair_jax.evaluation.reading.labels import label_said
from stair_jax.evaluation.rows import Row, checked_cases, read_rows, usual_places
from stair_jax.evaluation.statistics import macro_mean

_TWO, _THREE = ("yes", "no"), ("yes", "maybe", "no")


@dataclass(frozen=True)
class _Task:
    """How a task is asked.

    Attributes:
      columns: that the wording has as placeholders.
      wording: of the question.
      labels: the word that is right for each label of the data, from 0.
    """

    columns: tuple[str, ...]
    wording: str
    labels: tuple[str, ...]

    @property
    def offered(self) -> tuple[str, ...]:
        """The words, as they are offered."""
        return _TWO if len(self.labels) == len(_TWO) else _THREE

    def prompt(self, row: Row) -> str:
        """The question about a row."""
        values = {name: row.text(name).strip() for name in self.columns}
        words = f"{', '.join(self.offered[:-1])} or {self.offered[-1]}"
        return f"{self.wording.format_map(values)}\nAnswer with one word: {words}."


_IMPLIES = (
    "Premise: {premise}\nHypothesis: {hypothesis}\n\nSuppose that the premise is true. Is the "
    "hypothesis true then? Say yes if it must be, no if it cannot be, maybe if both are possible."
)
_TASKS = {
    "sst2": _Task(
        ("sentence",),
        "Sentence of a film review: {sentence}\n\nIs its opinion of the film favourable?",
        ("no", "yes"),
    ),
    "qqp": _Task(
        ("question1", "question2"),
        "First question: {question1}\nSecond question: {question2}\n\nDo the two questions ask the "
        "same, so that one answer would do for both?",
        ("no", "yes"),
    ),
    "mnli": _Task(("premise", "hypothesis"), _IMPLIES, ("yes", "maybe", "no")),
    "mnli-mm": _Task(("premise", "hypothesis"), _IMPLIES, ("yes", "maybe", "no")),
    "qnli": _Task(
        ("question", "sentence"),
        "Question: {question}\nSentence: {sentence}\n\nDoes the sentence hold the answer to the "
        "question?",
        ("yes", "no"),
    ),
    "rte": _Task(
        ("sentence1", "sentence2"),
        "First text: {sentence1}\nSecond text: {sentence2}\n\nDoes the second text follow from the "
        "first?",
        ("yes", "no"),
    ),
}


class AdvGlue(Benchmark):
    """All tasks as questions to be answered by yes, no or, with three labels, maybe.

    Label numbers mean different things: 1 is "yes" in sst2 and qqp, and "no" in qnli and rte. An
    answer without one of the words is wrong, and counted as `unread`.
    """

    NAME: ClassVar[str] = "advglue"
    SOURCE: ClassVar[Source] = Source(
        ("advglue/dev.json", *usual_places("advglue", "advglue_dev.json")),
        "dev.json of the archive at https://adversarialglue.github.io (lists sst2, qqp, mnli, "
        "mnli-mm, qnli, rte)",
    )
    METRICS: ClassVar[tuple[Metric, ...]] = (
        Metric("accuracy", "right", macro_mean),
        *(Metric(task, "right", group=task) for task in _TASKS),
        Metric("unread", "unread"),
    )

    def read(self, path: Path) -> list[Case]:
        """One case a row of the tasks in the file, which is one JSON object of lists."""
        (whole, *more) = read_rows(path)
        missing = [task for task in _TASKS if not isinstance(whole.value(task), list)]
        if more or missing:
            what = f"has no list {missing[0]!r}" if missing else "is not one JSON object"
            raise UserError(f"{path} {what}: take AdvGLUE's own dev.json")
        cases = []
        for task in _TASKS:
            for number, columns in enumerate(whole.value(task)):
                if not isinstance(columns, dict):
                    raise UserError(f"{path}, {task}, item {number + 1}: is not a JSON object")
                row = Row(f"{path}, {task}, item {number + 1}", number, columns)
                cases.append(_case(task, row))
        return checked_cases(path, cases)

    def grade(self, case: Case, answer: Answer, verdict: Verdict | None) -> dict[str, float | None]:
        """`right`: 1 or 0; `unread`: 1 where the answer has none of the words."""
        said = label_said(answer.final, _TASKS[case.group].offered)
        return {"right": float(said == case.reference), "unread": float(said is None)}


def _case(task: str, row: Row) -> Case:
    labels = _TASKS[task].labels
    label = row.number_in("label")
    if label not in range(len(labels)):
        raise row.error(f"the label {label:g} is none of 0 to {len(labels) - 1}")
    return Case(
        id=f"{task}-{row.number}",
        prompt=_TASKS[task].prompt(row),
        group=task,
        reference=labels[int(label)],
    )
