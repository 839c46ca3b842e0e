"""Counters of an endpoint service."""

from dataclasses import dataclass, field

from stair_jax.endpoints.chat import Usage


@dataclass
class EndpointStats:
    """Counters since the service was made.

    Attributes:
      requests: that were submitted.
      replies: that came over the network.
      from_log: requests whose reply was in the ledger, or came for another request of the same
        content.
      missing: requests that got no reply in all their tries.
      filtered: replies that the endpoint's content filter refused.
      too_long: requests whose messages leave no room in the model's context.
      refused: calls that were refused for the rate (429).
      faults: calls without a reply for other reasons.
      lost: of these, calls that may have been paid.
      without_usage: replies that do not tell their tokens; the most that they can be is counted.
      without_logprobs: replies without the log-probabilities that were asked for.
      usage: tokens of the replies.
      cost: money for replies and lost calls.
    """

    requests: int = 0
    replies: int = 0
    from_log: int = 0
    missing: int = 0
    filtered: int = 0
    too_long: int = 0
    refused: int = 0
    faults: int = 0
    lost: int = 0
    without_usage: int = 0
    without_logprobs: int = 0
    usage: Usage = field(default_factory=Usage)
    cost: float = 0.0
