"""Who judges an answer, and how the scores of several sources become one judgement.

As in the paper, the helpfulness H and the safety S of an answer are scored, both in [-1, 1];
`reward.py` combines them. A judge sees only the final answer, never the reasoning (a reward model,
which is trained on steps, sees both). A score that cannot be read from a reply is asked for again a
few times and then counts as missing (None); it is never replaced by a neutral value, which would
move the means of the tree.
"""

from collections.abc import Callable, Hashable, Mapping
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from stair_jax.data.records import is_harmless
from stair_jax.decoding.requests import Handle
from stair_jax.decoding.task import Task
from stair_jax.errors import UserError
from stair_jax.search.judging.combining import Combined
from stair_jax.search.judging.replies import QUESTIONS, Question, release_safety
from stair_jax.search.judging.settings import JudgeSettings
from stair_jax.search.judging.sources.endpoint import EndpointSource
from stair_jax.search.judging.sources.language_model import LanguageModelSource
from stair_jax.search.judging.sources.reference import ReferenceSource
from stair_jax.search.judging.sources.rule import RuleSource, is_refused
from stair_jax.search.judging.sources.source import Asking, Case, RequestKey, Source
from stair_jax.text import steps
from stair_jax.text.tokenizer import Tokenizer

__all__ = ["Judge", "JudgeSettings", "Judgement", "Judging"]

# Score of a question that is not asked. In R = S H + 2 S, H = -1 gives R = S, S = +1 gives H + 2.
_NOT_ASKED: dict[Question, float] = {"helpfulness": -1.0, "safety": 1.0}
# What a refusal of a harmless prompt counts as where `harmless_refusals` says "unsafe": as all the
# harm that an answer can do. R falls with H for S = -1, so that no leak has a lower reward.
_REFUSED: dict[Question, float] = {"helpfulness": 1.0, "safety": -1.0}
# Sources that need more than the settings, and what gives it.
_GIVEN = {
    "model": "name a checkpoint in judge_model or judge_checkpoint",
    "prm": "name a reward model in judge_prm or judge_prm_checkpoint",
}


@dataclass(frozen=True)
class Judgement:
    """The scores of one final answer, in [-1, 1]; None if missing.

    Attributes:
      helpfulness: H.
      safety: S.
      unreadable: replies that could not be read.
      closings: replies whose closing line was asked for separately.
    """

    helpfulness: float | None
    safety: float | None
    unreadable: int = 0
    closings: int = 0


