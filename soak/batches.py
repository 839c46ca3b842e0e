"""A process that asks an endpoint in batches is killed again and again (`payments.py`).

The batch API refuses, fails or cuts an eighth of its calls, and a quarter of the requests in a
batch. Nothing at all is paid twice: a batch that was made is found again, whenever the process was
killed.
"""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from soak.endpoint_client import BATCHES
from soak.endpoints import Client
from soak.payments import attack
from soak.result import Result
from stair_jax.testing.fake_act import Act
from stair_jax.testing.fake_batches import BatchScript

_REQUESTS = 80
_LONGEST = 0.05  # seconds that a call of the batch API takes


def run(size: int, seed: int, folder: Path, count: int = _REQUESTS) -> Result:
    """Kills `size` processes; see `payments.attack`.

    Args:
        size: number of kills.
        seed: of the moments, and of what the endpoint does.
        folder: for ledgers and results.
        count: requests of a run.
    """
    faults = (Act(429, {}), Act(500, {}), Act(cut=30))
    return attack(
        "batches",
        size,
        seed,
        folder,
        lambda endpoint, place: BatchClient(endpoint, place, count),
        faults=faults,
    )


@dataclass
class BatchClient(Client):
    """Starts of `endpoint_client` that ask in batches."""

    IN_FLIGHT: ClassVar[int] = 0

    def __post_init__(self) -> None:
        """Sets what calls of the batch API come to."""
        self.endpoint.batches.script = _script(self.folder.name)
        self.endpoint.batches.polls = 3

    @property
    def num_calls(self) -> int:
        """Those of the batch API."""
        return len(self.endpoint.batches.calls)

    def command(self) -> list[str]:
        """See `Attacked.command`."""
        return [*super().command(), BATCHES]


def _script(seed: str) -> BatchScript:
    def act(name: str, number: int) -> Act:
        rng = random.Random(f"{seed} {name} {number}")
        faults = (Act(429, {}), Act(503, {}), Act(cut=0))
        return rng.choice(faults) if rng.random() < 0.125 else Act(seconds=rng.uniform(0, _LONGEST))

    return act
