"""What benchmarks say beside their metrics (`details.json`), over the seeds of each row."""

from collections.abc import Mapping, Sequence
from typing import Any

from stair_jax.errors import UserError, did_you_mean
from stair_jax.evaluation.escaping import markdown
from stair_jax.evaluation.seed_table import Shown
from stair_jax.evaluation.writers.layout import NONE, number

Details = Mapping[str, Any]  # of a row of one run


def details_markdown(
    rows: Sequence[Shown], details: Mapping[str, Sequence[Details]], path: str
) -> str:
    """A table with a line for each row and group: counts are summed over seeds, figures averaged.

    Args:
      rows: that are shown.
      details: of the runs of each row, by its name.
      path: to the groups, such as "pocket.hazards": names with dots between them.

    Raises:
      UserError: no row has such details.
    """
    groups = {row.name: [_at(own, path) for own in details.get(row.name, ())] for row in rows}
    fields = _keys([group for own in groups.values() for run in own for group in run.values()])
    if not fields:
        runs = [run for own in details.values() for run in own]
        known = {f"{name}.{key}" for run in runs for name, found in run.items() for key in found}
        raise UserError(f"--details={path}: no row has them: {did_you_mean(path, known)}")
    lines = [["", "group", *map(markdown, fields)], ["---"] * 2 + ["---:"] * len(fields)]
    for row in rows:
        for group in _keys(groups[row.name]):
            found = [run[group] for run in groups[row.name] if group in run]
            cells = [_shown([each.get(field) for each in found]) for field in fields]
            lines.append([markdown(row.label), markdown(group), *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _at(details: Details, path: str) -> Mapping[str, Mapping[str, Any]]:
    """The groups at a path; empty: there is nothing."""
    found: Any = details
    for name in path.split("."):
        found = found.get(name, {}) if isinstance(found, Mapping) else {}
    is_whole = isinstance(found, Mapping) and all(isinstance(g, Mapping) for g in found.values())
    return found if is_whole else {}


def _keys(mappings: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys of all of them, in the order in which they come first."""
    return list(dict.fromkeys(key for each in mappings for key in each))


def _shown(values: Sequence[Any]) -> str:
    """Counts of several runs as their sum; figures as their mean, with the range."""
    counts = [value for value in values if isinstance(value, int)]
    if counts:
        return str(sum(counts))
    figures = [
        value["value"] for value in values if isinstance(value, Mapping) and "value" in value
    ]
    figures += [value for value in values if isinstance(value, float)]
    if not figures:
        return NONE
    low, high = (number(end(figures), "share") for end in (min, max))
    spread = f" ({low} to {high})" if len(figures) > 1 else ""
    return number(sum(figures) / len(figures), "share") + spread
