"""Tables over runs and seeds, as `table` and `sweep` make them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stair_jax import storage
from stair_jax.evaluation.costs import Cost
from stair_jax.evaluation.graded_rows import read_results
from stair_jax.evaluation.seed_figures import write_figures
from stair_jax.evaluation.seed_table import Answers, SeedRun, SeedTable, collect, seed_table
from stair_jax.evaluation.table import RowKey
from stair_jax.evaluation.tabulate import Result
from stair_jax.evaluation.tradeoff import ATTACK_MEANS
from stair_jax.evaluation.writers.seed_lines import seed_csv, seed_markdown
from stair_jax.run.evaluated_runs import EvaluatedRun, find_runs


@dataclass(frozen=True)
class TableSettings:
    """What is in a table.

    Attributes:
      runs: folders, see `run.evaluated_runs.find_runs`.
      stage: of the runs; "": all that evaluate.
      rows: choices of rows, see `evaluation.seed_table`; empty: all.
      columns: choices of columns; empty: all.
      against: the row that the others are compared with; "": none.
    """

    runs: Sequence[str]
    stage: str = ""
    rows: Sequence[str] = ()
    columns: Sequence[str] = ()
    against: str = ""


def read_answers(settings: TableSettings) -> Answers:
    """The answers of all runs.

    Raises:
      UserError: a run has no evaluation, or its files cannot be read.
    """
    runs = [_read(run) for run in find_runs(settings.runs, settings.stage)]
    return collect(runs, ATTACK_MEANS)


def make_table(settings: TableSettings, answers: Answers) -> SeedTable:
    """The table that the settings ask for; raises a UserError where they do not fit."""
    return seed_table(answers, settings.rows, settings.columns, settings.against)


def write_tables(folder: Path, name: str, table: SeedTable, answers: Answers) -> None:
    """Writes NAME.md, NAME.csv, table.json and figures into a folder."""
    storage.write_text(folder / f"{name}.md", seed_markdown(table))
    storage.write_text(folder / f"{name}.csv", seed_csv(table))
    storage.write_json(folder / "table.json", table.to_dict())
    write_figures(folder, table, answers)


def _read(run: EvaluatedRun) -> SeedRun:
    results: list[Result] = []
    costs: dict[RowKey, Cost] = {}
    for folder in run.folders:
        own, table = read_results(folder)
        results += own
        costs |= dict(zip(table.rows, table.costs, strict=True))
    return SeedRun(run.arm, run.seed, results, costs, run.values)
