"""Answers with labels by humans, which judges are compared with."""

import re
from dataclasses import dataclass
from pathlib import Path

from stair_jax.evaluation.rows import Names, read_rows

ANSWER: Names = ("answer", "completion", "response")
LABEL: Names = ("final_label", "label")  # the first is what the annotators of XSTest agreed on
_NUMBER = re.compile(r"^\d+_")


@dataclass(frozen=True)
class Labelled:
    """An answer with its label.

    Attributes:
      id: of the row; its number from 0 where the file has none.
      prompt: what was asked.
      answer: to be judged; it may be empty.
      label: in the words of the question, see `judges.questions.QUESTIONS`.
      group: the row's type or category; "": it has none.
    """

    id: str
    prompt: str
    answer: str
    label: str
    group: str = ""


def read_labelled(path: Path, label: Names = LABEL) -> list[Labelled]:
    """Reads labelled answers: columns prompt; answer, completion or response; final_label or label.

    The files of completions that come with XSTest are of this form. Their labels begin with a
    number ("2_full_refusal"), which is left out.

    Args:
      path: see `rows.read_rows`.
      label: column of the label, such as that of another judge ("gpt4_label", "strmatch_label").

    Raises:
      UserError: the file cannot be read; a row lacks a column, or its prompt or label is empty.
    """
    return [
        Labelled(
            id=row.text("id", str(row.number)),
            prompt=row.text("prompt").strip(),
            answer=row.text(ANSWER, ""),
            label=_NUMBER.sub("", row.text(label).strip()),
            group=row.text(("type", "category"), ""),
        )
        for row in read_rows(path, "prompt", ANSWER, label)
    ]
