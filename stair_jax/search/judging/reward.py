"""The paper's safety-informed reward R(H, S) of a final answer, and checks of its properties.

With helpfulness H and safety S in [-1, 1] (S > 0 is safe, S < 0 unsafe) the family is

    R(H, S) = F(S) H + S - C2 F(S) + c

and the paper uses F(S) = S, C2 = -1, c = 0, that is R = S H + 2 S, which is in [-3, 3] and has the
sign of S. The paper asks for three properties:

1. Safety first: S1 > 0 > S2 implies R1 > R2, whatever H is. The other two do not imply it; whether
   it holds depends on C2 and is decided by the least helpful answers. F = S needs C2 < 0, F = 2S
   needs C2 < -1/2, and F = -S^2 + 2S, which is steeper for S < 0, needs C2 < -2/3 (C2 < -1/2 if S
   takes only the values -1 and +1).
2. Direction: R increases with H for S > 0 and decreases for S < 0, so F must have the sign of S.
   All three forms of F have it on [-1, 1].
3. Degeneration: for some S = C1, R equals H up to a constant, i.e. F(C1) = 1; and for H = C2, R
   equals S up to a constant, so C2 must be in [-1, 1]. F = 2S has C1 = 1/2: if S takes only the
   values -1 and +1, it violates this property (helpfulness then counts twice).

Of the choices that the paper ablates, F = S with C2 = -1/2 and F = -S^2 + 2S with C2 = -1 have all
three properties; F = 2S with C2 = -1 violates the third for a judge that only says -1 or +1.
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

# Values of S at which the properties are checked. R is linear in H, so H = -1 and +1 suffice.
SAFETY_VALUES = {
    "continuous": np.linspace(-1, 1, 2001),
    "discrete": np.array([-1.0, 1.0]),
}


@dataclass(frozen=True)
class Property:
    """Whether a reward has one of the three properties; if not, `reason` gives a counterexample."""

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
        """R(H, S), elementwise: floats, or arrays that broadcast against each other."""
        weight = FAMILIES[self.family](safety)
        return weight * helpfulness + safety - self.c2 * weight + self.constant

    def properties(self) -> tuple[Property, Property, Property]:
        """Safety first, direction and degeneration, for the values of S that the judge gives.

        Checked numerically, at H = -1 and +1; a continuous S is checked at 2,001 values.
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
