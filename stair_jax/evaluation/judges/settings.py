"""How the judges of an evaluation are asked."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stair_jax.decoding.requests import Sampling
from stair_jax.endpoints.settings import EndpointSettings
from stair_jax.errors import UserError, did_you_mean
from stair_jax.evaluation.judges.questions import QUESTIONS
from stair_jax.settings import Settings, require, setting

Kind = Literal["rule", "model", "classifier", "endpoint"]
_KINDS: tuple[Kind, ...] = ("rule", "model", "classifier", "endpoint")
_NAMED = ("model", "classifier")  # kinds that need a name behind a colon


@dataclass(frozen=True)
class JudgeSpec:
    """Who judges.

    Attributes:
      kind: "rule", "endpoint", or a checkpoint: a "model" that writes, or a "classifier". "model"
        without its kind in front: what the checkpoint is decides.
      name: of the checkpoint, see `find_model`; "": the kind has none.
      is_explicit: whether the kind was written.
    """

    kind: Kind
    name: str = ""
    is_explicit: bool = True

    @classmethod
    def parse(cls, text: str) -> "JudgeSpec":
        """Reads "rule", "endpoint", "model:NAME", "classifier:NAME", or the name of a checkpoint.

        Raises:
          UserError: it is empty, or a kind lacks its name or has one too many.
        """
        text = text.strip()
        require(bool(text), "a judge is empty: name 'rule', 'endpoint', or a model")
        kind, colon, name = text.partition(":")
        if kind not in _KINDS:
            return cls("model", text, is_explicit=False)
        if kind in _NAMED:
            require(bool(name), f"the judge {text!r} has no name: write {kind}:FOLDER")
        else:
            require(not colon, f"the judge {text!r} has a name: write {kind!r} alone")
        return cls(next(each for each in _KINDS if each == kind), name)

    def __str__(self) -> str:
        """As `parse` reads it, with the kind: the start of the judge's name."""
        return f"{self.kind}:{self.name}" if self.name else self.kind


@dataclass(frozen=True)
class JudgeSettings(Settings):
    """How the judges of an evaluation are asked; which ones they are is said by `JudgeSpec`.

    Attributes:
      mode: "generative": the reply is sampled and read; "expected": the log-probabilities of the
        labels count, as where the reply begins.
      wordings: files with the words of a question, by its name, in place of ours.
      fence: of such files: answers are set apart by a mark that is drawn for each judgement,
        quoted, and what looks like the judge's own words in them is neutralised, as in our own
        wordings. Without it an answer can forge its verdict.
      ask_closing: a reply that cannot be read is closed by the label that is likeliest behind it
        (an endpoint is asked once more for its verdict alone).
      policy: file with the rules of the question "safeguard".
      rule_phrases: of the judge "rule": file of phrases in place of our own, one a line; "^" in
        front of one: at the start of the answer alone.
      classifier_question: of a classifier: the question that its labels answer.
      classifier_labels: of the same: label of the checkpoint to label of the question, such as
        {"LABEL_1": "yes", "LABEL_0": "no"}; empty: the checkpoint's labels have our names.
      classifier_input: of the same: what it reads, with {prompt} and {answer}; empty: both as a
        chat by the checkpoint's template, or in two paragraphs where it has none.
      temperature: of replies; 0: the likeliest tokens.
      max_tokens: of a reply.
      context_tokens: most tokens of a judge's prompt and reply; 0: those of the model, at most
        4096 on CPUs and 16384 on accelerators.
      seed: of the fences' marks and of samples.
      endpoint: of the judge "endpoint": where it is, how it is asked, and what may be spent.
    """

    mode: Literal["generative", "expected"] = "generative"
    wordings: Mapping[str, str] = setting(dict)
    fence: bool = True
    ask_closing: bool = True
    policy: str = ""
    rule_phrases: str = ""
    classifier_question: str = setting("harmful", choices=("refusal", "action", "harmful"))
    classifier_labels: Mapping[str, str] = setting(dict)
    classifier_input: str = ""
    temperature: float = setting(0.0, least=0)
    max_tokens: int = setting(512, least=1, most=2**24)
    context_tokens: int = setting(0, least=0, most=2**24)
    seed: int = setting(0, least=0, most=2**32 - 1)
    endpoint: EndpointSettings = setting(EndpointSettings)

    def __post_init__(self) -> None:
        """Raises a UserError that names a setting that cannot be."""
        super().__post_init__()
        Sampling(self.temperature, max_tokens=self.max_tokens)
        for name in self.wordings:
            require(name in QUESTIONS, f"wordings names {name!r}: {did_you_mean(name, QUESTIONS)}")
        labels = QUESTIONS[self.classifier_question].labels
        for own, label in self.classifier_labels.items():
            require(
                label in labels,
                f"classifier_labels maps {own!r} to {label!r}, which is no label of "
                f"{self.classifier_question}: use {', '.join(labels)}",
            )

    def read_policy(self) -> str:
        """The text of the policy; "" without one.

        Raises:
          UserError: the file cannot be read, or is empty.
        """
        return read_text(self.policy, "policy") if self.policy else ""

    def policy_hash(self) -> str:
        """The SHA-256 of the policy's text, in hexadecimal digits; "" without one."""
        return hashlib.sha256(self.read_policy().encode()).hexdigest() if self.policy else ""


def read_text(path: str, field: str) -> str:
    """A text file of the user's.

    Raises:
      UserError: it cannot be read, is no UTF-8 text, or is empty; names the field.
    """
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise UserError(f"{field}: cannot read {path}: {reason}") from error
    require(bool(text), f"{field}: {path} is empty")
    return text
