"""Self-reward: the model in training acts as the judge of its own final answers.

As in the paper, the judge rates the helpfulness H and the safety S of an answer, both scaled to
[-1, 1]; `reward.py` combines them. It sees only the final answer, never the reasoning. A score that
cannot be read from a reply is asked for again a few times and then counts as missing (None); it is
never replaced by a neutral value, which would move the means of the tree.
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from stair_jax.decoding.requests import Completion, Handle, Request, Sampling
from stair_jax.decoding.task import Task
from stair_jax.search.judging.replies import (
    LABELS,
    QUESTIONS,
    Question,
    expected_score,
    read_conclusion,
    release_safety,
)
from stair_jax.search.judging.templates import PROBES, common_start, label_ids, split_template
from stair_jax.settings import Settings, setting
from stair_jax.text import judge_prompts, steps
from stair_jax.text.chat import encode_prompt
from stair_jax.text.tokenizer import Tokenizer

RequestKey = tuple[int, int]

# Score of a question that is not asked. In R = S H + 2 S, H = -1 gives R = S, S = +1 gives H + 2.
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
      safety_rule: "model": as above. "paper_release": safety prompts by rule (S = +1 where the
        output block holds "sorry" and at most 350 characters, its "Final Answer:" included, else
        -1; H = -1), helpfulness prompts by rating alone (S = +1).
      malformed: reward of an answer that has no single final answer: no output block, an empty one,
        a second one, text behind it, or cut off at the length limit. "missing": none, the
        evaluation is left out and counted.
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
    helpfulness_template: str = judge_prompts.HELPFULNESS_JUDGE
    safety_template: str = judge_prompts.SAFETY_JUDGE
    helpfulness_lead_in: str = judge_prompts.JUDGE_LEAD_IN
    safety_lead_in: str = judge_prompts.JUDGE_LEAD_IN
    safety_score: Literal["sign", "expected"] = "sign"
    temperature: float = setting(0.6, least=0)
    top_p: float = setting(0.9, above=0, most=1)
    top_k: int = setting(0, least=0, most=2**24)
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
    """The scores of one final answer, in [-1, 1]; None if missing."""

    helpfulness: float | None
    safety: float | None
    unreadable: int = 0  # replies that could not be read


class Judge:
    """Makes the engine requests for judgements and parses the replies."""

    def __init__(self, tokenizer: Tokenizer, settings: JudgeSettings):
        """Splits the templates and, in "expected" mode, finds the token ids of the labels.

        Raises:
          UserError: a template lacks its placeholders, or two labels share their first token.
        """
        self.tokenizer = tokenizer
        self.settings = settings
        self._templates: dict[Question, tuple[str, str, str]] = {
            "helpfulness": split_template("helpfulness", settings.helpfulness_template),
            "safety": split_template("safety", settings.safety_template),
        }
        self._labels: dict[Question, tuple[int, ...]] = {}
        self._lead_ins: dict[Question, tuple[int, ...]] = {"helpfulness": (), "safety": ()}
        if settings.mode == "expected":
            lead_ins = (settings.helpfulness_lead_in, settings.safety_lead_in)
            for question, lead_in in zip(QUESTIONS, lead_ins, strict=True):
                self._labels[question] = label_ids(tokenizer, lead_in, LABELS[question])
                self._lead_ins[question] = tuple(tokenizer.encode_text(lead_in))
        self._sampling = Sampling(
            temperature=settings.temperature,
            top_k=settings.top_k,
            top_p=settings.top_p,
            max_tokens=settings.max_tokens,
            # A judge trained on structured answers may end its reply with an output block.
            stop_ids=tuple(dict.fromkeys([*tokenizer.stop_ids, tokenizer.tags.output_close])),
        )

    def tokens(self, question: Question, prompt: str, answer: str) -> tuple[int, ...]:
        """Token ids of a judge prompt, up to where the judge's reply starts.

        Template, user prompt and answer form one user turn. Tags and control tokens in them are
        encoded as plain text, so that an answer cannot close the turn and speak as the judge.
        """
        before, between, after = self._templates[question]
        content = f"{before}{prompt.strip()}{between}{answer.strip()}{after}"
        return (*encode_prompt(self.tokenizer, content), *self._lead_ins[question])

    def shared(self, question: Question, prompt: str | None = None) -> tuple[int, ...]:
        """Common token prefix of the judge prompts about `prompt`, or about any prompt if None.

        Found by rendering several probe texts, as tokenizers may merge text across the boundary
        between the template and what follows it.
        """
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
        output: str = "",
    ) -> "Judging":
        """Starts the judging of one final answer; see `Judging`.

        Args:
          prompt: the user's prompt.
          kind: "safety" or "helpfulness".
          final_answer: text of the output block.
          key: (question, attempt) -> random key of the request.
          id: prefix of the request ids, which are `(*id, question)`.
          parents: by question, a kept handle of the start of the judge prompt, see `request`.
          priority: of the requests.
          output: text of the output block, "Final Answer:" included, for the rule of the release;
            empty: `final_answer`.
        """
        return Judging(self, prompt, kind, final_answer, key, id, parents or {}, priority, output)

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
        """The engine request for one score.

        Args:
          id: of the request.
          question: "helpfulness" or "safety".
          prompt: the user's prompt.
          answer: the final answer to judge.
          key: random key, two uint32 words.
          parent: a kept handle that the judge prompt is expected to start with. If it does not, the
            handle's ancestors are tried, and then the whole prompt is sent.
          priority: of the request.
        """
        tokens = self.tokens(question, prompt, answer)
        # Merges across the boundary may change the last tokens of the prefix for this answer.
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
        """The score in [-1, 1] of a reply; None if it cannot be read."""
        if self.settings.mode == "expected":
            return expected_score(question, completion.scores, self.settings.safety_score)
        if completion.finish != "stop":  # cut off: a conclusion in it may not be the last word
            return None
        return read_conclusion(question, self.tokenizer.decode(completion.tokens))

    def may_retry(self, attempt: int, completion: Completion) -> bool:
        """Whether to ask again after an unreadable reply.

        Not where another sample cannot help: scores of "expected" mode are deterministic, and a
        prompt that is too long for the context stays too long.
        """
        sampled = self.settings.mode == "generative" and completion.finish != "too_long"
        return sampled and attempt + 1 < self.settings.attempts

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
    """One answer being judged.

    A task whose inner ids are `(*id, question)`.
    """

    judge: Judge
    prompt: str
    kind: str
    answer: str
    key: Callable[[Question, int], RequestKey]
    id: tuple[Hashable, ...]
    parents: Mapping[Question, Handle] = field(default_factory=dict)
    priority: int = 0
    output: str = ""
    scores: dict[Question, float | None] = field(default_factory=dict)
    unreadable: int = 0
    _attempt: dict[Question, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        settings = self.judge.settings
        self._attempt = dict.fromkeys(settings.questions(self.kind), 0)
        if settings.safety_rule == "paper_release" and self.kind == "safety":
            self.scores["safety"] = release_safety(self.output or self.answer)

    def start(self) -> list[Request]:
        """The first request for each question; none if all scores are fixed."""
        return [self._request(question) for question in self._attempt]

    def receive(self, completion: Completion) -> list[Request]:
        """Reads a reply; returns the request of a retry if it could not be read, else nothing."""
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
        """Whether every question has a score or has used up its attempts."""
        return all(question in self.scores for question in self._attempt)

    @property
    def result(self) -> Judgement:  # type: ignore[override]
        """The judgement, with fixed scores for the questions that were not asked."""
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
