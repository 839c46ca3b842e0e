"""What a server counts, as Prometheus reads it."""

from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from stair_jax.run.answering import Answerer
from stair_jax.server.usage import Usage

_LABELS = ("path", "status")
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_FADING = 0.9  # of older requests in the mean of their seconds


@dataclass(frozen=True)
class EngineState:
    """Numbers of an engine at one moment.

    Attributes:
      capacity: tokens of its cache.
      free: those that are free, or would be at once.
      page_size: tokens of a page.
      pending: its requests that are not completed.
      generated: tokens since it was made, and so the next.
      prefilled: of prompts.
      reused: of prompts, that were in the cache.
      preempted: requests.
    """

    capacity: int
    free: int
    page_size: int
    pending: int
    generated: int
    prefilled: int
    reused: int
    preempted: int


def engine_state(answerer: Answerer) -> EngineState:
    """The numbers of the engine of a model; to be called in its thread."""
    engine = answerer.engine
    stats = engine.stats
    return EngineState(
        engine.capacity,
        engine.free,
        engine.device.engine_config.page_size,
        engine.pending,
        stats.generated,
        stats.prefilled,
        stats.reused,
        stats.preempted,
    )


class Metrics:
    """Counters of one server.

    Attributes:
      mean_seconds: of recent requests for text.
    """

    def __init__(self) -> None:
        """All are 0."""
        self.registry = CollectorRegistry()
        self.mean_seconds = 0.0
        own: dict[str, Any] = {"namespace": "stair_jax", "registry": self.registry}
        self._requests = Counter("requests", "Requests by path and status.", _LABELS, **own)
        self._seconds = Histogram(
            "request_seconds", "Seconds of requests.", _LABELS[:1], buckets=_SECONDS, **own
        )
        self._first = Histogram(
            "first_token_seconds", "Seconds to the first token.", buckets=_SECONDS, **own
        )
        self._tokens = Counter("tokens", "Tokens of finished requests.", ["kind"], **own)
        self._gauges = {
            name: Gauge(name, text, **own)
            for name, text in (
                ("requests_under_way", "Requests that are being answered."),
                ("answers_under_way", "Answers that are being sampled, or wait."),
                ("engine_requests", "Requests of the engine that are not completed."),
                ("pages_in_use", "Pages of the cache in use."),
                ("pages", "Pages of the cache."),
                ("engine_generated_tokens", "Tokens that the engine has sampled."),
                ("engine_prefilled_tokens", "Tokens of prompts that went through the model."),
                ("engine_reused_tokens", "Tokens of prompts that were in the cache."),
                ("engine_preempted", "Requests that were preempted as the cache was full."),
            )
        }

    def count_request(self, path: str, status: int, seconds: float) -> None:
        """Counts a request that was answered; `path` is that of its route."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def count_answers(self, usage: Usage, seconds: float) -> None:
        """Counts the tokens of a request for text that took so long."""
        for kind in ("prompt", "generated", "kept", "reasoning"):
            self._tokens.labels(kind).inc(getattr(usage, kind))
        mean = self.mean_seconds
        self.mean_seconds = mean * _FADING + seconds * (1 - _FADING) if mean else seconds

    def count_first_token(self, seconds: float) -> None:
        """Counts how long a request waited for its first token."""
        self._first.observe(seconds)

    def set_engine(self, state: EngineState) -> None:
        """Sets the numbers of the engine."""
        values = {
            "engine_requests": state.pending,
            "pages": state.capacity // state.page_size,
            "pages_in_use": (state.capacity - state.free) // state.page_size,
            "engine_generated_tokens": state.generated,
            "engine_prefilled_tokens": state.prefilled,
            "engine_reused_tokens": state.reused,
            "engine_preempted": state.preempted,
        }
        for name, value in values.items():
            self._gauges[name].set(value)

    def set_under_way(self, requests: int, answers: int) -> None:
        """Sets what is being answered."""
        self._gauges["requests_under_way"].set(requests)
        self._gauges["answers_under_way"].set(answers)
