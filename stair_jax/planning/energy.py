"""Energy and price of device hours, with what is assumed of both."""

from collections.abc import Mapping
from dataclasses import dataclass

from stair_jax.settings import Settings, setting

# Limits of GPUs (SXM modules).
_DATA_SHEETS: Mapping[str, float] = {
    "a10g": 150,
    "a100-40gb": 400,
    "a100-80gb": 400,
    "a6000": 300,
    "b200": 1000,
    "h100": 700,
    "h100-pcie": 350,
    "h200": 700,
    "l4": 72,
    "l40s": 350,
    "rtx3090": 350,
    "rtx4090": 450,
    "rtx5090": 575,
    "rtx6000-ada": 300,
}
# Watts of a board or chip, by what says so: of v4 the largest that was measured (Jouppi et al.,
# arXiv 2304.01433, table 4). Google publishes no power of the other TPUs: of the order of what is
# said of them in public.
WATTS: Mapping[str, Mapping[str, float]] = {
    "data sheet": _DATA_SHEETS,
    "measured": {"v4": 192},
    "assumed": {"v5e": 200, "v5p": 350, "v6e": 300},
}

PRICES_DATE = "2025"
# US dollars an hour on demand, as lists had them in 2025; nobody has looked them up since.
PRICES: Mapping[str, float] = {
    "a100-80gb": 1.79,
    "h100": 2.99,
    "h200": 3.50,
    "v4": 3.22,
    "v5e": 1.20,
    "v5p": 4.20,
    "v6e": 2.70,
}


@dataclass(frozen=True)
class EnergySettings(Settings):
    """What energy and price rest on; devices by the names of `--devices`, such as "h100".

    Attributes:
      watts: of a board or chip at its limit; of those that are not named, as data sheets say; of
        TPUs as measured (v4) or assumed.
      utilization: the share of that which it takes in the mean.
      overhead: what hosts, network and cooling take besides, as a factor of the boards' own.
      prices: US dollars of a device hour; of those that are not named, lists of 2025.
    """

    watts: Mapping[str, float] = setting(dict)
    utilization: float = setting(0.8, above=0, most=1)
    overhead: float = setting(1.5, least=1)
    prices: Mapping[str, float] = setting(dict)

    def power(self, name: str) -> float | None:
        """Watts of a device with what is around it; None: not known."""
        board = self._board(name)
        return None if board is None else board[0] * self.utilization * self.overhead

    def price(self, name: str) -> float | None:
        """US dollars of a device hour; None: not known."""
        return {**PRICES, **self.prices}.get(name)

    def text(self, name: str) -> str:
        """What is assumed of a device, in words."""
        board = self._board(name)
        power = f"{board[0]:g} W ({board[1]})" if board else "watts not known: --watts"
        price = self.price(name)
        listed = "given" if name in self.prices else f"a list price of {PRICES_DATE}"
        paid = f"${price:g} an hour ({listed})" if price is not None else "no price: --prices"
        return f"{name}: {power}, {paid}"

    def _board(self, name: str) -> tuple[float, str] | None:
        """Watts of a board, and what says so; None: not known."""
        sources = {"given": self.watts, **WATTS}
        return next(((of[name], source) for source, of in sources.items() if name in of), None)


@dataclass(frozen=True)
class Bill:
    """What device hours come to.

    Attributes:
      device_hours: hours times devices.
      kwh: None: the power is not known.
      dollars: None: the price is not known.
    """

    device_hours: float
    kwh: float | None = None
    dollars: float | None = None


def bill(hours: float, devices: int, name: str, settings: EnergySettings) -> Bill:
    """Energy and price of so many devices for so long."""
    spent = hours * devices
    watts, price = settings.power(name), settings.price(name)
    return Bill(
        spent,
        None if watts is None else spent * watts / 1000,
        None if price is None else spent * price,
    )
