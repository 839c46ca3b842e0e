"""A model behind an OpenAI-compatible endpoint that judges."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from stair_jax.decoding.task import Task
from stair_jax.endpoints.chat import ChatCompletion, ChatRequest
from stair_jax.evaluation.judges.asked import AskedJudge
from stair_jax.evaluation.judges.choosing import chances_of_tokens
from stair_jax.evaluation.judges.grading import Outcome
from stair_jax.evaluation.judges.judge import Material
from stair_jax.evaluation.judges.reading import Found, read
from stair_jax.evaluation.judges.settings import JudgeSettings
from stair_jax.evaluation.judges.wordings import Wording
from stair_jax.search.judging.fence import mark_of
from stair_jax.text import fence_prompts

_ID = ("ask",)
_ALTERNATIVES = 20  # of a token, with their log-probabilities: the most that the API gives
_SAMPLES = 2**31  # numbers of samples
_CLOSING_RUBRIC = """\
Now reply with nothing but your scores, in these lines with a whole number in the brackets:
"""


class EndpointJudge(AskedJudge):
    """Asks the service of an endpoint, whose settings say how to sample."""

    def __init__(self, settings: JudgeSettings, service: str = "endpoint"):
        """A judge whose requests go to a service.

        Raises:
          UserError: a file of the settings cannot be used.
        """
        super().__init__(f"endpoint:{settings.endpoint.model}", settings)
        self._service = service

    def identity(self) -> dict[str, Any]:
        """The model and the address that are asked, and how."""
        endpoint = self.settings.endpoint
        own = {
            "model": endpoint.model,
            "endpoint": endpoint.endpoint,
            "sampling": vars(endpoint.sampling),
            "extra_body": dict(endpoint.extra_body),
        }
        # The endpoint's own settings say these.
        shared = super().identity()
        return {k: v for k, v in shared.items() if k not in ("temperature", "max_tokens")} | own

    def ask(self, question: str, material: Material, key: tuple[int, int]) -> "EndpointAsking":
        """A task of one prompt."""
        return EndpointAsking(self, self.wordings[question], material, key)

    def request(self, wording: Wording, material: Material, key: tuple[int, int]) -> ChatRequest:
        """The request for a reply: one turn of the user's."""
        expects = self.settings.mode == "expected" and not wording.parts[0].name
        return ChatRequest(
            _ID,
            ({"role": "user", "content": wording.write(material, mark_of(key))},),
            self._service,
            sample=key[0] % _SAMPLES,
            top_logprobs=_ALTERNATIVES if expects else 0,
        )


class EndpointAsking(Task[Outcome]):
    """One prompt: a reply, and perhaps its verdict once more."""

    def __init__(
        self, judge: EndpointJudge, wording: Wording, material: Material, key: tuple[int, int]
    ):
        """Nothing is asked yet."""
        self._judge, self._wording = judge, wording
        self._request = judge.request(wording, material, key)
        self._is_closing = False
        self._text, self._tokens = "", 0

    def start(self) -> list[ChatRequest]:
        """The first request."""
        return [self._request]

    def receive(self, completion: ChatCompletion) -> list[ChatRequest]:
        """Reads a reply; returns the request for its verdict, or nothing."""
        self._text = "\n".join(filter(None, (self._text, completion.text)))
        self._tokens += completion.usage.output_tokens
        found = self._read(completion)
        can_close = completion.finish in ("stop", "length") and bool(completion.text.strip())
        may_close = self._judge.settings.ask_closing and not self._is_closing
        if found is None and can_close and may_close:
            self._is_closing = True
            return [self._closing(completion.text)]
        self.result = Outcome(found, self._text, self._tokens, completion.model, completion.date)
        return []

    def _read(self, completion: ChatCompletion) -> Found | None:
        """By the log-probabilities of the first token if there are some, else by the text."""
        first: Mapping[str, float] = next(iter(completion.top_logprobs), {})
        if first and self._request.top_logprobs:
            chances = chances_of_tokens(self._wording.parts[0], first)
            if chances is not None:
                return {"": chances}
        return read(self._wording, completion.text) if completion.finish == "stop" else None

    def _closing(self, reply: str) -> ChatRequest:
        parts = self._wording.parts
        if parts[0].name:
            content = _CLOSING_RUBRIC + "\n".join(f"{part.lead_in}x]" for part in parts)
        else:
            labels = ", ".join(parts[0].scored)
            content = fence_prompts.CLOSING_REQUEST.replace("{labels}", labels)
        turns: tuple[dict[str, Any], ...] = (
            {"role": "assistant", "content": reply},
            {"role": "user", "content": content},
        )
        return replace(self._request, messages=(*self._request.messages, *turns))