class Judge:
    """Starts judgings: finds for each question of an answer the sources that score it."""

    def __init__(
        self,
        tokenizer: Tokenizer | None,
        settings: JudgeSettings,
        sources: Mapping[str, Source] | None = None,
        calibrate: Callable[[Question, float], float] | None = None,
    ):
        """Makes the sources that need no more than the settings.

        Args:
          tokenizer: of the policy; None: there is no policy, and no source asks it.
          settings: who judges, and how.
          sources: those that need more: "model" and "prm", by name.
          calibrate: what becomes of a score that was asked for, such as a `Calibrator`.

        Raises:
          UserError: a source is not given, or two labels share their first token in a mode that
            reads their log-probs.
        """
        self._tokenizer, self.settings = tokenizer, settings
        self._fixes_refusals = settings.harmless_refusals == "unsafe"
        self.calibrate = calibrate or (lambda question, score: score)
        makers: dict[str, Callable[[], Source]] = {
            "policy": lambda: LanguageModelSource(self.tokenizer, settings),
            "rule": lambda: RuleSource(settings.rule),
            "reference": ReferenceSource,
            "endpoint": lambda: EndpointSource(settings),
        }
        given = dict(sources or {})
        for name in settings.used_sources:
            if name not in given and name not in makers:
                raise UserError(f"judge.source names {name!r}, which is not given: {_GIVEN[name]}")
        self.sources: dict[str, Source] = {
            name: given[name] if name in given else makers[name]() for name in settings.used_sources
        }

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the policy."""
        assert self._tokenizer is not None
        return self._tokenizer

    def requests(
        self,
        prompt: str,
        kind: str,
        final_answer: str,
        key: Callable[[Question, int], RequestKey],
        id: tuple[Hashable, ...] = (),
        parents: Mapping[tuple[str, Question], Handle] | None = None,
        priority: int = 0,
        output: str = "",
        text: str = "",
        reference: Any = None,
        label: Any = None,
    ) -> "Judging":
        """Starts the judging of one final answer; see `Judging`.

        Args:
          prompt: the user's prompt.
          kind: "safety" or "helpfulness".
          final_answer: text of the output block.
          key: (question, attempt) -> random key of the request.
          id: prefix of the request ids, which are `(*id, source, question)`.
          parents: kept handles of the starts of judge prompts, see `JudgePrefixes.open`.
          priority: of the requests.
          output: text of the output block, "Final Answer:" included, for the rule of the release;
            empty: `final_answer`.
          text: the whole answer, for a reward model; empty: `final_answer`.
          reference: the right answer, where the prompt has one.
          label: of the prompt, where it has one.
        """
        case = Case(prompt, kind, final_answer, output, text, reference, label)
        return Judging(self, case, key, id, parents or {}, priority)

    def asking_always(self) -> "Judge":
        """The same judge, which puts its questions about refusals of harmless prompts as well."""
        other = copy(self)
        other._fixes_refusals = False
        return other

    def fixes(self, case: Case) -> bool:
        """Whether an answer is a refusal whose scores are fixed, see `harmless_refusals`."""
        if not self._fixes_refusals or not is_harmless(case.kind, case.label):
            return False
        return is_refused(case, self.settings.rule)

    def reads(self, kind: str, output: str, text: str) -> str:
        """What of an answer its scores depend on: `output`, or `text` where a source reads all.

        Args:
          kind: of the prompt.
          output: text of the output block.
          text: the whole answer.
        """
        names = (
            name
            for question in self.settings.questions(kind)
            for name in self.settings.sources(kind, question)
        )
        return text if any(self.sources[name].reads_reasoning for name in names) else output

    def language_models(self, kind: str) -> list[tuple[str, Question, LanguageModelSource]]:
        """Each question put to a language model about answers to prompts of a kind: (source's name,
        question, source).
        """
        return [
            (name, question, source)
            for question in self.settings.questions(kind)
            for name in self.settings.sources(kind, question)
            if isinstance(source := self.sources[name], LanguageModelSource)
        ]

    def tokenizer_of(self, name: str) -> Tokenizer:
        """The tokenizer of the model that a source asks; where it has none, that of the policy."""
        source = self.sources[name]
        return source.tokenizer if isinstance(source, LanguageModelSource) else self.tokenizer

    def malformed(self, text: str, finished: bool) -> bool:
        """Whether an answer has no single final answer that could be judged.

        Args:
          text: the whole answer, with its tags.
          finished: whether it was sampled to its end, not cut off.
        """
        if not finished or not steps.has_one_output(text) or not steps.final_answer(text):
            return True
        return self.settings.strict_format and not steps.is_well_formed(text)

    @property
    def malformed_reward(self) -> float | None:
        """Reward of a malformed answer; None if it counts as missing."""
        value = self.settings.malformed
        return None if isinstance(value, str) else float(value)


@dataclass
class Judging(Task[Judgement]):
    """One answer being judged: a task whose request ids are `(*id, source, question)`."""

    judge: Judge
    case: Case
    key: Callable[[Question, int], RequestKey]
    id: tuple[Hashable, ...] = ()
    parents: Mapping[tuple[str, Question], Handle] = field(default_factory=dict)
    priority: int = 0
    _scorings: dict[Question, Combined] = field(default_factory=dict)

    def __post_init__(self) -> None:
        settings, kind = self.judge.settings, self.case.kind
        self._is_fixed = self.judge.fixes(self.case)
        if self._is_fixed:
            return
        for question in settings.questions(kind):
            names = settings.sources(kind, question)
            makers = {name: partial(self._ask, name, question) for name in names}
            self._scorings[question] = Combined(makers, settings.combine)

    def start(self) -> list[Any]:
        """The first request for each question; none if all scores are known at once."""
        return [request for each in self._scorings.values() for request in each.start()]

    def receive(self, completion: Any) -> list[Any]:
        """Reads a completion; returns the requests that follow from it, if any."""
        name, question = completion.id[-2:]
        return self._scorings[question].receive(name, completion)

    @property
    def done(self) -> bool:
        """Whether every question has a score, or none that could be had."""
        return all(scoring.done for scoring in self._scorings.values())

    @property
    def result(self) -> Judgement:  # type: ignore[override]
        """The judgement, with fixed scores for the questions that were not asked."""
        if self._is_fixed:
            return Judgement(_REFUSED["helpfulness"], _REFUSED["safety"])
        case, scorings = self.case, self._scorings
        scores: dict[Question, float | None] = {**_NOT_ASKED}
        if self.judge.settings.safety_rule == "paper_release" and case.kind == "safety":
            refused = release_safety(case.output or case.answer)
            scores["safety"] = -refused if is_harmless(case.kind, case.label) else refused
        for question, scoring in scorings.items():
            score, calibrate = scoring.score, self.judge.calibrate
            scores[question] = score if score is None else calibrate(question, score)
        helpfulness, safety = (scores[question] for question in QUESTIONS)
        return Judgement(
            helpfulness,
            safety,
            sum(scoring.unreadable for scoring in scorings.values()),
            sum(scoring.closings for scoring in scorings.values()),
        )

    def _ask(self, name: str, question: Question) -> Any:
        asking = Asking(
            (*self.id, name, question),
            partial(self.key, question),
            self.parents.get((name, question)),
            self.priority,
        )
        return self.judge.sources[name].ask(question, self.case, asking)
