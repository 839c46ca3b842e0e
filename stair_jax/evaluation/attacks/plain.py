"""The prompt as it is."""

import random
from collections.abc import Sequence

from stair_jax.decoding.task import GatherTask, Task
from stair_jax.evaluation.attacks.attack import Means, Transform, Tried, TriedTask
from stair_jax.evaluation.case import Case
from stair_jax.evaluation.target import Asked


class Plain(Transform):
    """No attack: what the others are compared with."""

    NAME = "none"

    def apply(self, case: Case, draw: random.Random) -> Sequence[Asked]:
        """The chat of the case."""
        return [Asked(case.messages)]

    def task(self, case: Case, means: Means) -> Task[list[Tried]]:
        """One answer, whose random numbers depend on the case alone, as in `stair-jax answer`."""
        asked = Asked(case.messages)
        answer = means.target.ask(asked, case.id, means.method)
        return TriedTask([asked], GatherTask([answer]), self.decode)
