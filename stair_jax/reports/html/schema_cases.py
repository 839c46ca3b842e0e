"""Cases of evaluations with their answers in the blocks of `schema.py`."""

from typing import TypedDict


class CaseList(TypedDict):
    """The cases of an evaluation as columns; a case under another attack is another one.

    Attributes:
      stage: name of the evaluation.
      rows: labels of the models and methods, as of its Evaluation.
      judges: names of the judges; "": graded without one.
      benchmark: of the case.
      attack: on it; "none": the prompt as it is.
      case: its id in the benchmark.
      group: subset that it belongs to.
      prompt: its first characters; "": not known any more.
      metric: name of the figure that the case counts for first; "": not known.
      low_is_good: whether a lower value is the better one.
      values: [row][case] of that figure; null: no answer, or no score.
      labels: [judge][row][case] of the verdicts; null: none, or not readable.
      judges_differ: whether two judges gave an answer to the case different scores of one name, or
        different labels.
      rows_differ: whether two rows have different values.
      block: number of the block that has the answers; null: not in this file.
      slot: place in the block.
    """

    stage: str
    rows: list[str]
    judges: list[str]
    benchmark: list[str]
    attack: list[str]
    case: list[str]
    group: list[str]
    prompt: list[str]
    metric: list[str]
    low_is_good: list[bool]
    values: list[list[float | None]]
    labels: list[list[list[str | None]]]
    judges_differ: list[bool]
    rows_differ: list[bool]
    block: list[int | None]
    slot: list[int]


class Grade(TypedDict):
    """What a judge found of an answer.

    Attributes:
      judge: its name; "": graded without one.
      label: of its verdict; null: none, or not readable.
      scores: numbers by name; null: missing.
      text: its words; "": none.
    """

    judge: str
    label: str | None
    scores: dict[str, float | None]
    text: str


class Answer(TypedDict):
    """An answer to a case.

    Attributes:
      row: number of the row.
      text: the whole answer, tags visible.
      final: what was judged.
      finish: "stop", "length" (cut off), "too_long", "content_filter" or "missing".
      tokens: of the answer.
      generated_tokens: all that were sampled for it.
      asked: the turns as an attack had them, as [role, text], with what it put into the model's
        mouth as the last one; empty: those of the case.
      grades: of the judges.
    """

    row: int
    text: str
    final: str
    finish: str
    tokens: int
    generated_tokens: int
    asked: list[list[str]]
    grades: list[Grade]


class Case(TypedDict):
    """A case with its answers.

    Attributes:
      turns: the chat up to the prompt, as [role, text]; empty: not known any more.
      reference: the right answer; "": there is none.
      answers: of the rows that have one, in their order.
    """

    turns: list[list[str]]
    reference: str
    answers: list[Answer]
