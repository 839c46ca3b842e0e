"""What a fit changed in a config, as overrides of a command line."""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from stair_jax.run.fit import Fit
from stair_jax.run.run_config import RunConfig
from stair_jax.run.savings import Harm, value_at


@dataclass(frozen=True)
class Change:
    """A field with another value.

    Attributes:
      section: of the config: a stage, a kind of stage, or "runtime".
      field: dotted, below the section.
      before: its value.
      after: its value now.
      harm: what this does to the run.
    """

    section: str
    field: str
    before: Any
    after: Any
    harm: Harm

    @property
    def override(self) -> str:
        """The flag that makes the change."""
        after = ",".join(self.after) if isinstance(self.after, tuple) else self.after
        return f"--config.{self.section}.{self.field}={after}"


def changes(before: RunConfig, result: Fit) -> list[Change]:
    """What a fit changed, the least harmful first.

    A change that all stages of a kind have in common stands once, in the section of the kind.

    Args:
      before: the config that was fitted.
      result: of the fit.
    """
    old, new = _sections(before), _sections(result.config)
    found = [
        Change(section, field, value_at(old[section], field), value_at(new[section], field), harm)
        for (section, field), harm in result.harms.items()
    ]
    found = [change for change in found if change.before != change.after]
    return sorted(_by_kind(found, result.config), key=lambda change: change.harm)


def _sections(config: RunConfig) -> dict[str, Any]:
    """The settings of a config by section."""
    return {"runtime": config.runtime, **{entry.name: entry.stage for entry in config.stages}}


def _by_kind(found: Iterable[Change], config: RunConfig) -> list[Change]:
    """The same, where all stages of a kind have a change, once."""
    result: dict[tuple[str, str], Change] = {}
    by_place = {(change.section, change.field): change for change in found}
    kinds = {entry.name: entry.kind for entry in config.stages}
    for (section, field), change in by_place.items():
        same = [entry for entry in config.stages if entry.kind == kinds.get(section)]
        own = any(field in entry.own_fields for entry in same)
        others = [by_place.get((entry.name, field)) for entry in same]
        if same and not own and all(each and each.after == change.after for each in others):
            section = kinds[section]
        result.setdefault((section, field), dataclasses.replace(change, section=section))
    return list(result.values())


def format_changes(found: Sequence[Change], result: Fit) -> str:
    """The changes in words, each as a flag that can be pasted, and what is in the way."""
    changed = {name: why for name, why in result.reasons.items() if name not in result.obstacles}
    lines = [f"fit: {name} did not fit: {why}" for name, why in changed.items()]
    for harm in Harm:
        of_harm = [change for change in found if change.harm == harm]
        if of_harm:
            lines.append(f"fit: what {harm.text}:")
            lines += [f"  {change.override}  # was {change.before}" for change in of_harm]
    for name, why in result.obstacles.items():
        lines.append(f"no change makes the stage {name} fit: {why}")
    return "\n".join(lines or ["fit: nothing had to be changed"])


def changes_json(found: Sequence[Change]) -> list[dict[str, Any]]:
    """The changes in JSON's types."""
    return [
        {
            "override": change.override,
            "before": str(change.before),
            "harm": change.harm.name.lower(),
            "alters_results": change.harm > Harm.COST,
        }
        for change in found
    ]
