"""What a soak found."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

_SHOWN = 20  # kinds of failures that are printed


class Failure(NamedTuple):
    """Something that did not hold: what, and the command or the input that shows it again."""

    what: str
    reproduce: str


@dataclass
class Result:
    """What a soak did and found.

    Attributes:
        name: of the soak.
        counts: of what was tried, by kind.
        figures: measurements, by name and unit, e.g. `peak_mb`.
        failures: all that did not hold.
    """

    name: str
    counts: Counter[str] = field(default_factory=Counter)
    figures: dict[str, Any] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)

    def fail(self, what: str, seed: int, detail: str = "", size: int = 1) -> None:
        """Adds a failure that this size and seed show again; `detail` says more of it."""
        command = f"bash launch/soak.sh {self.name} --size {size} --seed {seed}"
        self.failures.append(Failure(what, f"{command} ({detail})" if detail else command))

    def summary(self) -> str:
        """Lines for a reader: counts, figures, and the first failure of each kind."""
        lines = [
            f"{self.name}: " + ", ".join(f"{name} {count}" for name, count in self.counts.items()),
            *(f"  {name}: {_rounded(value)}" for name, value in self.figures.items()),
        ]
        times = Counter(failure.what for failure in self.failures)
        first = {failure.what: failure for failure in reversed(self.failures)}
        for what, count in times.most_common(_SHOWN):
            lines += [f"  FAILED {count} times: {what}", f"    again: {first[what].reproduce}"]
        if len(times) > _SHOWN:
            lines.append(f"  ... and {len(times) - _SHOWN} kinds of failures more")
        lines.append(f"{self.name}: {len(self.failures)} failures")
        return "\n".join(lines)


def _rounded(value: Any) -> Any:
    return f"{value:.4g}" if isinstance(value, float) else value
