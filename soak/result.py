"""Results of soak tests."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

_SHOWN = 20  # different failures that are printed


class Failure(NamedTuple):
    """A failure, and the command that reproduces it."""

    what: str
    reproduce: str


@dataclass
class Result:
    """Result of a soak test.

    Attributes:
        name: of the soak test.
        counts: numbers of the cases that were tried, by kind.
        figures: measurements; names end with the unit, such as `peak_mb`.
        failures: in the order in which they were found.
    """

    name: str
    counts: Counter[str] = field(default_factory=Counter)
    figures: dict[str, Any] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)

    def fail(self, what: str, seed: int, detail: str = "", size: int = 1) -> None:
        """Adds a failure that can be reproduced with this size and seed."""
        command = f"bash launch/soak.sh {self.name} --size {size} --seed {seed}"
        self.failures.append(Failure(what, f"{command} ({detail})" if detail else command))

    def summary(self) -> str:
        """Counts, figures and the first of each different failure, as text."""
        lines = [
            f"{self.name}: " + ", ".join(f"{name} {count}" for name, count in self.counts.items()),
            *(f"  {name}: {_rounded(value)}" for name, value in self.figures.items()),
        ]
        times = Counter(failure.what for failure in self.failures)
        first = {failure.what: failure for failure in reversed(self.failures)}
        for what, count in times.most_common(_SHOWN):
            lines += [f"  FAILED {count} times: {what}", f"    reproduce: {first[what].reproduce}"]
        if len(times) > _SHOWN:
            lines.append(f"  ... and {len(times) - _SHOWN} more different failures")
        lines.append(f"{self.name}: {len(self.failures)} failures")
        return "\n".join(lines)


def _rounded(value: Any) -> Any:
    return f"{value:.4g}" if isinstance(value, float) else value
