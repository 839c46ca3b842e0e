"""A table of several runs: rows are what differs beside the seed, figures are means over seeds.

Rows and columns have names without spaces, by which they are chosen. A row is ARM/MODEL/METHOD,
without an arm where there is but one, without models where each of several arms has but one, and
without the method where answers are greedy. A column is BENCHMARK:ATTACK.METRIC, with @JUDGE where
there are several. A choice is a list of names, in which `*` stands for any text, each with a label
in front if it is to be shown as another one: `base,ours=dpo/iter3`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, TypeVar

from stair_jax.errors import UserError, did_you_mean
from stair_jax.evaluation.across_seeds import BySeed, SeedCell, seed_cell, seed_difference
from stair_jax.evaluation.benchmark import Metric
from stair_jax.evaluation.cells import NUM_SAMPLES
from stair_jax.evaluation.costs import Cost
from stair_jax.evaluation.table import Column, RowKey
from stair_jax.evaluation.tabulate import AttackMean, Result, mean_results

SCHEMA = 1
# Unit by name in `Cost`.
COSTS = {"tokens": "tokens", "generated_tokens": "tokens", "steps": "steps"}
_MEAN = "mean of "  # begins the name of an `AttackMean`
T = TypeVar("T")


@dataclass(frozen=True)
class SeedRun:
    """What a run has to say to the table.

    Attributes:
      arm: what it is a seed of; "": there is only one.
      seed: of the run.
      results: graded answers.
      costs: of its rows.
      values: what a sweep varies, by field.
      details: what benchmarks say of its rows beside their metrics.
    """

    arm: str
    seed: str
    results: Sequence[Result]
    costs: Mapping[RowKey, Cost] = field(default_factory=dict)
    values: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[RowKey, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Shown:
    """A row or column as it is shown, by its name and its label."""

    name: str
    label: str


@dataclass(frozen=True)
class SeedTable:
    """A table over seeds.

    Attributes:
      rows: in their order.
      columns: in their order.
      units: of the columns.
      cells: [row][column]; None: there are no such answers.
      against: label of the row that the others are compared with; "": none is.
      differences: [row][column], of each row less that one; None: there is none.
      num_samples: of the bootstrap.
    """

    rows: tuple[Shown, ...]
    columns: tuple[Shown, ...]
    units: tuple[str, ...]
    cells: tuple[tuple[SeedCell | None, ...], ...]
    against: str = ""
    differences: tuple[tuple[SeedCell | None, ...], ...] = ()
    num_samples: int = NUM_SAMPLES

    def to_dict(self) -> dict[str, Any]:
        """As JSON values, with the number of the schema."""
        return {"schema": SCHEMA} | asdict(self)


@dataclass
class Answers:
    """The answers of all runs, by row and column.

    Attributes:
      rows: for each row's name the costs of each seed.
      models: for each row's name that of its model and method.
      values: for each row's name what a sweep varies, by field.
      details: for each row's name those of each seed.
      columns: names of the columns with their metrics, in the order in which they come first.
      found: by names of row and column, for each seed.
    """

    rows: dict[str, dict[str, Cost | None]] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)
    values: dict[str, Mapping[str, str]] = field(default_factory=dict)
    details: dict[str, dict[str, Mapping[str, Any]]] = field(default_factory=dict)
    columns: dict[str, tuple[Column, Metric]] = field(default_factory=dict)
    found: dict[tuple[str, str], dict[str, Result]] = field(default_factory=dict)

    def by_seed(self, row: str, column: str) -> BySeed:
        """The graded answers of a row and column by seed."""
        return {seed: one.rows for seed, one in self.found.get((row, column), {}).items()}


def collect(runs: Sequence[SeedRun], means: Sequence[AttackMean] = ()) -> Answers:
    """The answers of all runs by the names of rows and columns.

    Raises:
      UserError: two runs have the same place in the table.
    """
    answers = Answers()
    row_name = _namer(runs)
    judges: dict[tuple[str, ...], set[str]] = {}
    for run in runs:
        for one in run.results:
            for column, _ in one.columns():
                judges.setdefault(_place(column), set()).add(column.judge)
    for run in runs:
        for one in [*run.results, *mean_results(run.results, means)]:
            row = row_name(run.arm, one.key)
            answers.rows.setdefault(row, {})[run.seed] = run.costs.get(one.key)
            answers.details.setdefault(row, {})[run.seed] = run.details.get(one.key, {})
            answers.models[row], answers.values[row] = _row_name("", one.key), run.values
            for column, metric in one.columns():
                name = column_name(column, len(judges.get(_place(column), ())) > 1)
                answers.columns.setdefault(name, (column, metric))
                own = answers.found.setdefault((row, name), {})
                if run.seed in own:
                    raise UserError(
                        f"two runs have answers of {row} to {name} with seed {run.seed}: name "
                        "what they are, as ARM=FOLDER, or choose one stage with --stage"
                    )
                own[run.seed] = one
    return answers


def seed_table(
    answers: Answers,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    against: str = "",
    num_samples: int = NUM_SAMPLES,
    seed: int = 0,
) -> SeedTable:
    """The table of answers.

    Args:
      answers: of `collect`.
      rows: choices of rows, see the top of this module; empty: all.
      columns: choices of columns; empty: all, and the costs that are known.
      against: name or label of the row that the others are compared with; empty: none is.
      num_samples: of the bootstrap.
      seed: for the resampling.

    Raises:
      UserError: a choice fits no row or column, or several with one label.
    """
    costs = [name for name in COSTS if any(_cost(own, name) for own in answers.rows.values())]
    chosen = choose(rows, answers.rows, "row")
    shown = choose(columns, [*answers.columns, *costs], "column")
    first = _against(against, chosen, answers) if against else None

    def cell(row: Shown, column: Shown) -> SeedCell | None:
        if column.name in COSTS:
            return _cost(answers.rows[row.name], column.name)
        found = answers.by_seed(row.name, column.name)
        metric = answers.columns[column.name][1]
        return seed_cell(found, metric, num_samples, seed) if found else None

    def difference(row: Shown, column: Shown) -> SeedCell | None:
        if first is None or row.name == first.name or column.name in COSTS:
            return None
        found, others = (answers.by_seed(each.name, column.name) for each in (row, first))
        metric = answers.columns[column.name][1]
        return (
            seed_difference(found, others, metric, num_samples, seed) if found and others else None
        )

    def of_all(make: Callable[[Shown, Shown], SeedCell | None]) -> tuple[Any, ...]:
        return tuple(tuple(make(row, column) for column in shown) for row in chosen)

    return SeedTable(
        rows=tuple(chosen),
        columns=tuple(shown),
        units=tuple(_unit(column.name, answers) for column in shown),
        cells=of_all(cell),
        against=first.label if first else "",
        differences=of_all(difference) if first else (),
        num_samples=num_samples,
    )


def choose(choices: Sequence[str], names: Iterable[str], what: str, flag: str = "") -> list[Shown]:
    """The rows or columns that are chosen, in the order of the choices; all, where there is none.

    Args:
      choices: see the top of this module.
      names: of all rows or columns.
      what: "row" or "column".
      flag: for messages; empty: that of all rows or columns.

    Raises:
      UserError: a choice fits none, or a label stands for several.
    """
    known = list(names)
    found: list[Shown] = []
    for choice in choices or ["*"]:
        label, equals, pattern = choice.partition("=")
        pattern = pattern if equals else choice
        fitting = [name for name in known if name == pattern or fnmatchcase(name, pattern)]
        given = f"--{flag or what + 's'}={choice}"
        if not fitting and choices:
            raise UserError(f"{given}: there is no such {what}: {did_you_mean(pattern, known)}")
        if equals and len(fitting) > 1:
            raise UserError(f"{given} is several {what}s: {', '.join(fitting)}")
        for name in fitting:
            if name not in [each.name for each in found]:
                found.append(Shown(name, label if equals else name))
    return found


def column_name(column: Column, has_judges: bool = False) -> str:
    """A column in one word, see the top of this module.

    Args:
      column: of a table.
      has_judges: whether there are several judges of it.
    """
    attack = "mean" if column.attack.startswith(_MEAN) else column.attack
    under = "" if attack == "none" else f":{attack}"
    judge = f"@{column.judge}" if has_judges and column.judge else ""
    return f"{column.benchmark}{under}.{column.metric}{judge}".replace(" ", "_")


def _namer(runs: Sequence[SeedRun]) -> Callable[[str, RowKey], str]:
    """How rows are named."""
    models: dict[str, set[str]] = {}
    for run in runs:
        models.setdefault(run.arm, set()).update(one.model for one in run.results)
    has_arms = len(models) > 1
    has_models = not has_arms or any(len(own) > 1 for own in models.values())

    def name(arm: str, key: RowKey) -> str:
        shown = key if has_models else replace(key, model="")
        return _row_name(arm if has_arms else "", shown)

    return name


def _row_name(arm: str, key: RowKey) -> str:
    method = "" if key.method == "greedy" else key.method
    return "/".join(filter(None, (arm, key.model, method))).replace(" ", "_")


def _place(column: Column) -> tuple[str, ...]:
    return column.benchmark, column.attack, column.metric


def _against(against: str, chosen: Sequence[Shown], answers: Answers) -> Shown:
    """The row that the others are compared with, which need not be shown."""
    for row in chosen:
        if against in (row.label, row.name):
            return row
    (found, *more) = choose([against], answers.rows, "row", "against")
    if more:
        raise UserError(f"--against={against} is several rows: name one of them")
    return found


def _cost(seeds: Mapping[str, Cost | None], name: str) -> SeedCell | None:
    """The mean over the seeds of a cost; None: it is not known of all of them."""
    values = [None if cost is None else getattr(cost, name) for cost in seeds.values()]
    known = [float(value) for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    return SeedCell(
        sum(known) / len(known),
        seeds=len(known),
        least=min(known),
        greatest=max(known),
        unit=COSTS[name],
    )


def _unit(name: str, answers: Answers) -> str:
    return COSTS[name] if name in COSTS else answers.columns[name][1].unit
