"""How answers are judged: the fields of a config's `judge` section."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from stair_jax.data.records import KINDS
from stair_jax.decoding.requests import MAX_SCORE_IDS, Sampling
from stair_jax.endpoints.settings import EndpointSettings
from stair_jax.errors import UserError
from stair_jax.search.judging.replies import LABELS, QUESTIONS, Labels, Question
from stair_jax.search.judging.templates import split_template
from stair_jax.settings import Settings, setting
from stair_jax.text.fence_prompts import HELPFULNESS_REMINDER, SAFETY_REMINDER
from stair_jax.text.judge_wordings import DEFAULTS, find_wording

# What each source can score, by kind of prompt.
_BOTH: tuple[Question, ...] = ("helpfulness", "safety")
SOURCES: dict[str, dict[str, tuple[Question, ...]]] = {
    "policy": {"safety": _BOTH, "helpfulness": _BOTH},
    "model": {"safety": _BOTH, "helpfulness": _BOTH},
    "endpoint": {"safety": _BOTH, "helpfulness": _BOTH},
    "prm": {"safety": _BOTH, "helpfulness": _BOTH},
    # A refusal makes the answer to a harmful prompt safe, and that to a harmless one useless.
    "rule": {"safety": ("safety",), "helpfulness": ("helpfulness",)},
    "reference": {"safety": ("helpfulness",), "helpfulness": ("helpfulness",)},
}
_SEPARATOR = ":"


@dataclass(frozen=True)
class JudgeSettings(Settings):
    """How answers are judged; the fields of the config's `judge` section.

    Attributes:
      source: who judges, one or several of: "policy", the model in training, as in the paper;
        "model", a frozen checkpoint; "endpoint", a model behind an OpenAI-compatible endpoint;
        "prm", a reward model; "rule", whether the answer is a refusal; "reference", whether it is
        the right answer of a prompt that has one. Limited to one question by its name behind a
        colon, such as "rule:safety".
      safety_prompts_source: the same for safety prompts alone; empty: `source`.
      helpfulness_prompts_source: the same for helpfulness prompts alone; empty: `source`.
      combine: the score of several sources: that of the "first" which gives one, in their order
        (the later ones are then not asked), or the "min" or the "mean" of all that give one.
      safety_prompts: what is asked about the answers to safety prompts, of "helpfulness" and
        "safety". What is not asked, or what no source can score, is fixed: helpfulness at -1,
        safety at +1.
      helpfulness_prompts: the same for helpfulness prompts. Our default wording of safety takes for
        granted that the request should be refused, and is asked about safety prompts alone.
      safety_rule: "model": as above. "paper_release": safety prompts by rule (S = +1 where the
        output block holds "sorry" and at most 350 characters, its "Final Answer:" included, else
        -1; H = -1), helpfulness prompts by rating alone (S = +1), whatever `source` says of safety.
      rule: of the source "rule", what counts as a refusal: "refusal", a statement in one of twelve
        languages at the start or the end of the answer, see `sources/refusal_phrases.txt`; or
        "paper_release", that of `safety_rule`.
      harmless_refusals: what a refusal by `rule` of a helpfulness prompt counts as, or of a safety
        prompt that is labelled safe. "unhelpful": what the sources say; by the rule H = -1, and S
        is fixed at +1. "unsafe": S = -1 and H = +1, the lowest reward that a harmful answer has,
        whatever the sources are; nothing is asked about it.
      mode: of the sources "policy" and "model". "generative": the judge reasons and closes with
        a conclusion, as in the paper. "expected": one forward pass, the log-probs of the possible
        conclusions after a fixed lead-in; much cheaper, and another reward. "both": the judge
        reasons, and the log-probs of the conclusions behind its reasoning count.
      reading: of a reply. "labels": a closing "Conclusion: [x]", or the label alone, such as
        "UNSAFE" or "4: correct, with a small gap", of an answer with an output block in that block;
        "strict": the closing line only.
      ask_closing: in "generative" mode a reply that cannot be read, or was cut off, is continued
        by the lead-in, and the likeliest label counts, before the question is asked anew.
      malformed: reward of an answer that has no single final answer: no output block, an empty one,
        a second one, text behind it, or cut off at the length limit. "missing": none, the
        evaluation is left out and counted.
      strict_format: an answer that breaks the grammar anywhere is malformed too.
      fence: the answer is set apart by a mark that is drawn for each judgement, what looks like the
        judge's own words in it is neutralised, and a reminder follows. Without it an answer can
        raise its own reward by a forged conclusion.
      helpfulness_template: the judge's prompt, with `{prompt}` and `{answer}`; or the name of one
        of our wordings (`text/judge_wordings.py`), which brings the next three as well.
      safety_template: the same for safety.
      helpfulness_reminder: with `fence`, what stands behind the answer, with `{mark}`; it repeats
        the question. None: that of the wording.
      safety_reminder: the same for safety.
      helpfulness_lead_in: what the judge is made to begin its reply with in expected mode, or to
        close it with. None: that of the wording.
      safety_lead_in: the same for safety.
      helpfulness_labels: what the judge may reply, each with its score from -1 to 1, such as
        {"YES": 1.0, "NO": -1.0}. Empty: those of the wording; 1 to 5 for a template of your own.
      safety_labels: the same for safety; SAFE and UNSAFE for a template of your own.
      safety_score: where log-probs count, S is the "sign" of P(SAFE) - P(UNSAFE), or that
        difference ("expected").
      contextual_calibration: in expected mode the log-probs of the labels are taken relative to
        those that the same question gives an empty answer (Zhao et al., "Calibrate before use",
        ICML 2021), which costs one more request a prompt and question.
      endpoint: of the source "endpoint": where it is, how it is asked, and what may be spent; its
        replies are always written out and read, whatever `mode` says.
      prm_center: of the source "prm": the score that gives 0.
      prm_scale: of the same: both questions get tanh((score - prm_center) / prm_scale).
      temperature: of the judge in generative mode.
      top_p: of the same.
      top_k: of the same; 0 sets no limit.
      max_tokens: of a reply.
      attempts: replies asked for at most, until one can be read.
    """

    source: str | tuple[str, ...] = "policy"
    safety_prompts_source: str | tuple[str, ...] = ()
    helpfulness_prompts_source: str | tuple[str, ...] = ()
    combine: Literal["first", "min", "mean"] = "first"
    safety_prompts: tuple[str, ...] = setting(("helpfulness", "safety"), choices=QUESTIONS)
    helpfulness_prompts: tuple[str, ...] = setting(
        ("helpfulness",), choices=QUESTIONS, absent=("helpfulness", "safety")
    )
    safety_rule: Literal["model", "paper_release"] = "model"
    rule: Literal["refusal", "paper_release"] = "refusal"
    harmless_refusals: Literal["unhelpful", "unsafe"] = setting("unhelpful", absent="unhelpful")
    mode: Literal["generative", "expected", "both"] = "generative"
    reading: Literal["labels", "strict"] = setting("labels", absent="strict")
    ask_closing: bool = setting(True, absent=False)
    malformed: Literal["missing"] | float = "missing"
    strict_format: bool = False
    fence: bool = setting(True, absent=False)
    helpfulness_template: str = DEFAULTS["helpfulness"]
    safety_template: str = DEFAULTS["safety"]
    helpfulness_reminder: str | None = setting(None, absent=HELPFULNESS_REMINDER)
    safety_reminder: str | None = setting(None, absent=SAFETY_REMINDER)
    helpfulness_lead_in: str | None = None
    safety_lead_in: str | None = None
    helpfulness_labels: Mapping[str, float] = setting(dict, absent=LABELS["helpfulness"])
    safety_labels: Mapping[str, float] = setting(dict, absent=LABELS["safety"])
    safety_score: Literal["sign", "expected"] = "sign"
    contextual_calibration: bool = False
    endpoint: EndpointSettings = setting(EndpointSettings)
    prm_center: float = 0.0
    prm_scale: float = setting(1.0, above=0)
    temperature: float = setting(0.6, least=0)
    top_p: float = setting(0.9, above=0, most=1)
    top_k: int = setting(0, least=0, most=2**24)
    max_tokens: int = setting(1024, least=1, most=2**24)
    attempts: int = setting(3, least=1, most=1000)

    def __post_init__(self) -> None:
        """Raises a UserError that names a setting that cannot be."""
        super().__post_init__()
        for question in QUESTIONS:
            self._resolve(question)
            split_template(question, self._of(question, "template"))
            _check_labels(question, self.labels(question))
        Sampling(self.temperature, self.top_k, self.top_p, self.max_tokens)
        for field in ("source", "safety_prompts_source", "helpfulness_prompts_source"):
            for entry in _entries(getattr(self, field)):
                _check_source(field, entry)
        if not _entries(self.source):
            raise UserError(f"judge.source is empty: name one or more of {', '.join(SOURCES)}")
        asks = "helpfulness" in self.questions("helpfulness")
        if asks and self.sources("helpfulness", "helpfulness") == ("rule",):
            raise UserError(
                "judge.source: 'rule' alone scores no answer to a helpfulness prompt but refusals: "
                "set judge.helpfulness_prompts_source to ('rule', 'policy'), or to another source"
            )

    @property
    def threshold(self) -> str:
        """What is made of S before any calibration: its "sign", or "expected", nothing."""
        return self.safety_score

    def labels(self, question: Question) -> Labels:
        """What the judge may reply to a question, and the scores."""
        labels: Labels = self._of(question, "labels")
        return labels

    def _of(self, question: Question, name: str) -> Any:
        return getattr(self, f"{question}_{name}")

    def _resolve(self, question: Question) -> None:
        """Writes out the wording that a template names, and what it brings."""
        template = self._of(question, "template")
        wording = find_wording(question, template)
        values: dict[str, Any] = {
            "template": template if "{" in template else wording.template,
            "reminder": wording.reminder,
            "lead_in": wording.lead_in,
            "labels": wording.labels,
        }
        for name, value in values.items():
            if name == "template" or self._of(question, name) in (None, {}):
                object.__setattr__(self, f"{question}_{name}", value)

    def sources(self, kind: str, question: Question) -> tuple[str, ...]:
        """Names of the sources that score one question about answers to prompts of a kind."""
        own = self.safety_prompts_source if kind == "safety" else self.helpfulness_prompts_source
        named = [entry.partition(_SEPARATOR) for entry in _entries(own) or _entries(self.source)]
        fitting = (name for name, _, only in named if only in ("", question))
        return tuple(dict.fromkeys(name for name in fitting if question in SOURCES[name][kind]))

    def questions(self, kind: str) -> tuple[Question, ...]:
        """What is asked about the answer to a prompt of this kind, in order."""
        if self.safety_rule == "paper_release":
            return () if kind == "safety" else ("helpfulness",)
        asked = self.safety_prompts if kind == "safety" else self.helpfulness_prompts
        return tuple(
            question for question in QUESTIONS if question in asked and self.sources(kind, question)
        )

    @property
    def used_sources(self) -> tuple[str, ...]:
        """Names of all sources that some question is put to."""
        asked = ((kind, question) for kind in KINDS for question in self.questions(kind))
        found = (name for kind, question in asked for name in self.sources(kind, question))
        return tuple(dict.fromkeys(found))


def _check_labels(question: Question, labels: Labels) -> None:
    if len(labels) < 2 or len(set(labels.values())) < 2 or len(labels) > MAX_SCORE_IDS:
        raise UserError(
            f"judge.{question}_labels has {len(labels)} labels: give it 2 to {MAX_SCORE_IDS}, with "
            "at least two different scores"
        )
    if any(not -1 <= score <= 1 or not label.strip() for label, score in labels.items()):
        raise UserError(f"judge.{question}_labels must map texts to scores from -1 to 1")
    if len({label.lower() for label in labels}) < len(labels):
        raise UserError(f"judge.{question}_labels has a label twice, in large and small letters")


def _entries(value: str | tuple[str, ...]) -> tuple[str, ...]:
    """The entries of a tuple, or of a text with commas between them."""
    parts = value.split(",") if isinstance(value, str) else value
    return tuple(part.strip() for part in parts if part.strip())


def _check_source(field: str, entry: str) -> None:
    name, separator, question = entry.partition(_SEPARATOR)
    if name not in SOURCES:
        raise UserError(
            f"judge.{field} names the unknown source {name!r}: use {', '.join(SOURCES)}"
        )
    if separator and question not in QUESTIONS:
        raise UserError(
            f"judge.{field} limits {name!r} to the unknown question {question!r}: write "
            f"'{name}:helpfulness' or '{name}:safety'"
        )
