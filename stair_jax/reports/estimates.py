"""Hours, energy and price of a recipe on devices that need not be there, from measured rates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stair_jax.errors import UserError
from stair_jax.planning import hours
from stair_jax.planning.abstract import traced_for
from stair_jax.planning.energy import Bill, EnergySettings, bill
from stair_jax.planning.figures import Basis, Figure, total_of
from stair_jax.planning.needs import Needs, total
from stair_jax.planning.rates import Amounts
from stair_jax.planning.stand_ins import counted_topology
from stair_jax.planning.topology import Topology
from stair_jax.reports.trees import PAIRS_FILE, TREES_FILE
from stair_jax.run.checks import Earlier
from stair_jax.run.recipe import recipe_needs
from stair_jax.run.run_config import RunConfig

_HOUR = 3600.0


@dataclass(frozen=True)
class Estimate:
    """What a recipe takes on some devices.

    Attributes:
      devices: as they are named, e.g. "h100:8".
      device: name of one, e.g. "h100".
      count: number of devices.
      needs: of each stage.
      seconds: of all stages whose time is known.
      unknown: the other stages.
      bill: of these seconds.
      tree: seconds of a search tree; None: there is no search, or its time is not known.
      pair: seconds of a preference pair in training, all epochs together; likewise.
      rates: what the times rest on, in words, with the stages and what it is worth here.
      obstacles: by stage, why it does not fit.
    """

    devices: str
    device: str
    count: int
    needs: Mapping[str, Needs]
    seconds: Figure
    unknown: tuple[str, ...]
    bill: Bill
    tree: Figure | None
    pair: Figure | None
    rates: tuple[str, ...]
    obstacles: Mapping[str, str]

    @property
    def hours(self) -> float:
        """Of all stages whose time is known."""
        return self.seconds.value / _HOUR


def estimates(
    config: RunConfig, devices: Sequence[str], amounts: Amounts, settings: EnergySettings
) -> list[Estimate]:
    """An estimate for each of some kinds of devices; nothing is compiled or run.

    Args:
      config: of the run.
      devices: as for `counted_topology`.
      amounts: how much there is to do, where the config does not say it.
      settings: what energy and price rest on.

    Raises:
      UserError: there are no such devices, or a stage cannot be planned on them.
    """
    topologies = [counted_topology(name) for name in devices]
    _check_names(settings, topologies)
    return [_estimate(config, topology, amounts, settings) for topology in topologies]


def _check_names(settings: EnergySettings, topologies: Sequence[Topology]) -> None:
    """Raises a UserError where watts or a price is for none of the devices."""
    known = {_device(topology) for topology in topologies}
    for flag in ("watts", "prices"):
        for name, value in getattr(settings, flag).items():
            if name not in known:
                raise UserError(f"--{flag} names {name!r}: of --devices are {', '.join(known)}")
            if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
                raise UserError(f"--{flag}: that of {name!r} is {value!r}: give a number, least 0")


def _device(topology: Topology) -> str:
    return topology.name.partition(":")[0]


def _estimate(
    config: RunConfig, topology: Topology, amounts: Amounts, settings: EnergySettings
) -> Estimate:
    with traced_for(topology.devices[0]):
        obstacles = _obstacles(config, topology)
        needs = recipe_needs(config, topology, amounts, obstacles)
    sums = total(needs)
    name, count = _device(topology), len(topology.devices)
    return Estimate(
        devices=topology.name,
        device=name,
        count=count,
        needs=needs,
        seconds=sums.seconds,
        unknown=sums.unknown,
        bill=bill(sums.seconds.value / _HOUR, count, name, settings),
        tree=_each(config, needs, "search", TREES_FILE),
        pair=_each(config, needs, "dpo", PAIRS_FILE),
        rates=tuple(_rates(needs, topology)),
        obstacles=obstacles,
    )


def _each(config: RunConfig, needs: Mapping[str, Needs], kind: str, file: str) -> Figure | None:
    """Seconds of all stages of a kind for each row of a file that they write or read."""
    seconds, rows = [], []
    for entry in config.stages:
        own = needs[entry.name]
        if entry.kind != kind or own.seconds is None:
            continue
        made = (needs[name].rows.get(file) for name in (entry.name, *entry.input_names))
        if found := next((each for each in made if each is not None), None):
            seconds.append(own.seconds)
            rows.append(found)
    return total_of(seconds) / total_of(rows) if rows else None


def _obstacles(config: RunConfig, topology: Topology) -> dict[str, str]:
    """Stages whose weights and state alone are too large for the devices, or their meshes."""
    earlier, found = Earlier(), {}
    for entry in config.stages:
        try:
            context = earlier.context(entry, config.runtime, topology.devices)
            entry.stage.check_devices(context)
        except UserError as error:
            found[entry.name] = str(error)
        earlier.add(entry, earlier.planned_model(entry))
    return found


def _rates(needs: Mapping[str, Needs], topology: Topology) -> list[str]:
    """What the times rest on, each rate once, with its stages."""
    stages: dict[str, list[str]] = {}
    for name, each in needs.items():
        if each.rate is not None and each.seconds is not None:
            stages.setdefault(each.rate.text, []).append(name)
    is_same = hours.on(topology.chip) is Basis.MEASURED
    worth = "measured on such a device" if is_same else "extrapolated by peaks of the data sheets"
    return [f"{', '.join(names)}: {text}; {worth}" for text, names in stages.items()]
