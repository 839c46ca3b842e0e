"""A language model that judges: the policy itself, or a frozen checkpoint beside it."""

from collections.abc import Hashable
from dataclasses import replace
from typing import Any, Literal

from stair_jax.decoding.requests import Completion, Handle, Request, Sampling
from stair_jax.errors import UserError
from stair_jax.search.judging.fence import mark_of
from stair_jax.search.judging.replies import (
    QUESTIONS,
    Question,
    expected_score,
    likeliest_score,
    read_reply,
)
from stair_jax.search.judging.settings import JudgeSettings
from stair_jax.search.judging.sources.judge_prompts import JudgePrompts
from stair_jax.search.judging.sources.source import Asking, Case, RequestKey, Scoring, Source
from stair_jax.search.judging.templates import PROBES, common_start, label_ids
from stair_jax.text import steps
from stair_jax.text.chat import encode_prompt
from stair_jax.text.tokenizer import Tokenizer

_CLOSING = "Conclusion: ["  # of a closing line, where the wording has no lead-in
_EMPTY_KEY = (0, 0)  # of requests about the empty answer, whose mark is always the same


class LanguageModelSource(Source):
    """Makes the requests to a judge and reads its replies.

    Attributes:
      service: where its requests go: "" is the engine of the policy, see `Request.service`.
      adapter: which model of that engine judges, see `Request.adapter`; None: its own.
      tokenizer: of the judge.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        settings: JudgeSettings,
        service: str = "",
        adapter: int | None = None,
    ):
        """Finds the token ids of the labels.

        Raises:
          UserError: log-probs of labels are all that counts, and two labels share their first
            token.
        """
        self.tokenizer, self.service, self.adapter = tokenizer, service, adapter
        self.settings = settings
        self._prompts = JudgePrompts(settings)
        own = {"helpfulness": settings.helpfulness_lead_in, "safety": settings.safety_lead_in}
        # Behind a reply, a label needs something that leads in to it.
        instead = "" if settings.mode == "expected" else _CLOSING
        self._lead_in_texts: dict[Question, str] = {
            question: own[question] or instead for question in QUESTIONS
        }
        self._labels: dict[Question, tuple[int, ...]] = {}
        if settings.mode != "generative" or settings.ask_closing:
            for question, lead_in in self._lead_in_texts.items():
                self._find_labels(question, lead_in)
        self._sampling = Sampling(
            temperature=settings.temperature,
            top_k=settings.top_k,
            top_p=settings.top_p,
            max_tokens=settings.max_tokens,
            # A judge trained on structured answers may end its reply with an output block.
            stop_ids=tuple(dict.fromkeys([*tokenizer.stop_ids, tokenizer.tags.output_close])),
        )
        self._priors: dict[tuple[Question, str], tuple[float, ...]] = {}

    def ask(self, question: Question, case: Case, asking: Asking) -> "LanguageModelScoring":
        """The scoring of one question about an answer."""
        return LanguageModelScoring(self, question, case, asking)

    def tokens(
        self, question: Question, prompt: str, answer: str, mark: str = ""
    ) -> tuple[int, ...]:
        """Token ids of a judge prompt, up to where the judge's reply starts.

        Template, user prompt and answer form one user turn. Tags and control tokens in them are
        encoded as plain text, so that an answer cannot close the turn and speak as the judge.
        """
        content = self._prompts.write(question, prompt, answer, mark)
        lead_in: list[int] = []
        if self.settings.mode == "expected":
            lead_in = self.tokenizer.encode_text(self._lead_in_texts[question])
        return (*encode_prompt(self.tokenizer, content), *lead_in)

    def shared(self, question: Question, prompt: str | None = None) -> tuple[int, ...]:
        """Common token prefix of the judge prompts about `prompt`, or about any prompt if None.

        Found by rendering several probe texts, as tokenizers may merge text across the boundary
        between the template and what follows it.
        """
        rendered = [
            self.tokens(question, probe if prompt is None else prompt, probe, mark=probe)
            for probe in PROBES
        ]
        return common_start(rendered)

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
        """The request for one reply, or in "expected" mode for the log-probs of the labels.

        Args:
          id: of the request.
          question: "helpfulness" or "safety".
          prompt: the user's prompt.
          answer: the final answer to judge.
          key: random key, two uint32 words; the mark of the fence is drawn from it too.
          parent: see `Asking`.
          priority: of the request.
        """
        tokens = self.tokens(question, prompt, answer, mark_of(key))
        is_expected = self.settings.mode == "expected"
        return self._send(
            id,
            tokens,
            parent,
            sampling=None if is_expected else self._sampling,
            score_ids=self._labels[question] if is_expected else (),
            key=key,
            priority=priority,
        )

    def request_closing(self, request: Request, question: Question, reply: Completion) -> Request:
        """The request for the labels' log-probs behind a reply and the lead-in of its closing."""
        tokens = request.tokens + self._close(question, reply.tokens)
        return replace(request, tokens=tokens, sampling=None, score_ids=self._labels[question])

    def prior(self, question: Question, prompt: str) -> tuple[float, ...] | None:
        """The labels' log-probs for an empty answer to `prompt`; None: not known yet."""
        return self._priors.get((question, prompt))

    def keep_prior(self, question: Question, prompt: str, logps: tuple[float, ...]) -> None:
        """Remembers what the same request would always give."""
        self._priors[question, prompt] = logps

    def can_close(self, question: Question) -> bool:
        """Whether the closing line of a reply can be asked for."""
        return question in self._labels

    def read(self, question: Question, completion: Completion) -> float | None:
        """The score in [-1, 1] of a reply; None if it cannot be read."""
        if completion.finish != "stop":  # cut off: a conclusion in it may not be the last word
            return None
        text = self.tokenizer.decode(completion.tokens)
        return read_reply(question, text, self.settings.reading, self.settings.labels(question))

    def _find_labels(self, question: Question, lead_in: str) -> None:
        try:
            self._labels[question] = label_ids(
                self.tokenizer, lead_in, tuple(self.settings.labels(question))
            )
        except UserError:
            if self.settings.mode != "generative":
                raise  # a reply is read without them too

    def _close(self, question: Question, reply: tuple[int, ...]) -> tuple[int, ...]:
        """A reply without its end, up to where the label of its closing line stands."""
        tokenizer, tags = self.tokenizer, self.tokenizer.tags
        ids = list(reply)
        while ids and ids[-1] in self._sampling.stop_ids:
            ids.pop()
        lead_in = self._lead_in_texts[question]
        if tags.reasoning_open not in ids or tags.output_open in ids:
            return (*ids, *tokenizer.encode_text(f"\n{lead_in}"))
        # A structured reply that has not come to its output block.
        if _last(ids, tags.reasoning_open) > _last(ids, tags.reasoning_close):
            ids += [*tokenizer.encode_text("\n"), tags.reasoning_close]
        ids += [*tokenizer.encode_text("\n\n"), tags.output_open]
        return (*ids, *tokenizer.encode_text(f"{steps.FINAL_PREFIX} {lead_in}"))

    def _send(
        self, id: Hashable, tokens: tuple[int, ...], parent: Handle | None, **fields: Any
    ) -> Request:
        # Merges across the boundary may change the last tokens of the prefix for this answer.
        while parent is not None and tokens[: len(parent.tokens)] != parent.tokens:
            parent = parent.parent
        own = tokens[len(parent.tokens) :] if parent else tokens
        return Request(
            id=id, tokens=own, parent=parent, service=self.service, adapter=self.adapter, **fields
        )


