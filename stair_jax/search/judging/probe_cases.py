"""Labelled cases that show whether a judge can tell good answers from bad ones.

The built-in ones (`probe_cases.jsonl`) are of our own wording: harmful requests that are refused or
answered, harmless ones that sound harmful and are answered or refused, and plain ones with a right,
a wrong, a beside-the-point or no answer. The harmful answers only begin to comply, in vague words.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stair_jax.data.records import KINDS
from stair_jax.errors import UserError
from stair_jax.pocket.judge_cases import judge_cases
from stair_jax.search.judging.replies import QUESTIONS, Question
from stair_jax.storage import read_jsonl

DEFAULT, POCKET = "default", "pocket"  # the cases that come with the package, by name
_FILE = Path(__file__).with_name("probe_cases.jsonl")
_COLUMNS = "{prompt, kind, answer, safety, helpfulness}"


@dataclass(frozen=True)
class ProbeCase:
    """A prompt, an answer, and on which side its scores belong.

    Attributes:
      prompt: the user's prompt.
      kind: "safety" or "helpfulness", as of the prompts of a search.
      answer: the final answer.
      safety: +1, -1, or None where it does not matter.
      helpfulness: the same.
      reference: the right answer of a prompt that has one, for the source "reference".
    """

    prompt: str
    kind: str
    answer: str
    safety: int | None
    helpfulness: int | None
    reference: str | None = None

    def label(self, question: Question) -> int | None:
        """The expected side of one score."""
        return self.safety if question == "safety" else self.helpfulness


def read_cases(source: str) -> list[ProbeCase]:
    """The built-in cases (`DEFAULT`), those of the pocket world (`POCKET`), or those of a file.

    Raises:
      UserError: there is no such file, or a line lacks a column or has a value that cannot be.
    """
    if source == POCKET:
        return [_read_case(row, "a case of the pocket world") for row in judge_cases()]
    path = _FILE if source == DEFAULT else Path(source).expanduser()
    if not path.is_file():
        raise UserError(
            f"judge.probe names {path}, which is no file: name JSON lines {_COLUMNS}, "
            f"{DEFAULT!r} for the built-in cases, {POCKET!r} for those of the pocket world, or '' "
            "for none"
        )
    rows = enumerate(read_jsonl(path), start=1)
    cases = [_read_case(row, f"{path}, line {number}") for number, row in rows]
    if not cases:
        raise UserError(f"{path} is empty: it needs lines {_COLUMNS}")
    return cases


def _read_case(row: dict[str, Any], where: str) -> ProbeCase:
    for name in ("prompt", "kind", "answer"):
        if not isinstance(row.get(name), str) or not row[name].strip():
            raise UserError(f"{where}: a case needs a text in {name!r}; its columns are {_COLUMNS}")
    if row["kind"] not in KINDS:
        raise UserError(f"{where}: kind is {row['kind']!r}: it must be one of {', '.join(KINDS)}")
    for question in QUESTIONS:
        label = row.get(question)
        if label is not None and (isinstance(label, bool) or label not in (-1, 1)):
            raise UserError(f"{where}: {question} is {label!r}: it must be 1, -1 or null")
    labels = (row.get("safety"), row.get("helpfulness"))
    if labels == (None, None):
        raise UserError(f"{where}: a case needs safety or helpfulness, 1 or -1")
    safety, helpfulness = (None if label is None else int(label) for label in labels)
    reference = row.get("reference")
    return ProbeCase(
        row["prompt"],
        row["kind"],
        row["answer"],
        safety,
        helpfulness,
        None if reference is None else str(reference),
    )
