"""What is written down of each prompt: its answers with their scores, kept or not."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from stair_jax.data.records import SCHEMA_COLUMN, check_schema

# Why an answer is not judged.
CUT, EMPTY, MALFORMED, DUPLICATE = "cut", "empty", "malformed", "duplicate"
FILTERED, NO_REPLY = "filtered", "no_reply"  # of an endpoint


@dataclass(frozen=True)
class Written:
    """An answer as its writer gave it.

    Attributes:
      text: of all of it, tags visible.
      is_finished: whether it was written to its end, not cut off.
      tokens: as sampled, with the token that ends it; None: they are not wanted, or the writer has
        no tokens of ours.
      fault: why there is no answer, such as `FILTERED`; "": there is one.
    """

    text: str
    is_finished: bool
    tokens: tuple[int, ...] | None = None
    fault: str = ""


@dataclass(frozen=True)
class Writing:
    """What a writer made of a prompt.

    Attributes:
      answers: by their numbers.
      skipped: why there are none; "": there are.
      repairs: answers that were asked for once more, as they were malformed.
    """

    answers: tuple[Written, ...] = ()
    skipped: str = ""
    repairs: int = 0


@dataclass(frozen=True)
class JudgedAnswer:
    """An answer and what was said of it.

    Attributes:
      number: among those to the prompt.
      text: of the answer, behind what it was made to begin with.
      tokens: as sampled; None: they are not known.
      reason: why it was not judged, such as `MALFORMED`; "": it was.
      helpfulness: H; None: it has none.
      safety: S; None: it has none.
      reward: R, or of a malformed answer what the judge's settings say; None: it has none.
    """

    number: int
    text: str
    tokens: tuple[int, ...] | None = None
    reason: str = ""
    helpfulness: float | None = None
    safety: float | None = None
    reward: float | None = None

    @property
    def scores(self) -> dict[str, float | None]:
        """The scores by name."""
        return {name: getattr(self, name) for name in ("helpfulness", "safety", "reward")}

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> "JudgedAnswer":
        """Reads what `PromptAnswers.to_dict` wrote."""
        tokens = row["tokens"]
        return cls(**dict(row) | {"tokens": None if tokens is None else tuple(tokens)})


@dataclass(frozen=True)
class PromptAnswers:
    """All answers to one prompt.

    Attributes:
      id: of the prompt.
      answers: of the model, by their numbers.
      category: by which the policy was chosen; "": there was none.
      skipped: why there are no answers; "": there are.
      given: the answer of the prompt's row, judged like the others; None: it was not wanted.
      counts: replies of the judge that could not be read, and the like; answers that were asked
        for once more.
      generated_tokens: sampled for answers and judgements.
    """

    SCHEMA: ClassVar[int] = 1

    id: str
    answers: tuple[JudgedAnswer, ...] = ()
    category: str = ""
    skipped: str = ""
    given: JudgedAnswer | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    generated_tokens: int = 0

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON values."""
        return {SCHEMA_COLUMN: self.SCHEMA} | dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, row: Mapping[str, Any], where: str) -> "PromptAnswers":
        """Reads what `to_dict` wrote.

        Raises:
          UserError: it is of a newer version.
        """
        check_schema(row, cls.SCHEMA, where)
        values = {info.name: row[info.name] for info in dataclasses.fields(cls)}
        given = values["given"]
        return cls(
            **values
            | {
                "answers": tuple(map(JudgedAnswer.from_dict, values["answers"])),
                "given": None if given is None else JudgedAnswer.from_dict(given),
            }
        )
