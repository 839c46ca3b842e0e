"""The smallest changes of a config with which its stages fit the memory of some devices.

Each stage that does not fit is changed by its own savings (`Stage.savings`), which stand in the
order of harm. Of each degree of harm all savings are tried together, the least harmful first; of
the first degree that does it, as few as possible are taken, and less harmful ones that are then of
no use are taken back. So nothing that alters results is proposed where cost alone would do.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax

from stair_jax.errors import UserError
from stair_jax.models.config import ModelConfig
from stair_jax.monitoring import say
from stair_jax.planning.plan_table import Planned, overflow
from stair_jax.run.checks import Earlier
from stair_jax.run.run_config import RunConfig
from stair_jax.run.runtime import Runtime
from stair_jax.run.savings import Harm, Saving, apply
from stair_jax.run.stage_list import StageEntry

_MOST_PASSES = 3  # over all stages: what one changes of `runtime` is that of all
Measure = Callable[..., Planned]  # of a program, and the stages that run it


@dataclass(frozen=True)
class Fit:
    """A config, changed where it has to be.

    Attributes:
      config: with the changes.
      reasons: by stage that did not fit, why.
      obstacles: by stage that fits by no change, why it did not fit without.
      harms: what the change of a field does, by (stage, or "runtime"; field).
    """

    config: RunConfig
    reasons: Mapping[str, str] = field(default_factory=dict)
    obstacles: Mapping[str, str] = field(default_factory=dict)
    harms: Mapping[tuple[str, str], Harm] = field(default_factory=dict)


@dataclass(frozen=True)
class Trial:
    """Stages are tried on devices with the programs that they would run.

    Attributes:
      measure: compiles a program, or accounts for it.
      devices: to plan for; None: those of this run.
    """

    measure: Measure
    devices: Sequence[jax.Device] | None = None

    def obstacle(self, entry: StageEntry, runtime: Runtime, earlier: Earlier) -> str:
        """What is in the way of a stage; empty: it fits.

        Weights and moments that are too large alone are told without a compilation.
        """
        context = earlier.context(entry, runtime, self.devices)
        try:
            entry.stage.check_devices(context)
            programs = entry.stage.programs(context)
        except UserError as error:
            return str(error)
        for program in programs:
            planned = self.measure(program, (entry.name,))
            if not planned.fits:
                return f"{program.name}: {overflow(planned)}"
        return ""


@dataclass(frozen=True)
class Known:
    """What is known of a stage whose folder holds something.

    Attributes:
      most: the most harmful change that it may get; None: it stays as it is.
      model: that it hands on; None: the planned one.
    """

    most: Harm | None
    model: ModelConfig | None = None


_UNKNOWN = Known(Harm.BASE)


def fit(config: RunConfig, trial: Trial, known: Mapping[str, Known] | None = None) -> Fit:
    """Changes the stages of a config that do not fit.

    Args:
      config: of the run.
      trial: the devices, and what measures a program.
      known: by name, what is known of stages. Others may get any change.

    Raises:
      UserError: a stage lacks something that no change can mend, such as its model.
    """
    harms: dict[tuple[str, str], Harm] = {}
    reasons: dict[str, str] = {}
    for _ in range(_MOST_PASSES):
        before = config.runtime
        result = _pass(config, trial, known or {})
        config, reasons = result.config, {**result.reasons, **reasons}
        harms |= result.harms
        if config.runtime == before:
            break
    return Fit(config, reasons, result.obstacles, harms)


def _pass(config: RunConfig, trial: Trial, known: Mapping[str, Known]) -> Fit:
    """Fits the stages one after the other."""
    earlier = Earlier()
    entries: list[StageEntry] = []
    reasons: dict[str, str] = {}
    obstacles: dict[str, str] = {}
    harms: dict[tuple[str, str], Harm] = {}
    runtime = config.runtime
    for entry in config.stages:
        about = known.get(entry.name, _UNKNOWN)
        if about.most is not None and (reason := trial.obstacle(entry, runtime, earlier)):
            reasons[entry.name] = reason
            found = _smallest(entry, runtime, earlier, trial, about.most)
            if found is None:
                obstacles[entry.name] = reason
            entry, runtime = apply(entry, runtime, _values(found or ()))
            for saving in found or ():
                harms |= {_place(entry, name): saving.harm for name in saving.values}
        earlier.add(entry, about.model or earlier.planned_model(entry))
        entries.append(entry)
    changed = dataclasses.replace(config, stages=tuple(entries), runtime=runtime)
    return Fit(changed, reasons, obstacles, harms)


def _place(entry: StageEntry, name: str) -> tuple[str, str]:
    section, _, rest = name.partition(".")
    return (section, rest) if section == "runtime" else (entry.name, name)


def _values(savings: Sequence[Saving]) -> dict[str, Any]:
    """The values that savings set together; of a field the last one."""
    return {name: value for saving in savings for name, value in saving.values.items()}


def _smallest(
    entry: StageEntry,
    runtime: Runtime,
    earlier: Earlier,
    trial: Trial,
    most: Harm,
) -> list[Saving] | None:
    """The least harmful savings with which a stage fits; None: it fits with none."""
    context = earlier.context(entry, runtime, trial.devices)
    ladder = [saving for saving in entry.stage.savings(context) if saving.harm <= most]
    say(f"{entry.name} does not fit: trying {len(ladder)} changes")

    def fits(savings: Sequence[Saving]) -> bool:
        try:
            changed, sizes = apply(entry, runtime, _values(savings))
        except UserError:
            return False
        return not trial.obstacle(changed, sizes, earlier)

    return smallest(ladder, fits)


def smallest(
    ladder: Sequence[Saving], fits: Callable[[Sequence[Saving]], bool]
) -> list[Saving] | None:
    """The least harmful part of a ladder with which something fits.

    Args:
      ladder: in the order of harm; a later saving of the same fields goes further.
      fits: whether some of them do.

    Returns:
      the savings, at most one for the same fields; None: not even all of them fit.
    """
    harms = [saving.harm for saving in ladder]
    ends = [i for i in range(1, len(ladder) + 1) if harms[i : i + 1] != harms[i - 1 : i]]
    end = next((end for end in ends if fits(ladder[:end])), None)
    if end is None:
        return None
    start = max((each for each in ends if each < end), default=0)
    taken = ladder[: first_true(start + 1, end, lambda count: fits(ladder[:count]))]
    return _without_needless(taken, fits)


def first_true(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """The least number of low..high for which `holds`, which it does for `high` and then on."""
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


def _without_needless(
    ladder: Sequence[Saving], fits: Callable[[Sequence[Saving]], bool]
) -> list[Saving]:
    """Takes savings back, the most harmful first, or goes less far with them.

    What is left stays in the order of the ladder, as a later saving may undo a part of an earlier
    one that does not go together with it.
    """
    degrees = {saving.knob: 0 for saving in ladder}
    for saving in ladder:
        degrees[saving.knob] += 1

    def taken(knob: frozenset[str], degree: int) -> list[Saving]:
        """The savings with so many degrees of one of the changes."""
        left = {**degrees, knob: degree}
        found = []
        for saving in ladder:
            left[saving.knob] -= 1
            if left[saving.knob] == 0:
                found.append(saving)
        return found

    for knob in reversed(list(degrees)):

        def enough(degree: int, knob: frozenset[str] = knob) -> bool:
            return fits(taken(knob, degree))

        degrees[knob] = first_true(0, degrees[knob], enough)
    return taken(frozenset(), 0)
