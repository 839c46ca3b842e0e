"""What a benchmark asks, and what came back: cases, answers, graded answers."""

from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any

from stair_jax.data.records import Turns
from stair_jax.storage import plain


@dataclass(frozen=True)
class Case:
    """One row of a benchmark.

    Attributes:
      id: unique in its benchmark.
      prompt: what the user asks. Judges see it, whatever an attack makes of it.
      group: subset that the case belongs to; metrics may be means over groups.
      cluster: cases of one cluster are resampled together, as they are not independent; "": the
        case stands alone.
      reference: the right answer where there is one, any JSON value.
      choices: texts of possible answers. Where there are some, no answer is asked for but the
        log-likelihood of each as the answer to the prompt.
      system: text of a system turn, in place of the model's own.
      history: turns of the chat before the prompt.
      columns: what else the grading needs, JSON values by name.
    """

    id: str
    prompt: str
    group: str = ""
    cluster: str = ""
    reference: Any = None
    choices: tuple[str, ...] = ()
    system: str | None = None
    history: Turns = ()
    columns: Mapping[str, Any] = field(default_factory=dict)

    @property
    def messages(self) -> tuple[Mapping[str, str], ...]:
        """All turns of the chat up to the prompt, as {"role", "content"}."""
        system = ({"role": "system", "content": self.system},) if self.system else ()
        return (*system, *self.history, {"role": "user", "content": self.prompt})


@dataclass(frozen=True)
class Answer:
    """An answer to a case, and its cost.

    Attributes:
      benchmark: name of the benchmark; `case` is the id there.
      attack: name of the attack; "none": the prompt as it is.
      sample: number among the answers to this case under this attack, from 0.
      model: name of the row's model.
      method: how it answers, as `inference.methods.parse_method` reads it, or "prompted".
      text: the whole answer, tags visible, with a prefill.
      reasoning: of the steps, tags and all; "": there are none, or the model does not show them.
      final: text of the output block, or the whole answer where there are no blocks; decoded where
        the attack encodes answers. What is judged.
      finish: "stop", "length" (cut off), "too_long" (the prompt has no room), "content_filter" or
        "missing" (an endpoint gave none).
      tokens: number of tokens of the answer.
      prompt_tokens: number of tokens of the prompt.
      generated_tokens: all that were sampled for it, those of a search and its scores included.
      steps: number of steps.
      score: of the answer that a search chose.
      likelihoods: log-likelihoods in nats of the case's choices.
      asked: the messages as the attack has them, and a prefill; empty: those of the case.
      attack_tokens: sampled by the attacker and by its judge up to this answer.
      well_formed: whether the answer has the form of steps and one output block.
    """

    benchmark: str
    case: str
    attack: str = "none"
    sample: int = 0
    model: str = ""
    method: str = "greedy"
    text: str = ""
    reasoning: str = ""
    final: str = ""
    finish: str = "stop"
    tokens: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    steps: int = 0
    score: float | None = None
    likelihoods: tuple[float, ...] = ()
    asked: Mapping[str, Any] = field(default_factory=dict)
    attack_tokens: int = 0
    well_formed: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As JSON values; of fields that are as by default only those that name the answer."""
        named = {"benchmark", "case", "attack", "sample", "model", "method"}
        return {
            info.name: plain(value)
            for info in fields(self)
            if (value := getattr(self, info.name)) != _default(info) or info.name in named
        }

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> "Answer":
        """Of what `to_dict` gives; columns of later versions are not read."""
        known = {info.name for info in fields(cls)}
        values = {name: value for name, value in row.items() if name in known}
        return cls(**values | {"likelihoods": tuple(values.get("likelihoods", ()))})

    @property
    def is_cut(self) -> bool:
        """Whether it ended at the limit of tokens."""
        return self.finish == "length"

    @property
    def is_missing(self) -> bool:
        """Whether there is nothing to grade."""
        return self.finish in ("too_long", "missing")


def _default(info: "Field[Any]") -> Any:
    return info.default if info.default_factory is MISSING else info.default_factory()


@dataclass(frozen=True)
class Graded:
    """An answer with its grades.

    Attributes:
      case: that was asked.
      answer: to it.
      scores: numbers by name; None: the grade is missing, e.g. because a judge's reply could not be
        read. Never a made-up number. A name that is not there: it is not about this case.
    """

    case: Case
    answer: Answer
    scores: Mapping[str, float | None]
