"""A model behind an OpenAI-compatible endpoint that judges."""

from typing import Any

from stair_jax.endpoints.chat import ChatCompletion, ChatRequest
from stair_jax.search.judging.fence import mark_of
from stair_jax.search.judging.replies import Question, read_reply
from stair_jax.search.judging.settings import JudgeSettings
from stair_jax.search.judging.sources.judge_prompts import JudgePrompts
from stair_jax.search.judging.sources.source import Asking, Case, RequestKey, Scoring, Source
from stair_jax.text import fence_prompts

_SAMPLES = 2**31  # numbers of samples


class EndpointSource(Source):
    """Makes the requests to an endpoint and reads its replies, which it always writes out."""

    def __init__(self, settings: JudgeSettings, service: str = "endpoint"):
        """A source that asks the service of an endpoint, whose settings say how to sample."""
        self.settings, self._service = settings, service
        self._prompts = JudgePrompts(settings)

    def ask(self, question: Question, case: Case, asking: Asking) -> "EndpointScoring":
        """The scoring of one question about an answer."""
        return EndpointScoring(self, question, case, asking)

    def request(
        self, question: Question, case: Case, asking: Asking, key: RequestKey
    ) -> ChatRequest:
        """The request for one reply: one user turn, fenced by a mark that is drawn from the key."""
        content = self._prompts.write(question, case.prompt, case.answer, mark_of(key))
        return ChatRequest(
            asking.id,
            ({"role": "user", "content": content},),
            self._service,
            sample=key[0] % _SAMPLES,  # else an endpoint gives the same reply to the same words
            priority=asking.priority,
        )

    def request_closing(self, request: ChatRequest, question: Question, reply: str) -> ChatRequest:
        """The request for the verdict that a reply lacks."""
        labels = ", ".join(self.settings.labels(question))
        closing = fence_prompts.CLOSING_REQUEST.replace("{labels}", labels)
        turns: tuple[dict[str, Any], ...] = (
            {"role": "assistant", "content": reply},
            {"role": "user", "content": closing},
        )
        return ChatRequest(
            request.id,
            (*request.messages, *turns),
            self._service,
            sample=request.sample,
            priority=request.priority,
        )


class EndpointScoring(Scoring):
    """One question put to an endpoint: a reply, perhaps its closing line, perhaps retries."""

    def __init__(self, source: EndpointSource, question: Question, case: Case, asking: Asking):
        """Nothing is asked yet."""
        super().__init__()
        self._source, self._question, self._case, self._asking = source, question, case, asking
        self._attempt = 0
        self._sent: ChatRequest | None = None
        self._is_closing = False

    def start(self) -> list[ChatRequest]:
        """The first request."""
        key = self._asking.key(self._attempt)
        self._is_closing = False
        self._sent = self._source.request(self._question, self._case, self._asking, key)
        return [self._sent]

    def receive(self, completion: ChatCompletion) -> list[ChatRequest]:
        """Reads a reply; returns the request of a closing line or a retry, or nothing."""
        assert self._sent is not None
        settings = self._source.settings
        if completion.finish == "stop":
            labels = settings.labels(self._question)
            score = read_reply(self._question, completion.text, settings.reading, labels)
            if score is not None:
                return self.finish(score)
        may_close = settings.ask_closing and completion.text.strip() and not self._is_closing
        if may_close and completion.finish in ("stop", "length"):
            self._is_closing = True
            self.closings += 1
            return [self._source.request_closing(self._sent, self._question, completion.text)]
        self.unreadable += 1
        # A refused or failed call was tried as often as the endpoint's settings say.
        may_help = completion.finish in ("stop", "length") or self._is_closing
        if may_help and self._attempt + 1 < settings.attempts:
            self._attempt += 1
            return self.start()
        return self.finish(None)
