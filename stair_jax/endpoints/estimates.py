"""What is said before the first call: requests, tokens, money, cap."""

from collections.abc import Sequence

from stair_jax.endpoints.cap import Cap
from stair_jax.endpoints.chat import ChatRequest, estimated_input
from stair_jax.endpoints.ledger import Ledger
from stair_jax.endpoints.settings import EndpointSettings


def forecast(
    settings: EndpointSettings,
    ledger: Ledger,
    first: Sequence[ChatRequest],
    expected: int | None,
) -> str:
    """One line on what is about to be asked.

    Args:
      settings: of the endpoint.
      ledger: what was paid before.
      first: some of the requests, or requests like them; the others are taken to be like them.
      expected: number of all requests; None: not known.
    """
    tokens_in = sum(map(estimated_input, first)) / len(first)
    tokens_out = sum((r.sampling or settings.sampling).max_tokens for r in first) / len(first)
    left = 1 if expected is None else max(0, expected - len(ledger))
    money = settings.cost(round(left * tokens_in), round(left * tokens_out))
    size = f"about {left * tokens_in:,.0f} tokens in, at most {left * tokens_out:,.0f} out"
    parts = [f"{'a request' if expected is None else f'{left:,} requests'}: {size}"]
    if settings.input_price is not None and settings.output_price is not None:
        parts.append(f"at most about {money:.4g} in money")
    if settings.batch.size:
        parts.append(f"in batches, at {settings.batch.price_factor:g} of the prices")
    if len(ledger):
        parts.append(f"{len(ledger):,} are answered already")
    cap = Cap(settings, ledger.calls, ledger.cost)
    line = f"endpoint: {settings.model} at {settings.endpoint}: {', '.join(parts)}"
    return f"{line}; the cap is {cap.describe()}{_used(cap, left, money, settings)}"


def _used(cap: Cap, left: int, money: float, settings: EndpointSettings) -> str:
    """What of the cap is used, and whether the rest is too little."""
    used = f", of which {cap.calls:,} requests and {cap.cost:.4g} are used" if cap.calls else ""
    calls, budget = settings.max_requests, settings.budget
    is_short = (calls is not None and cap.calls + left > calls) or (
        budget is not None and cap.cost + money > budget
    )
    return f"{used}; the run stops before the end if so much is needed" if is_short else used
