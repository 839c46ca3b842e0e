"""What may be spent: a cap on calls and on money that holds with many calls under way."""

from stair_jax.endpoints.chat import Usage
from stair_jax.endpoints.settings import EndpointSettings

_ROUNDING = 1e-9  # of sums of money, relative


class Cap:
    """What was spent, and what the calls under way can cost at most.

    A call starts only if all of that and its own most expensive end fit under the cap. So the cap
    is never passed, as long as the endpoint counts tokens as promised.

    Attributes:
      calls: that were paid, or may have been.
      cost: of these, in money.
      in_flight: calls under way.
    """

    def __init__(self, settings: EndpointSettings, calls: int = 0, cost: float = 0.0):
        """A cap of which so much is used up."""
        self._settings = settings
        self._reserved = 0.0
        self.calls, self.cost, self.in_flight = calls, cost, 0

    def most(self, usage: Usage) -> float:
        """Money for so many tokens."""
        return self._settings.cost(usage.input_tokens, usage.output_tokens)

    def fits(self, usage: Usage) -> bool:
        """Whether a call of at most `usage` may start."""
        calls, budget = self._settings.max_requests, self._settings.budget
        if calls is not None and self.calls + self.in_flight + 1 > calls:
            return False
        total = self.cost + self._reserved + self.most(usage)
        return budget is None or total <= budget * (1 + _ROUNDING)

    def reserve(self, usage: Usage) -> None:
        """A call starts."""
        self.in_flight += 1
        self._reserved += self.most(usage)

    def release(self, usage: Usage) -> None:
        """It was not paid."""
        self.in_flight -= 1
        # Exactly 0 when nothing is under way: rounding does not add up.
        self._reserved = self._reserved - self.most(usage) if self.in_flight else 0.0

    def settle(self, usage: Usage, cost: float) -> None:
        """It was paid, or may have been; `usage` as in `reserve`, `cost` what it cost."""
        self.release(usage)
        self.calls += 1
        self.cost += cost

    def describe(self) -> str:
        """The cap in words, with the settings that hold it."""
        calls, budget = self._settings.max_requests, self._settings.budget
        parts = [f"{calls:,} requests (max_requests)"] if calls is not None else []
        parts += [f"{budget:.10g} (budget)"] if budget is not None else []
        return " and ".join(parts)
