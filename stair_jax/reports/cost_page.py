"""What `stair-jax cost` says, as Markdown and as JSON: finished runs, and estimates of a recipe."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from stair_jax.evaluation.escaping import markdown
from stair_jax.planning.energy import EnergySettings
from stair_jax.planning.figures import Figure
from stair_jax.reports.estimates import Estimate
from stair_jax.reports.stage_costs import StageCost
from stair_jax.run.recipe import recipe_json

_HOUR = 3600.0
# Of the paper (appendix on its experiments): an 8B model, three iterations, 8 x A800.
PAPER: Mapping[str, Any] = {
    "devices": "8 x A800",
    "tree_seconds": 15.0,
    "pair_seconds": 0.47,
    "hours": 30.0,
}
_RUN_HEADER = (
    *("stage", "kind", "wall s", "compile s", "share"),
    *("sampled", "prefilled", "trained", "tokens/s", "MFU"),
    *("made", "s each", "devices"),
)
_RUN_NOTES = (
    "Seconds are of the wall clock, all starts of a stage together; those with ~ are put together "
    "from what the stage recorded as it ran, as no time of the whole is on record. Tokens per "
    "second and seconds of each tree, pair or answer leave compilation out."
)
_MARKS = (
    "~: extrapolated from what was measured on other hardware or another model; ?: rests on what "
    "is assumed, such as the amounts of data."
)


def run_section(name: str, costs: Sequence[StageCost]) -> str:
    """A run: a table of its stages, and the paper's figures beside its own.

    Args:
      name: of the run.
      costs: of its finished stages.
    """
    total = sum(cost.seconds or 0.0 for cost in costs)
    rows = [_run_row(cost, total) for cost in costs]
    parts = [f"## {markdown(name)}", _table(_RUN_HEADER, rows), _sum_line(costs), _RUN_NOTES]
    return "\n\n".join([*parts, *_beside_paper(costs, total)])


def _run_row(cost: StageCost, total: float) -> tuple[str, ...]:
    mark = "" if cost.is_exact else "~"
    share = f"{(cost.seconds or 0) / total:.1%}" if total and cost.seconds is not None else "-"
    made = f"{cost.units:,} {cost.unit}s" if cost.units else "-"
    return (
        markdown(cost.stage),
        cost.kind,
        _number(cost.seconds, mark),
        _number(cost.compile_seconds),
        share,
        *(f"{tokens:,}" if tokens else "-" for tokens in _tokens(cost)),
        _number(cost.tokens_per_second),
        "-" if cost.mfu is None else f"{cost.mfu:.3f}",
        made,
        _number(cost.unit_seconds, mark),
        markdown(cost.devices) or "-",
    )


def _tokens(cost: StageCost) -> tuple[int, int, int]:
    return cost.generated, cost.prefilled, cost.trained


def _sum_line(costs: Sequence[StageCost]) -> str:
    total = run_total(costs)
    unknown = f" without {', '.join(map(markdown, total['unknown']))}" if total["unknown"] else ""
    spent = total["device_hours"]
    devices = f", {spent:.3g} device hours" if spent is not None else ""
    return (
        f"In all {total['hours']:.3g} hours{unknown}{devices}; {total['generated']:,} tokens "
        f"sampled, {total['prefilled']:,} prefilled, {total['trained']:,} trained on."
    )


def run_total(costs: Sequence[StageCost]) -> dict[str, Any]:
    """The sums of a run; device hours are None where the devices of a stage are not known."""
    timed = [cost for cost in costs if cost.seconds is not None]
    spent = [(cost.seconds or 0) * cost.num_devices for cost in timed if cost.num_devices]
    return {
        "hours": sum(cost.seconds or 0 for cost in timed) / _HOUR,
        "device_hours": sum(spent) / _HOUR if timed and len(spent) == len(timed) else None,
        "generated": sum(cost.generated for cost in costs),
        "prefilled": sum(cost.prefilled for cost in costs),
        "trained": sum(cost.trained for cost in costs),
        "unknown": [cost.stage for cost in costs if cost.seconds is None],
    }


def unit_seconds(costs: Sequence[StageCost], unit: str, kind: str) -> float | None:
    """Seconds of a tree or pair over all stages of a kind, without compilation."""
    chosen = [cost for cost in costs if cost.kind == kind and cost.unit == unit]
    chosen = [cost for cost in chosen if cost.units and cost.work_seconds is not None]
    units = sum(cost.units for cost in chosen)
    return sum(cost.work_seconds or 0 for cost in chosen) / units if units else None


def _beside_paper(costs: Sequence[StageCost], total: float) -> list[str]:
    """Our figures beside the paper's; nothing where the run has neither trees nor pairs."""
    tree, pair = unit_seconds(costs, "tree", "search"), unit_seconds(costs, "pair", "dpo")
    if tree is None and pair is None:
        return []
    devices = dict.fromkeys(cost.devices for cost in costs if cost.devices)
    header = ("", f"this run, {markdown(', '.join(devices)) or 'devices not on record'}")
    rows = [
        ("s a search tree", _number(tree), f"{PAPER['tree_seconds']:g}"),
        ("s a pair of step-level DPO", _number(pair), f"{PAPER['pair_seconds']:g}"),
        ("hours in all", f"{total / _HOUR:.3g}", f"{PAPER['hours']:g}"),
    ]
    return [_table((*header, f"the paper, 8B, {PAPER['devices']}"), rows)]


