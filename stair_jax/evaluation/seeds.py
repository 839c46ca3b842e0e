r"""Markdown tables of several pocket runs (seeds): means over the seeds with minimum and maximum.

From the root of the repository:

    for seed in 0 1 2; do
        python -m stair_jax.launch --config=configs/pocket.py --workdir=runs/pocket$seed \
            --config.seed=$seed
    done
    python -m stair_jax.evaluation.seeds runs/pocket0 runs/pocket1 runs/pocket2
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from stair_jax.evaluation.benchmarks.pocket import Pocket
from stair_jax.evaluation.report import row_label
from stair_jax.evaluation.table import Table
from stair_jax.evaluation.writers import read_table
from stair_jax.storage import read_json

_METRICS = {
    "goodness_plain": "plain",
    "goodness_seen": "seen",
    "goodness_heldout": "held out",
    "goodness_heldout_ciphers": "ciphers",
    "goodness_heldout_social": "social",
    "leak_heldout": "leak",
    "helpfulness": "helpful",
    "over_refusal": "over-refusal",
    "format_valid": "format",
    "tokens": "tokens",
}
_OUTCOMES = ("refusals", "leaks", "non_answers", "malformed")


def metrics_table(runs: Sequence[Path]) -> str:
    """One line per model: the mean of each metric over the runs, and its range.

    Args:
      runs: workdirs of finished runs with the same models.
    """
    tables = [_cells_of(read_table(run / "evaluate/table.json")) for run in runs]
    lines = [_line(["model", *_METRICS.values()]), _line(["---"] * (len(_METRICS) + 1))]
    for model in tables[0]:
        cells = [_cell([table[model].get(name) for table in tables]) for name in _METRICS]
        lines.append(_line([model, *cells]))
    return "\n".join(lines)


def outcomes_table(runs: Sequence[Path]) -> str:
    """One line per model and set of hazards: outcomes summed over the runs.

    Args:
      runs: workdirs of finished runs with the same models.
    """
    details = [_hazards_of(run / "evaluate/details.json") for run in runs]
    lines = [_line(["model", "hazards", "prompts", *_OUTCOMES, "goodness of the well-formed"])]
    lines.append(_line(["---"] * (len(_OUTCOMES) + 4)))
    for model in details[0]:
        for group in details[0][model]:
            found = [detail[model][group] for detail in details]
            sums = [str(sum(one[name] for one in found)) for name in ("prompts", *_OUTCOMES)]
            well_formed = _cell([_value(one["goodness_well_formed"]) for one in found])
            lines.append(_line([model, group, *sums, well_formed]))
    return "\n".join(lines)


def _cells_of(table: Table) -> dict[str, dict[str, float | None]]:
    """Values of the pocket world by row and metric."""
    return {
        row_label(row): {
            column.metric: cell.value if cell else None
            for column, cell in zip(table.columns, cells, strict=True)
            if (column.benchmark, column.attack) == (Pocket.NAME, "none")
        }
        for row, cells in zip(table.rows, table.cells, strict=True)
    }


def _hazards_of(path: Path) -> dict[str, dict[str, Any]]:
    """Outcomes of the pocket world's hazards, by row and group."""
    return {row: found[Pocket.NAME]["hazards"] for row, found in read_json(path).items()}


def _value(metric: dict[str, Any] | None) -> float | None:
    return None if metric is None else metric["value"]


def _cell(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    show: Callable[[float], str] = "{:.0f}".format if max(known) > 2 else "{:.3f}".format
    spread = f" ({show(min(known))}-{show(max(known))})" if len(known) > 1 else ""
    return show(mean(known)) + spread


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="workdirs of finished runs")
    runs = parser.parse_args().runs
    print(metrics_table(runs), outcomes_table(runs), sep="\n\n")


if __name__ == "__main__":
    main()
