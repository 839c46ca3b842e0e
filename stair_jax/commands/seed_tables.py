"""Tables over runs and seeds, as `table` and `sweep` make them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stair_jax import storage
from stair_jax.evaluation.costs import Cost
from stair_jax.evaluation.graded_rows import read_results
from stair_jax.evaluation.seed_details import details_markdown
from stair_jax.evaluation.seed_figures import write_figures
from stair_jax.evaluation.seed_table import Answers, SeedRun, SeedTable, choose, collect, seed_table
from stair_jax.evaluation.table import RowKey, row_label
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
      details: path to the details that are shown in place of figures; "": figures are.
    """

    runs: Sequence[str]
    stage: str = ""
    rows: Sequence[str] = ()
    columns: Sequence[str] = ()
    against: str = ""
    details: str = ""


def make_markdown(settings: TableSettings) -> str:
    """The table as Markdown, or the details.

    Raises:
      UserError: a run has no evaluation, its files cannot be read, or a choice fits nothing.
    """
    answers = _read_answers(settings)
    if not settings.details:
        return seed_markdown(_make_table(settings, answers))
    rows = choose(settings.rows, answers.rows, "row")
    details = {name: list(own.values()) for name, own in answers.details.items()}
    return details_markdown(rows, details, settings.details)


def write_tables(folder: Path, name: str, settings: TableSettings) -> None:
    """Writes NAME.md, NAME.csv, table.json and figures into a folder; see `make_markdown`."""
    answers = _read_answers(settings)
    table = _make_table(settings, answers)
    storage.write_text(folder / f"{name}.md", seed_markdown(table))
    storage.write_text(folder / f"{name}.csv", seed_csv(table))
    storage.write_json(folder / "table.json", table.to_dict())
    write_figures(folder, table, answers)


def _read_answers(settings: TableSettings) -> Answers:
    runs = [_read(run) for run in find_runs(settings.runs, settings.stage)]
    return collect(runs, ATTACK_MEANS)


def _make_table(settings: TableSettings, answers: Answers) -> SeedTable:
    return seed_table(answers, settings.rows, settings.columns, settings.against)


def _read(run: EvaluatedRun) -> SeedRun:
    results: list[Result] = []
    costs: dict[RowKey, Cost] = {}
    details: dict[RowKey, Mapping[str, Any]] = {}
    for folder in run.folders:
        own, table = read_results(folder)
        results += own
        costs |= dict(zip(table.rows, table.costs, strict=True))
        path = folder / "details.json"
        told = storage.read_json(path) if path.is_file() else {}
        details |= {row: told.get(row_label(row), {}) for row in table.rows}
    return SeedRun(run.arm, run.seed, results, costs, run.values, details)