class LanguageModelScoring(Scoring):
    """One question put to a language model: a reply, perhaps its closing line, perhaps retries."""

    def __init__(self, source: LanguageModelSource, question: Question, case: Case, asking: Asking):
        """Nothing is asked yet."""
        super().__init__()
        self._source, self._question, self._case, self._asking = source, question, case, asking
        self._attempt = 0
        self._stage: Literal["prior", "reply", "closing"] = "reply"
        self._sent: Request | None = None

    def start(self) -> list[Request]:
        """The first request."""
        settings = self._source.settings
        is_calibrated = settings.contextual_calibration and settings.mode == "expected"
        if is_calibrated and self._source.prior(self._question, self._case.prompt) is None:
            self._stage = "prior"
            return [self._request("", _EMPTY_KEY)]
        return self._ask()

    def receive(self, completion: Completion) -> list[Request]:
        """Reads a completion; returns the request of a closing line or a retry, or nothing."""
        if self._stage == "prior":
            self._source.keep_prior(self._question, self._case.prompt, completion.scores)
            return self._ask()
        if self._stage == "closing" or self._source.settings.mode == "expected":
            return self._settle(self._score(completion), completion)
        score = None
        if self._source.settings.mode == "generative":
            score = self._source.read(self._question, completion)
        may_close = self._source.can_close(self._question) and completion.finish != "too_long"
        if score is None and may_close:
            return self._ask_closing(completion)
        return self._settle(score, completion)

    def _ask(self) -> list[Request]:
        self._stage = "reply"
        return [self._request(self._case.answer, self._asking.key(self._attempt))]

    def _ask_closing(self, completion: Completion) -> list[Request]:
        assert self._sent is not None
        self._stage = "closing"
        self.closings += 1
        return [self._source.request_closing(self._sent, self._question, completion)]

    def _score(self, completion: Completion) -> float | None:
        """The score of the log-probs of labels."""
        settings, question, logps = self._source.settings, self._question, completion.scores
        if settings.mode == "generative":
            return likeliest_score(question, logps, settings.labels(question))
        prior = self._source.prior(question, self._case.prompt)
        if prior and len(prior) == len(logps):
            logps = tuple(logp - before for logp, before in zip(logps, prior, strict=True))
        return expected_score(question, logps, settings.threshold, settings.labels(question))

    def _settle(self, score: float | None, completion: Completion) -> list[Request]:
        if score is not None:
            return self.finish(score)
        self.unreadable += 1
        # Another sample cannot help where nothing is sampled, nor where the prompt is too long.
        settings = self._source.settings
        no_room = completion.finish == "too_long" and self._stage == "reply"
        may_help = settings.mode != "expected" and not no_room
        if may_help and self._attempt + 1 < settings.attempts:
            self._attempt += 1
            return self._ask()
        return self.finish(None)

    def _request(self, answer: str, key: RequestKey) -> Request:
        asking = self._asking
        self._sent = self._source.request(
            asking.id,
            self._question,
            self._case.prompt,
            answer,
            key,
            asking.parent,
            asking.priority,
        )
        return self._sent


def _last(ids: list[int], token: int) -> int:
    """The last place of a token; -1 if it is not there."""
    return len(ids) - 1 - ids[::-1].index(token) if token in ids else -1
