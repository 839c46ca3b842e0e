"""Disk, host memory and hours of a whole config, stage by stage."""

import textwrap
from collections.abc import Collection, Mapping
from typing import Any

from stair_jax.errors import UserError
from stair_jax.parallel.chips import GIB
from stair_jax.planning.figures import Figure
from stair_jax.planning.needs import Needs, Totals, Work, total
from stair_jax.planning.rates import Amounts
from stair_jax.planning.topology import Topology
from stair_jax.run.checks import Earlier
from stair_jax.run.run_config import RunConfig

_HOUR = 3600.0
_WIDTH = 100  # of a line of text
_COLUMNS = ("stage", "work", "hours", "disk", "left", "host")
_NOTES = """\
disk, left: GiB in the folder of a stage at its peak, and when it is finished; host: GiB of host
memory of a process. ~: scaled from what was measured on other hardware or another model; ?: rests
on what is assumed (the amounts are flags of `plan`, such as --rows; docs/plans.md)."""


def recipe_needs(
    config: RunConfig, topology: Topology, amounts: Amounts, skipped: Collection[str] = ()
) -> dict[str, Needs]:
    """What each stage needs, in order.

    Args:
      config: of the run.
      topology: the devices.
      amounts: what the config does not say.
      skipped: stages of which no devices need be asked, as they do not fit.

    Raises:
      UserError: a stage cannot be planned on the devices; names it.
    """
    earlier = Earlier()
    rows: dict[str, Mapping[str, Figure]] = {}
    found: dict[str, Needs] = {}
    for entry in config.stages:
        try:
            context = earlier.context(entry, config.runtime, topology.devices)
            needs = entry.stage.needs(context, Work(topology.chip, amounts, rows))
        except UserError as error:
            if entry.name not in skipped:
                raise UserError(f"stage {entry.name}: {error}") from error
            needs = Needs(seconds=None)
        found[entry.name], rows[entry.name] = needs, needs.rows
        earlier.add(entry, earlier.planned_model(entry))
    return found


def format_recipe(needs: Mapping[str, Needs]) -> str:
    """A table, the sums, and what the marks mean."""
    rows = [_COLUMNS, *(_row(name, each) for name, each in needs.items())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["the whole recipe", *(_line(row, widths) for row in rows), *_sums(total(needs))]
    return "\n".join([*lines, *_rates(needs), _NOTES])


def _row(name: str, needs: Needs) -> tuple[str, ...]:
    sizes = (needs.disk, needs.kept, needs.host)
    return (name, needs.work, _hours(needs.seconds), *map(_gib, sizes))


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    cells = [
        cell.ljust(width) if place < 2 else cell.rjust(width)
        for place, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return f"  {'  '.join(cells)}".rstrip()


def _sums(totals: Totals) -> list[str]:
    without = f", without {', '.join(totals.unknown)}" if totals.unknown else ""
    return [
        f"workdir: {_gib(totals.disk)} GiB at its peak (in {totals.fullest}), "
        f"{_gib(totals.kept)} at the end; host memory: {_gib(totals.host)} GiB",
        f"time: {_hours(totals.seconds)} hours{without}",
    ]


def _rates(needs: Mapping[str, Needs]) -> list[str]:
    """The rates that the times rest on, each once, with the stages."""
    stages: dict[str, list[str]] = {}
    for name, each in needs.items():
        if each.rate is not None and each.seconds is not None:
            stages.setdefault(each.rate.text, []).append(name)
    lines = [f"rate of {', '.join(names)}: {text}" for text, names in stages.items()]
    return [line for each in lines for line in textwrap.wrap(each, _WIDTH)]


def _hours(seconds: Figure | None) -> str:
    if seconds is None:
        return "not known"
    hours = seconds.value / _HOUR
    text = "-" if not hours else f"{hours:.2g}" if hours < 10 else f"{hours:.0f}"
    return text + seconds.basis.mark


def _gib(size: Figure) -> str:
    gib = size.value / GIB
    text = "-" if not gib else f"{gib:.2g}" if gib < 10 else f"{gib:,.0f}"
    return text + size.basis.mark


def recipe_json(needs: Mapping[str, Needs]) -> dict[str, Any]:
    """The same in JSON's types: bytes and seconds, each with what it rests on."""
    totals = total(needs)
    sums = {name: getattr(totals, name) for name in ("disk", "kept", "host", "seconds")}
    return {
        "stages": [
            {
                "stage": name,
                "work": each.work,
                **_figures(_parts(each)),
                "rate": each.rate and each.rate.text,
            }
            for name, each in needs.items()
        ],
        "total": {
            **_figures(sums),
            "fullest": totals.fullest,
            "time_not_known": list(totals.unknown),
        },
    }


def _parts(needs: Needs) -> dict[str, Figure | None]:
    return {name: getattr(needs, name) for name in ("disk", "kept", "host", "seconds")}


def _figures(figures: Mapping[str, Figure | None]) -> dict[str, Any]:
    return {
        name: figure and {"value": figure.value, "basis": figure.basis.name.lower()}
        for name, figure in figures.items()
    }
