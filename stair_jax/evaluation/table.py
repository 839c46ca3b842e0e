"""The table of an evaluation: models and methods against benchmarks, attacks and metrics."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from stair_jax.errors import UserError
from stair_jax.evaluation.agreement import Agreement
from stair_jax.evaluation.benchmark import Role
from stair_jax.evaluation.bootstrap import Estimate
from stair_jax.evaluation.calibration import Calibration
from stair_jax.evaluation.cells import NUM_SAMPLES, Cell, Difference
from stair_jax.evaluation.costs import Cost

SCHEMA = 1


@dataclass(frozen=True)
class RowKey:
    """Row of a table: a model, and how it answers."""

    model: str
    method: str


def row_label(row: RowKey) -> str:
    """A row in one word: the model where it answers greedily."""
    return row.model if row.method == "greedy" else f"{row.model}, {row.method}"


@dataclass(frozen=True)
class Column:
    """Column of a table.

    Attributes:
      benchmark: its name.
      attack: its name; "none": the prompts as they are.
      metric: its name.
      judge: name of who graded; "": the benchmark without a judge.
      corrected: whether the judge's error is taken out.
      role: of the benchmark: "reported", "development" or "training".
    """

    benchmark: str
    attack: str
    metric: str
    judge: str = ""
    corrected: bool = False
    role: Role = "reported"


@dataclass(frozen=True)
class Compared:
    """One row minus another in a column, on the cases that both have."""

    row: RowKey
    other: RowKey
    column: Column
    difference: Difference


@dataclass(frozen=True)
class JudgePair:
    """Agreement of two judges on the same answers, those of all rows.

    Attributes:
      column: of the first judge.
      other: name of the second judge.
      agreement: of their scores, which are 0 or 1.
    """

    column: Column
    other: str
    agreement: Agreement


@dataclass(frozen=True)
class Table:
    """A table, as it is written and read again.

    Attributes:
      rows: models and methods.
      columns: benchmarks, attacks and metrics.
      cells: [row][column]; None: there are no such answers.
      costs: of the rows.
      compared: rows against the first row, or another that was asked for.
      judges: what makes each judge's verdicts comparable, by its name.
      calibrations: judges against labelled rows.
      pairs: agreement of judges.
      num_samples: of the bootstrap.
    """

    rows: tuple[RowKey, ...]
    columns: tuple[Column, ...]
    cells: tuple[tuple[Cell | None, ...], ...]
    costs: tuple[Cost, ...]
    compared: tuple[Compared, ...] = ()
    judges: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    calibrations: tuple[Calibration, ...] = ()
    pairs: tuple[JudgePair, ...] = ()
    num_samples: int = NUM_SAMPLES

    def to_dict(self) -> dict[str, Any]:
        """As JSON values, with the number of the schema."""
        row = asdict(self)
        row["calibrations"] = [calibration.to_dict() for calibration in self.calibrations]
        return {"schema": SCHEMA} | row

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> "Table":
        """Of what `to_dict` gives.

        Raises:
          UserError: it is no table, or of a newer schema.
        """
        try:
            if row["schema"] > SCHEMA:
                raise UserError("the table was written by a newer stair_jax: update this one")
            return cls(
                rows=tuple(RowKey(**key) for key in row["rows"]),
                columns=tuple(Column(**column) for column in row["columns"]),
                cells=tuple(
                    tuple(None if one is None else Cell.from_dict(one) for one in line)
                    for line in row["cells"]
                ),
                costs=tuple(Cost(**one) for one in row["costs"]),
                compared=tuple(_compared(one) for one in row["compared"]),
                judges=dict(row["judges"]),
                calibrations=tuple(Calibration.from_dict(one) for one in row["calibrations"]),
                pairs=tuple(_pair(one) for one in row["pairs"]),
                num_samples=int(row["num_samples"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"the table cannot be read ({type(error).__name__}: {error}): make it anew from "
                "the graded answers"
            ) from error

    def cell(self, row: RowKey, column: Column) -> Cell | None:
        """The cell of a row and a column; None: there are no such answers."""
        return self.cells[self.rows.index(row)][self.columns.index(column)]

    def judges_of(self, column: Column) -> Sequence[str]:
        """Names of all judges of the column's benchmark, attack and metric."""
        same = (column.benchmark, column.attack, column.metric)
        found = [c.judge for c in self.columns if (c.benchmark, c.attack, c.metric) == same]
        return list(dict.fromkeys(found))


def _compared(row: Mapping[str, Any]) -> Compared:
    return Compared(
        RowKey(**row["row"]),
        RowKey(**row["other"]),
        Column(**row["column"]),
        Difference(**row["difference"]),
    )


def _pair(row: Mapping[str, Any]) -> JudgePair:
    found = row["agreement"]
    estimates = (None if found[key] is None else Estimate(**found[key]) for key in _SHARES)
    agreement = Agreement(found["n"], found["missing"], *estimates)
    return JudgePair(Column(**row["column"]), row["other"], agreement)


_SHARES = ("share", "kappa")
