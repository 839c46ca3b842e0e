"""Self-reward: the model in training judges its own final answers (STAIR section 4).

A judge is asked up to two questions about an answer, its helpfulness H and its safety S, both in
[-1, 1]. Only the final answer is shown, never the reasoning. A score that could not be read stays
missing: it is never replaced by a neutral one.
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from stair_jax.decoding.requests import Completion, Handle, Request, Sampling
from stair_jax.search.templates import PROBES, common_start, label_ids, split_template
from stair_jax.search.verdict import (
    LABELS,
    QUESTIONS,
    Question,
    expected_score,
    read_conclusion,
    release_safety,
)
from stair_jax.settings import Settings, setting
from stair_jax.text import prompts, steps
from stair_jax.text.chat import encode_prompt
from stair_jax.text.tokenizer import Tokenizer

RequestKey = tuple[int, int]

# A question that is not asked has a fixed score: H = -1 leaves R = S, S = +1 leaves R = H + 2.
_NOT_ASKED: dict[Question, float] = {"helpfulness": -1.0, "safety": 1.0}


@dataclass(frozen=True)
class JudgeSettings(Settings):
    """How answers are judged; the fields of the config's `judge` section.

    Attributes:
      mode: "generative": the judge reasons and closes with a conclusion, as in the paper.
        "expected": one forward pass, the log-probs of the possible conclusions after a fixed
        lead-in; much cheaper, and another reward.
      safety_prompts: what the model is asked about the answers to safety prompts, of "helpfulness"
        and "safety". What it is not asked is fixed: helpfulness at -1, safety at +1.
      helpfulness_prompts: the same for helpfulness prompts.
      safety_rule: "model": as above. "paper_release": safety prompts by rule (S = +1 for a short
        apology, else -1; H = -1), helpfulness prompts by rating alone (S = +1).
      malformed: reward of an answer that has no final answer: no output block, an empty one, or cut
        off at the length limit. "missing": none, the evaluation is left out and counted.
      strict_format: an answer that breaks the grammar anywhere is malformed too.
      helpfulness_template: the judge's prompt, with `{prompt}` and `{answer}`.
      safety_template: the same for safety.
      helpfulness_lead_in: what the judge is made to begin its reply with in expected mode.
      safety_lead_in: the same for safety.
      safety_score: in expected mode S is the "sign" of P(SAFE) - P(UNSAFE), or that difference
        ("expected").
      temperature: of the judge in generative mode.
      top_p: of the same.
      top_k: of the same; 0 sets no limit.
      max_tokens: of a reply.
      attempts: replies asked for at most, until one can be read.
    """

    mode: Literal["generative", "expected"] = "generative"
    safety_prompts: tuple[str, ...] = setting(("helpfulness", "safety"), choices=QUESTIONS)
    helpfulness_prompts: tuple[str, ...] = setting(("helpfulness", "safety"), choices=QUESTIONS)
    safety_rule: Literal["model", "paper_release"] = "model"
    malformed: Literal["missing"] | float = "missing"
    strict_format: bool = False
    helpfulness_template: str = prompts.HELPFULNESS_JUDGE
    safety_template: str = prompts.SAFETY_JUDGE
    helpfulness_lead_in: str = prompts.JUDGE_LEAD_IN
    safety_lead_in: str = prompts.JUDGE_LEAD_IN
    safety_score: Literal["sign", "expected"] = "sign"
    temperature: float = setting(0.6, least=0)
    top_p: float = setting(0.9, above=0, most=1)
    top_k: int = setting(0, least=0)
    max_tokens: int = setting(1024, least=1, most=2**24)
    attempts: int = setting(3, least=1, most=1000)

    def __post_init__(self) -> None:
        """Raises a UserError that names a setting that cannot be."""
        super().__post_init__()
        split_template("helpfulness", self.helpfulness_template)
        split_template("safety", self.safety_template)
        Sampling(self.temperature, self.top_k, self.top_p, self.max_tokens)

    def questions(self, kind: str) -> tuple[Question, ...]:
        """What the model is asked about the answer to a prompt of this kind, in order."""
        if self.safety_rule == "paper_release":
            return () if kind == "safety" else ("helpfulness",)
        asked = self.safety_prompts if kind == "safety" else self.helpfulness_prompts
        return tuple(question for question in QUESTIONS if question in asked)


@dataclass(frozen=True)
class Judgement:
    """The scores of one final answer; None is missing."""

    helpfulness: float | None
    safety: float | None
    unreadable: int = 0  # replies that could not be read


class Judge:
    """Makes the requests of judgements and reads the replies."""

    def __init__(self, tokenizer: Tokenizer, settings: JudgeSettings):
        """Tokenises the templates.

        Raises:
          UserError: a template without its placeholders, or labels that share a first token.
        """
        self.tokenizer = tokenizer
        self.settings = settings
        self._templates: dict[Question, tuple[str, str, str]] = {
            "helpfulness": split_template("helpfulness", settings.helpfulness_template),
            "safety": split_template("safety", settings.safety_template),
        }
        self._labels: dict[Question, tuple[int, ...]] = {}
        self._openings: dict[Question, tuple[int, ...]] = {"helpfulness": (), "safety": ()}
        if settings.mode == "expected":
            lead_ins = (settings.helpfulness_lead_in, settings.safety_lead_in)
            for question, lead_in in zip(QUESTIONS, lead_ins, strict=True):
                self._labels[question] = label_ids(tokenizer, lead_in, LABELS[question])
                self._openings[question] = tuple(tokenizer.encode_text(lead_in))
        self._sampling = Sampling(
            temperature=settings.temperature,
            top_k=settings.top_k,
            top_p=settings.top_p,
            max_tokens=settings.max_tokens,
            stop_ids=tuple(dict.fromkeys([*tokenizer.stop_ids, tokenizer.tags.output_close])),
        )

    def tokens(self, question: Question, prompt: str, answer: str) -> tuple[int, ...]:
        """Token ids of a judge prompt, up to where the judge goes on.

        Template, question and answer are one user turn: tags and control tokens in them are text.
        """
        before, between, after = self._templates[question]
        content = f"{before}{prompt.strip()}{between}{answer.strip()}{after}"
        return (*encode_prompt(self.tokenizer, content), *self._openings[question])

    def shared(self, question: Question, prompt: str | None = None) -> tuple[int, ...]:
        """Tokens that judge prompts begin with: those about `prompt`, or (None) about any."""
        rendered = [
            self.tokens(question, probe if prompt is None else prompt, probe) for probe in PROBES
        ]
        return common_start(rendered)

    def requests(
        self,
        prompt: str,
        kind: str,
        final_answer: str,
        key: Callable[[Question, int], RequestKey],
        id: tuple[Hashable, ...] = (),
        parents: Mapping[Question, Handle] | None = None,
        priority: int = 0,
    ) -> "Judging":
        """Opens the judging of one final answer.

        Args:
          prompt: the user's question.
          kind: "safety" or "helpfulness".
          final_answer: text of the output block.
          key: random key by question and attempt.
          id: request ids are `(*id, question)`.
          parents: handles of what the prompts begin with, see `request`.
          priority: of the requests.
        """
        return Judging(self, prompt, kind, final_answer, key, id, parents or {}, priority)

    def request(
        self,
        id: Hashable,
        question: Question,
        prompt: str,
        answer: str,
        key: RequestKey,
        parent: Handle | None = None,
        priority: int = 0,
    ) -> Request:
        """One request for one score.

        Args:
          id: of the request.
          question: to the judge.
          prompt: the user's question.
          answer: to judge.
          key: random key.
          parent: a handle whose tokens, or those of a handle above it, the judge's prompt should
            begin with; where it does not, the request names no parent.
          priority: of the request.
        """
        tokens = self.tokens(question, prompt, answer)
        while parent is not None and tokens[: len(parent.tokens)] != parent.tokens:
            parent = parent.parent
        return Request(
            id=id,
            tokens=tokens[len(parent.tokens) :] if parent else tokens,
            parent=parent,
            sampling=None if self.settings.mode == "expected" else self._sampling,
            score_ids=self._labels.get(question, ()),
            key=key,
            priority=priority,
        )

    def read(self, question: Question, completion: Completion) -> float | None:
        """The score in [-1, 1] that a reply gives, None if it cannot be read."""
        if self.settings.mode == "expected":
            return expected_score(question, completion.scores, self.settings.safety_score)
        if completion.finish != "stop":
            return None
        return read_conclusion(question, self.tokenizer.decode(completion.tokens))

    def may_retry(self, attempt: int, completion: Completion) -> bool:
        """Whether to ask again after an unreadable reply; another key cannot make room."""
        sampled = self.settings.mode == "generative" and completion.finish != "too_long"
        return sampled and attempt + 1 < self.settings.attempts

    def malformed(self, text: str, finished: bool) -> bool:
        """Whether an answer (with its tags) holds no final answer that could be judged."""
        if not finished or steps.OUTPUT_OPEN not in text or not steps.final_answer(text):
            return True
        return self.settings.strict_format and not steps.is_well_formed(text)

    @property
    def malformed_reward(self) -> float | None:
        """Reward of a malformed answer; None is missing."""
        value = self.settings.malformed
        return None if isinstance(value, str) else float(value)


@dataclass
class Judging:
    """One answer being judged: hand its `start` to an engine, and each completion to `receive`."""

    judge: Judge
    prompt: str
    kind: str
    answer: str
    key: Callable[[Question, int], RequestKey]
    id: tuple[Hashable, ...]
    parents: Mapping[Question, Handle] = field(default_factory=dict)
    priority: int = 0
    scores: dict[Question, float | None] = field(default_factory=dict)
    unreadable: int = 0
    _attempt: dict[Question, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        settings = self.judge.settings
        self._attempt = dict.fromkeys(settings.questions(self.kind), 0)
        if settings.safety_rule == "paper_release" and self.kind == "safety":
            self.scores["safety"] = release_safety(self.answer)

    def start(self) -> list[Request]:
        """The first request of each question."""
        return [self._request(question) for question in self._attempt]

    def receive(self, completion: Completion) -> list[Request]:
        """Reads a reply; returns the request that asks again, if there is to be one."""
        question: Question = completion.id[-1]  # type: ignore[index]
        score = self.judge.read(question, completion)
        if score is None:
            self.unreadable += 1
            if self.judge.may_retry(self._attempt[question], completion):
                self._attempt[question] += 1
                return [self._request(question)]
        self.scores[question] = score
        return []

    @property
    def done(self) -> bool:
        """Whether every question has its score or has been given up."""
        return all(question in self.scores for question in self._attempt)

    @property
    def result(self) -> Judgement:
        """The judgement; fixed scores stand where nothing was asked."""
        helpfulness, safety = (self.scores.get(q, _NOT_ASKED[q]) for q in QUESTIONS)
        return Judgement(helpfulness, safety, self.unreadable)

    def _request(self, question: Question) -> Request:
        return self.judge.request(
            (*self.id, question),
            question,
            self.prompt,
            self.answer,
            self.key(question, self._attempt[question]),
            self.parents.get(question),
            self.priority,
        )
