"""What all routes of the server share: the model in its thread, settings, and who asks."""

import asyncio
import hashlib
import itertools
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fastapi import Request

from stair_jax.inference.methods import Method
from stair_jax.run.answer_models import AnswerSettings, ModelFiles
from stair_jax.run.answering import Answerer
from stair_jax.server.bodies import SamplingFields
from stair_jax.server.counters import Metrics
from stair_jax.server.engine_thread import EngineThread
from stair_jax.server.errors import ApiError
from stair_jax.server.search_names import UnknownModelError, read_model
from stair_jax.server.settings import ServerSettings
from stair_jax.text.tokenizer import Tokenizer

T = TypeVar("T")
_MOST_LOGPROBS = 2**20  # of one response, whose text then has some 100 MB
_PRIORITY_STEP = 2**40  # a request's priority counts before its place in the queue


@dataclass
class Serving:
    """A model that is served.

    Attributes:
      answerer: the model; what steps its engine is in `thread` alone.
      settings: of the server.
      thread: that owns the engine.
      metrics: what is counted.
      is_draining: whether no new requests are taken.
      num_requests: that are being answered.
    """

    answerer: Answerer
    settings: ServerSettings
    thread: EngineThread = field(init=False)
    metrics: Metrics = field(default_factory=Metrics)
    is_draining: bool = False
    num_requests: int = 0

    def __post_init__(self) -> None:
        self.thread = EngineThread(self.answerer)
        # Texts become tokens beside the engine, one after another.
        self._texts = ThreadPoolExecutor(1, "stair_jax_texts")
        self._arrivals = itertools.count()
        about = [self.files.name, str(self.files.folder), vars(self.files.config)]
        self._fingerprint = "fp_" + hashlib.sha256(repr(about).encode()).hexdigest()[:16]

    @property
    def name(self) -> str:
        """Of the model, for clients."""
        return self.settings.served_name or self.files.name

    @property
    def files(self) -> ModelFiles:
        """Of the model."""
        return self.answerer.files

    @property
    def tokenizer(self) -> Tokenizer:
        """Of the model."""
        return self.answerer.files.tokenizer

    @property
    def defaults(self) -> AnswerSettings:
        """How the model is asked where a request says nothing."""
        return self.answerer.settings

    @property
    def max_length(self) -> int:
        """Most tokens of a sequence, prompt and answer."""
        return self.answerer.max_length

    @property
    def state(self) -> str:
        """Whether requests are taken: "ready", or the reason why not."""
        if self.thread.failure is not None:
            return "failed"
        return "draining" if self.is_draining else "ready"

    @property
    def fingerprint(self) -> str:
        """Of what answers: clients see by it that the model has changed."""
        return self._fingerprint

    def check_model(self, model: str | None) -> Method | None:
        """The search in the name of a model; None: it has none, or no model is named.

        Raises:
          ApiError: there is no such model.
        """
        try:
            return None if model is None else read_model(model, self.name)
        except UnknownModelError as error:
            raise ApiError(404, str(error), "model", "model_not_found") from error

    def check_request(self, body: SamplingFields) -> Method | None:
        """The search in the name of the model that a request asks; None: it has none.

        Raises:
          ApiError: there is no such model, or more is asked than is served.
        """
        method = self.check_model(body.model)
        most = self.settings.max_choices
        if body.num_choices > most:
            raise ApiError(400, f"n is {body.num_choices}: it may be up to {most}", "n")
        self.check_room(body.num_choices)
        return method

    def check_room(self, count: int) -> None:
        """Raises an ApiError where so many more answers would have to wait too long."""
        under_way, most = self.thread.num_open, self.most_answers
        if under_way + count > most:
            raise self.queue_full(f"{under_way} answers are under way, and {most} may be")

    def most_tokens(self, asked: int | None) -> int:
        """Of an answer; `asked` are those that the request names."""
        return min(asked or self.defaults.max_answer_tokens, self.max_length)

    def check_logprobs(self, tokens: int, top: int) -> None:
        """Raises an ApiError where a response would have too many log-probabilities.

        Args:
          tokens: of all texts of the response, at most.
          top: how many of the likeliest are told in the place of each.
        """
        count = tokens * (1 + top)
        if count > _MOST_LOGPROBS:
            raise ApiError(
                400,
                f"the request asks for up to {count} log-probabilities, and {_MOST_LOGPROBS} may "
                "be: ask for fewer texts, fewer tokens, or fewer of the likeliest",
                "logprobs",
            )

    @property
    def most_answers(self) -> int:
        """That are sampled or wait; a request asks for one at least."""
        return self.answerer.engine.device.engine_config.num_slots + self.settings.max_queue

    def queue_full(self, why: str) -> ApiError:
        """What a client is told who is to come back."""
        message = f"{why}: come back later"
        return ApiError(429, message, code="queue_full", headers=self.retry_after)

    @property
    def retry_after(self) -> dict[str, str]:
        """The header that says when to come back: about as long as an answer takes."""
        return {"Retry-After": str(max(1, min(60, round(self.metrics.mean_seconds))))}

    def next_priority(self, priority: int = 0) -> int:
        """The priority of tasks of a request: first come, first served, among those of like one."""
        return priority * _PRIORITY_STEP + next(self._arrivals)

    async def in_text_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        """What a function returns that reads or makes texts, which may take long."""
        return await asyncio.get_running_loop().run_in_executor(self._texts, function, *arguments)

    def close(self) -> None:
        """Ends the threads; what is not answered is cancelled."""
        self.thread.close()
        self._texts.shutdown(cancel_futures=True)


def serving_of(request: Request) -> Serving:
    """The model of the app that a request is for."""
    serving = request.app.state.serving
    assert isinstance(serving, Serving)
    return serving


def new_seed(seed: int | None) -> int:
    """The seed of a request, or a random one."""
    return secrets.randbits(63) if seed is None else seed
