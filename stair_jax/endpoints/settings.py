"""Settings of an endpoint: where it is, what may be spent, how it is asked."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from stair_jax import storage
from stair_jax.errors import UserError
from stair_jax.settings import Settings, require, setting

_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
_LARGEST_PRICE = 1e6
# Fields of the body that are set elsewhere, or that would change the form of the reply.
_OWN_FIELDS = frozenset(
    (
        *("model", "messages", "temperature", "top_p", "max_tokens", "max_completion_tokens"),
        *("stop", "seed", "logprobs", "top_logprobs", "n", "stream", "stream_options"),
    )
)


@dataclass(frozen=True)
class ChatSampling(Settings):
    """How the tokens of a reply are sampled; None: not sent, the endpoint's default applies.

    Attributes:
      temperature: divides the logits; models that only reason often refuse it.
      top_p: probability mass that is kept.
      max_tokens: longest reply, reasoning included; also what a reply may cost at most.
      stop: texts that end the reply; most endpoints take up to 4.
      seed: sent as `seed` plus the number of the sample; endpoints heed it as well as they can.
    """

    temperature: float | None = setting(None, least=0, most=100)
    top_p: float | None = setting(None, above=0, most=1)
    max_tokens: int = setting(1024, least=1)
    stop: tuple[str, ...] = ()
    seed: int | None = setting(None, least=0, most=2**31 - 1)


@dataclass(frozen=True)
class BatchSettings(Settings):
    """Requests that are sent as files, through the provider's batch API (`/v1/batches`).

    They cost less, and are answered within a day.

    Attributes:
      size: the most requests of a batch, of which OpenAI takes 50,000; 0: each request is a call.
      price_factor: of the prices, for requests in a batch.
      gather_seconds: without a new request, after which a batch that is not full is sent.
      poll_seconds: between two looks at a batch.
    """

    size: int = setting(0, least=0, most=50_000)
    price_factor: float = setting(0.5, least=0, most=1)
    gather_seconds: float = setting(5.0, above=0, most=3600)
    poll_seconds: float = setting(30.0, above=0, most=3600)


@dataclass(frozen=True)
class EndpointSettings(Settings):
    """An OpenAI-compatible endpoint (chat completions) and what may be spent on it.

    A cap must be set: `max_requests`, or the two prices with a budget. Both count what earlier
    starts of the same run paid for.

    Attributes:
      base_url: the address before /chat/completions, such as https://api.openai.com/v1 or
        http://localhost:8000/v1.
      model: name of the model there.
      key_variable: name of the environment variable that holds the key; empty: no key is sent. The
        key itself never stands in a config.
      max_requests: the most calls that may have been paid; those are not counted that the endpoint
        refused (429), failed with a 5xx, or never accepted. None: no limit.
      input_price: of a million prompt tokens, in the currency of `budget`; None: unknown.
      output_price: of a million sampled tokens; None: unknown.
      budget: the most money. A call starts only if what it can cost at most still fits. None: no
        limit.
      concurrency: the most calls under way at once, and so the most that a killed run pays for
        twice; fewer while the endpoint refuses some (429).
      timeout: seconds within which a reply must be complete.
      tries: calls of one request after which its completion is "missing": faults of the server
        (5xx), time-outs, unreadable replies. A refusal for the rate (429) is none.
      retry_seconds: wait before the second call of a request, doubled each time, with jitter.
      patience: seconds without any reply, while the endpoint refuses each call for its rate, after
        which the run stops.
      give_up_after: requests in a row without a reply after which the run stops; 0: never.
      max_reply_bytes: a longer body counts as unreadable.
      max_tokens_field: the name under which `max_tokens` is sent; older servers know the second.
      batch: whether and how requests are sent in batches; they are the same requests, and a reply
        that came either way is not asked for again.
      sampling: of requests that bring none of their own.
      extra_body: other fields of the body, as the endpoint names them.
    """

    base_url: str = ""
    model: str = ""
    key_variable: str = ""
    max_requests: int | None = setting(None, least=1, cost=True)
    input_price: float | None = setting(None, least=0, most=_LARGEST_PRICE, cost=True)
    output_price: float | None = setting(None, least=0, most=_LARGEST_PRICE, cost=True)
    budget: float | None = setting(None, above=0, cost=True)
    concurrency: int = setting(64, least=1, most=1000, cost=True)
    timeout: float = setting(120.0, above=0, most=86400, cost=True)
    tries: int = setting(6, least=1, most=100, cost=True)
    retry_seconds: float = setting(1.0, above=0, most=3600, cost=True)
    patience: float = setting(1800.0, above=0, most=1e6, cost=True)
    give_up_after: int = setting(20, least=0, cost=True)
    max_reply_bytes: int = setting(8 * 2**20, least=1024, most=2**30, cost=True)
    max_tokens_field: str = setting(
        "max_completion_tokens", choices=("max_completion_tokens", "max_tokens")
    )
    batch: BatchSettings = setting(BatchSettings, cost=True)
    sampling: ChatSampling = setting(ChatSampling)
    extra_body: Mapping[str, Any] = setting(dict)

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
          UserError: names the field; a key or password that was put into one is not shown.
        """
        require(
            not isinstance(self.key_variable, str)
            or not self.key_variable
            or _VARIABLE.fullmatch(self.key_variable) is not None,
            "key_variable must be the name of an environment variable in capitals, such as "
            "OPENAI_API_KEY, not a key",
        )
        super().__post_init__()
        _check_address(self.base_url)
        taken = sorted(_OWN_FIELDS & set(self.extra_body))
        require(not taken, f"extra_body holds {', '.join(taken)}: set by other fields, or not used")
        try:
            storage.plain(self.extra_body)
        except TypeError as error:
            raise UserError(f"extra_body cannot be sent: {error}") from error

    @property
    def endpoint(self) -> str:
        """The address as it is part of a request's identity."""
        return self.base_url.rstrip("/")

    def check(self, where: str) -> None:
        """What must hold before the first call.

        Args:
          where: place of these settings in the config, for messages.

        Raises:
          UserError: the address, the model, the cap or the key is not given.
        """
        require(bool(self.base_url), f"{where}.base_url is empty: give the endpoint's address")
        require(bool(self.model), f"{where}.model is empty: give the name of the model there")
        has_prices = self.input_price is not None and self.output_price is not None
        require(
            self.max_requests is not None or self.budget is not None,
            f"{where} has no cap: set max_requests, or input_price, output_price and budget",
        )
        require(
            self.budget is None or has_prices,
            f"{where}.budget needs {where}.input_price and {where}.output_price",
        )
        self.read_key()

    def read_key(self) -> str:
        """The key, from the environment; "" without `key_variable`.

        Raises:
          UserError: the variable is not set, or holds what no header can.
        """
        if not self.key_variable:
            return ""
        key = os.environ.get(self.key_variable, "").strip()
        require(
            bool(key),
            f"the environment variable {self.key_variable} is not set: it must hold the key of "
            f"{self.base_url}",
        )
        require(
            key.isascii() and key.isprintable() and " " not in key,
            f"the environment variable {self.key_variable} holds no key: it has blanks or "
            "characters that no HTTP header can hold",
        )
        return key

    def cost(self, input_tokens: int, output_tokens: int) -> float:
        """Money for so many tokens, in batches where these are sent; 0: prices are unknown."""
        factor = self.batch.price_factor if self.batch.size else 1.0
        money_in = input_tokens * (self.input_price or 0.0)
        money_out = output_tokens * (self.output_price or 0.0)
        return factor * (money_in + money_out) / 1e6


def _check_address(base_url: str) -> None:
    """Raises a UserError if a text is no address of an endpoint; "" is left to `check`."""
    if not base_url:
        return
    try:
        parts = urlsplit(base_url)
        is_address = bool(parts.scheme in ("http", "https") and parts.hostname)
        _ = parts.port
    except ValueError:
        raise UserError("base_url is no address, such as https://api.openai.com/v1") from None
    require(
        parts.username is None and parts.password is None,
        "base_url holds a name or password: put the key into an environment variable and name it "
        "in key_variable",
    )
    require(
        not parts.path.rstrip("/").endswith("/completions"),
        "base_url ends in /completions: give the part before /chat/completions alone",
    )
    require(
        is_address and not parts.query and not parts.fragment and base_url.isprintable(),
        f"base_url is {base_url!r}: it must be an address such as https://api.openai.com/v1",
    )
