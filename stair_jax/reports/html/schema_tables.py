"""Evaluations in the blocks of `schema.py`."""

from typing import TypedDict


class Cell(TypedDict):
    """A figure of a table. `value`, `low` and `high` are in `unit`.

    Attributes:
      value: the figure; null: there is none, and `note` says why.
      low: lower end of the 95 % interval; null: there is none.
      high: upper end.
      n: cases that it is made of.
      cases: that were asked.
      missing: answers without a score.
      cut: answers that ended at the limit of tokens.
      unit: "share" (of 1), "percent", or another name.
      note: why there is no figure or no interval.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    cases: int
    missing: int
    cut: int
    unit: str
    note: str


class Column(TypedDict):
    """A column of a table.

    Attributes:
      benchmark: its name.
      attack: its name; "none": the prompts as they are.
      metric: its name.
      judge: who graded; "": the benchmark without a judge.
      corrected: whether the judge's own error is taken out.
      role: of the benchmark: "reported", "development" or "training".
    """

    benchmark: str
    attack: str
    metric: str
    judge: str
    corrected: bool
    role: str


class Cost(TypedDict):
    """What the answers of a row cost, means of an answer; null: not known.

    Attributes:
      answers: number of them.
      tokens: of an answer.
      generated_tokens: sampled for an answer, those of a search included.
      steps: of an answer.
      seconds: wall time of all answers.
      latency: seconds from a prompt to its answer.
    """

    answers: int
    tokens: float | None
    generated_tokens: float | None
    steps: float | None
    seconds: float | None
    latency: float | None


class Compared(TypedDict):
    """A row minus another on the cases that both have.

    Attributes:
      row: number of the row.
      other: number of the row that is taken off.
      column: number of the column.
      value: the difference; null: there is none.
      low: lower end of its 95 % interval.
      high: upper end.
      n: number of cases.
    """

    row: int
    other: int
    column: int
    value: float | None
    low: float | None
    high: float | None
    n: int


class JudgePair(TypedDict):
    """How far two judges agree on the same answers.

    Attributes:
      column: number of the column of the first.
      other: name of the second.
      n: answers that both labelled.
      missing: answers that one of them gave no label.
      share: of answers with the same label; null: none.
      kappa: Cohen's; null: none.
    """

    column: int
    other: str
    n: int
    missing: int
    share: float | None
    kappa: float | None


class Figure(TypedDict):
    """A figure of a finished evaluation.

    Attributes:
      name: of its file, without the ending.
      svg: its text, for an `<img>` with a data: address alone.
    """

    name: str
    svg: str


class Evaluation(TypedDict):
    """The table of an evaluation.

    Attributes:
      stage: its name.
      rows: labels of the models and methods.
      columns: of the table.
      cells: [row][column]; null: there are no such answers.
      costs: of the rows.
      compared: rows against others.
      pairs: agreement of judges.
      figures: that the stage drew.
    """

    stage: str
    rows: list[str]
    columns: list[Column]
    cells: list[list[Cell | None]]
    costs: list[Cost]
    compared: list[Compared]
    pairs: list[JudgePair]
    figures: list[Figure]
