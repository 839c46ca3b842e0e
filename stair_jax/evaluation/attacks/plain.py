"""The prompt as it is."""

import random
from collections.abc import Sequence

from stair_jax.evaluation.attacks.attack import Transform
from stair_jax.evaluation.case import Case
from stair_jax.evaluation.target import Asked


class Plain(Transform):
    """No attack: what the others are compared with."""

    NAME = "none"

    def apply(self, case: Case, draw: random.Random) -> Sequence[Asked]:
        """The chat of the case."""
        return [Asked(case.messages)]
