"""The safety-informed reward of a final answer and the check of its properties (STAIR section 2).

With helpfulness H and safety S in [-1, 1] (S > 0 is safe, S < 0 unsafe) the family is

    R(H, S) = F(S) H + S - C2 F(S) + c

1. Safety first: S1 > 0 > S2 gives R1 > R2, whatever H is. Not implied by the other two. It is C2
   that breaks it, by the least helpful answers: F = S needs C2 < 0, F = 2S needs C2 < -1/2, and
   F = -S^2 + 2S, steeper on the unsafe side, needs C2 < -2/3 (C2 < -1/2 if S is -1 or +1 alone).
2. Direction: R rises with H where S > 0 and falls where S < 0, so F must have the sign of S. All
   three forms have it on [-1, 1].
3. Degeneration: some S = C1 makes R equal H up to a constant, so F(C1) = 1, and H = C2 makes R
   equal S up to a constant, so C2 must be a helpfulness that can occur. F = 2S has its C1 at 1/2:
   if S is -1 or +1 alone, it breaks this property (helpfulness counts twice).

Of the choices that the paper ablates, F = S with C2 = -1/2 and F = -S^2 + 2S with C2 = -1 keep all
three; F = 2S with C2 = -1 breaks the third one for a judge that says -1 or +1.

The paper uses F(S) = S, C2 = -1, c = 0: R = S H + 2 S, in [-3, 3] and with the sign of S.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from stair_jax.errors import UserError
from stair_jax.settings import Settings, setting

FAMILIES: dict[str, Callable[[Any], Any]] = {
    "s": lambda s: s,
    "2s": lambda s: 2 * s,
    "-s^2+2s": lambda s: 2 * s - s * s,
}

# Values of S on which a property is checked; R is linear in H, so there the ends decide.
SAFETY_VALUES = {
    "continuous": np.linspace(-1, 1, 2001),
    "discrete": np.array([-1.0, 1.0]),
}


@dataclass(frozen=True)
class Property:
    """Whether a reward has one of the three properties; `reason` names a counterexample if not."""

    name: str
    holds: bool
    reason: str


@dataclass(frozen=True)
class SafetyReward(Settings):
    """R(H, S) = F(S) H + S - C2 F(S) + c.

    Attributes:
        family: F by name, one of `FAMILIES`.
        c2: C2, the helpfulness at which R is S up to a constant.
        constant: c.
        safety: the values of S that the judge gives: "continuous", all of [-1, 1], or "discrete",
            -1 and +1 alone.
        allow_unsafe: accept a reward that is not safety first (for ablations).
    """

    family: str = setting("s", choices=tuple(FAMILIES))
    c2: float = -1.0
    constant: float = 0.0
    safety: str = setting("continuous", choices=tuple(SAFETY_VALUES))
    allow_unsafe: bool = False

    def __post_init__(self) -> None:
        """Raises a UserError for a value that cannot be, and for a reward not safety first."""
        super().__post_init__()
        first = self.properties()[0]
        if not (first.holds or self.allow_unsafe):
            raise UserError(
                f"reward with family={self.family}, c2={self.c2:g} is not safety first: "
                f"{first.reason}; choose c2=-1 or set reward.allow_unsafe"
            )

    def __call__(self, helpfulness: Any, safety: Any) -> Any:
        """R, for numbers or arrays of one shape."""
        weight = FAMILIES[self.family](safety)
        return weight * helpfulness + safety - self.c2 * weight + self.constant

    def properties(self) -> tuple[Property, Property, Property]:
        """Safety first, direction, degeneration, on the values of S that the judge gives.

        Checked at H = -1 and +1 (R is linear in H); a continuous S is checked at 2,001 values.
        """
        return self._safety_first(), self._direction(), self._degeneration()

    def _safety_first(self) -> Property:
        values = SAFETY_VALUES[self.safety]
        safe, unsafe = values[values > 0], values[values < 0]
        worst = min((float(self(h, s)), h, float(s)) for s in safe for h in (-1, 1))
        best = max((float(self(h, s)), h, float(s)) for s in unsafe for h in (-1, 1))
        relation = ">" if worst[0] > best[0] else "<="
        reason = (
            f"the safe R(H={worst[1]}, S={worst[2]:g}) = {worst[0]:g} {relation} "
            f"the unsafe R(H={best[1]}, S={best[2]:g}) = {best[0]:g}"
        )
        return Property("safety first", worst[0] > best[0], reason)

    def _direction(self) -> Property:
        values = SAFETY_VALUES[self.safety]
        wrong = values[np.sign(FAMILIES[self.family](values)) != np.sign(values)]
        if not wrong.size:
            return Property("direction", True, "F has the sign of S")
        slope = float(FAMILIES[self.family](wrong[0]))
        return Property("direction", False, f"dR/dH = F({wrong[0]:g}) = {slope:g}")

    def _degeneration(self) -> Property:
        values = SAFETY_VALUES[self.safety]
        weights = FAMILIES[self.family](values)
        nearest = int(np.argmin(np.abs(weights - 1)))
        if not np.isclose(weights[nearest], 1):
            reason = f"no S has F(S) = 1: F({values[nearest]:g}) = {weights[nearest]:g} is nearest"
            return Property("degeneration", False, reason)
        if abs(self.c2) > 1:
            reason = f"R equals S up to a constant at H = {self.c2:g} alone, outside of [-1, 1]"
            return Property("degeneration", False, reason)
        return Property("degeneration", True, f"C1 = {values[nearest]:g}, C2 = {self.c2:g}")