def estimate_section(recipe: str, found: Sequence[Estimate], settings: EnergySettings) -> str:
    """A recipe on several kinds of devices: hours by stage, device hours, energy, price.

    Args:
      recipe: its name.
      found: the estimates, at least one.
      settings: what energy and price rest on.
    """
    stages = [
        name for name, each in found[0].needs.items() if any(_takes(one, name) for one in found)
    ]
    rows = [
        (markdown(name), *(_hours(one.needs[name].seconds) for one in found)) for name in stages
    ]
    sums = [
        (
            f"**hours** (the paper, {PAPER['devices']}: {PAPER['hours']:g})",
            *(f"**{_hours(one.seconds)}**" for one in found),
        ),
        ("device hours", *(f"{one.bill.device_hours:,.0f}" for one in found)),
        ("kWh", *(_number(one.bill.kwh) for one in found)),
        ("US dollars", *(_number(one.bill.dollars) for one in found)),
        *_units(found),
        ("weights and state fit", *("no" if one.obstacles else "yes" for one in found)),
    ]
    table = _table(("stage", *(one.devices for one in found)), [*rows, *sums])
    parts = [f"## {markdown(recipe)}, estimated", table, _MARKS, _assumptions(found, settings)]
    return "\n\n".join([*parts, *_obstacles(found)])


def _units(found: Sequence[Estimate]) -> list[tuple[str, ...]]:
    """Seconds of a tree and of a pair, beside the paper's."""
    beside = f"(the paper, {PAPER['devices']}: "
    lines = [
        (f"s a search tree {beside}{PAPER['tree_seconds']:g})", [one.tree for one in found]),
        (f"s a pair of DPO {beside}{PAPER['pair_seconds']:g})", [one.pair for one in found]),
    ]
    return [
        (text, *("-" if each is None else _number(each.value, each.basis.mark) for each in figures))
        for text, figures in lines
        if any(figures)
    ]


def _takes(one: Estimate, name: str) -> bool:
    seconds = one.needs[name].seconds
    return seconds is None or seconds.value > 0


def _assumptions(found: Sequence[Estimate], settings: EnergySettings) -> str:
    """What all of it rests on, as a list."""
    work = [f"{markdown(name)}: {each.work}" for name, each in found[0].needs.items() if each.work]
    devices = [settings.text(one.device) for one in found]
    lines = [
        f"- amounts: {'; '.join(work)}",
        *(f"- {one.devices}: {rate}" for one in found for rate in one.rates),
        f"- energy: {settings.utilization:g} of the boards' limit, times {settings.overhead:g} for "
        "hosts, network and cooling",
        *(f"- {text}" for text in dict.fromkeys(devices)),
    ]
    unknown = dict.fromkeys(name for one in found for name in one.unknown)
    if unknown:
        lines.append(f"- without {', '.join(map(markdown, unknown))}, whose time is not known")
    return "\n".join(lines)


def _obstacles(found: Sequence[Estimate]) -> list[str]:
    lines = [
        f"- {one.devices}: {markdown(stage)}: {markdown(why)}"
        for one in found
        for stage, why in one.obstacles.items()
    ]
    if not lines:
        return []
    head = "What does not fit is estimated as if it did; `stair-jax plan --fit` finds what would:"
    return ["\n".join([head, "", *lines])]


def cost_json(
    runs: Mapping[str, Sequence[StageCost]],
    recipe: str,
    found: Sequence[Estimate],
    settings: EnergySettings,
) -> dict[str, Any]:
    """The same in JSON's types: seconds, tokens, hours, kWh, US dollars."""
    return {
        "paper": dict(PAPER),
        "runs": [
            {
                "run": name,
                "stages": [asdict(cost) | {"unit_seconds": cost.unit_seconds} for cost in costs],
                "total": run_total(costs),
                "tree_seconds": unit_seconds(costs, "tree", "search"),
                "pair_seconds": unit_seconds(costs, "pair", "dpo"),
            }
            for name, costs in runs.items()
        ],
        "estimates": [_estimate_json(recipe, one) for one in found],
        "settings": asdict(settings) if found else {},
    }


def _estimate_json(recipe: str, one: Estimate) -> dict[str, Any]:
    return {
        "recipe": recipe,
        "devices": one.devices,
        "hours": one.hours,
        "basis": one.seconds.basis.name.lower(),
        **asdict(one.bill),
        "tree_seconds": one.tree and one.tree.value,
        "pair_seconds": one.pair and one.pair.value,
        "unknown": list(one.unknown),
        "rates": list(one.rates),
        "obstacles": dict(one.obstacles),
        "stages": recipe_json(one.needs)["stages"],
    }


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---", *("--:" for _ in header[1:])], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _hours(seconds: Figure | None) -> str:
    if seconds is None:
        return "not known"
    return _number(seconds.value / _HOUR, seconds.basis.mark) if seconds.value else "-"


def _number(value: float | None, mark: str = "") -> str:
    """Three digits, or a whole number; a dash where there is none."""
    if value is None:
        return "-"
    return (f"{value:,.0f}" if value >= 100 else f"{value:.3g}") + mark
