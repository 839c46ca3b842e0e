"""Safety against helpfulness: which columns of a table stand for the two."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from stair_jax.evaluation.cells import Cell
from stair_jax.evaluation.figures import Tradeoff, tradeoffs
from stair_jax.evaluation.table import Column, Table
from stair_jax.evaluation.tabulate import AttackMean

# Columns of STAIR's table: StrongREJECT under PAIR and PAP, from stored prompts or made anew.
ATTACK_MEANS = (
    AttackMean("strongreject", ("stored:pair", "stored:pap_misrepresentation")),
    AttackMean("strongreject", ("pair", "pap_misrepresentation")),
)


@dataclass(frozen=True)
class Choice:
    """A column that may stand for safety or for helpfulness.

    Attributes:
      benchmark: its name.
      metric: its name.
      attack: its name.
      is_inverted: whether 1 minus the figure is shown.
    """

    benchmark: str
    metric: str
    attack: str = "none"
    is_inverted: bool = False

    def label(self, column: Column) -> str:
        """What the axis says."""
        figure = f"1 - {self.metric}" if self.is_inverted else self.metric
        attack = "" if self.attack == "none" else f" under the {self.attack}"
        judge = f", by {column.judge}" if column.judge else ""
        return f"{figure} on {self.benchmark}{attack}{judge}"


# In each the first that a table has.
SAFETY = (
    *(Choice(mean.benchmark, "goodness", mean.name) for mean in ATTACK_MEANS),
    Choice("strongreject", "goodness"),
    Choice("xstest_unsafe", "refusals"),
    Choice("pocket", "goodness_heldout"),
)
HELPFULNESS = (
    Choice("gsm8k", "accuracy"),
    Choice("alpaca_eval", "lc_win_rate"),
    Choice("xstest_safe", "over_refusal", is_inverted=True),
    Choice("pocket", "helpfulness"),
)
OVER_REFUSAL = tuple(
    Choice(benchmark, "over_refusal", is_inverted=True)
    for benchmark in ("xstest_safe", "coconot", "oktest", "or_bench", "pocket")
)


@dataclass(frozen=True)
class Plane:
    """Rows of a table by safety and helpfulness.

    Attributes:
      models: the rows that have both figures.
      safety: what the vertical axis says.
      helpfulness: what the horizontal axis says.
    """

    models: tuple[Tradeoff, ...]
    safety: str
    helpfulness: str


def plane_of(table: Table, helpfulness: Sequence[Choice] = HELPFULNESS) -> Plane | None:
    """Safety against helpfulness of the rows of a table; None: no row has both.

    Args:
      table: of an evaluation.
      helpfulness: what may stand for it.
    """
    vertical, horizontal = _chosen(table, SAFETY), _chosen(table, helpfulness)
    if vertical is None or horizontal is None:
        return None
    (safe, safe_column), (helpful, helpful_column) = vertical, horizontal
    models = tuple(
        replace(
            one,
            safety=_shown(safe, one.safety),
            helpfulness=_shown(helpful, one.helpfulness),
        )
        for one in tradeoffs(table, safe_column, helpful_column)
        if one.safety.value is not None and one.helpfulness.value is not None
    )
    labels = safe.label(safe_column), helpful.label(helpful_column)
    return Plane(models, *labels) if models else None


def _chosen(table: Table, choices: Sequence[Choice]) -> tuple[Choice, Column] | None:
    """The first choice that has figures, with its column by the first judge."""
    for choice in choices:
        wanted = (choice.benchmark, choice.attack, choice.metric)
        for column in table.columns:
            if (column.benchmark, column.attack, column.metric) != wanted or column.corrected:
                continue
            cells = (table.cell(row, column) for row in table.rows)
            if any(cell is not None and cell.value is not None for cell in cells):
                return choice, column
    return None


def _shown(choice: Choice, cell: Cell) -> Cell:
    """The cell, or that of 1 minus its figure."""
    if not choice.is_inverted or cell.value is None:
        return cell
    low = None if cell.high is None else 1 - cell.high
    high = None if cell.low is None else 1 - cell.low
    return replace(cell, value=1 - cell.value, low=low, high=high)
