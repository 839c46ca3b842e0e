"""Methods compared at about the same number of generated tokens."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from stair_jax.evaluation.cells import Cell
from stair_jax.evaluation.escaping import markdown
from stair_jax.evaluation.figures import Series

TOLERANCE = 1.25  # the larger number of tokens over the smaller one


@dataclass(frozen=True)
class Setting:
    """A method with one of its settings, and what it reached at what cost.

    Attributes:
      method: such as "best_of_n".
      n: number of candidates that are sampled side by side; 1 of a method without any.
      tokens: generated for an answer, in the mean.
      cell: the score.
      size: as the method's name has it, such as "4x4"; "": `n` says it.
    """

    method: str
    n: int
    tokens: float
    cell: Cell
    size: str = ""


@dataclass(frozen=True)
class Budget:
    """What each method reaches with about so many tokens.

    Attributes:
      tokens: of the reference's setting, generated for an answer.
      settings: of each method that has one within the tolerance, the nearest, by method.
    """

    tokens: float
    settings: dict[str, Setting]


def equal_tokens(
    settings: Sequence[Setting], reference: str = "", tolerance: float = TOLERANCE
) -> list[Budget]:
    """For each setting of one method, that of each other method with about as many tokens.

    Args:
      settings: of all methods, on the same benchmark; their tokens are above 0.
      reference: the method whose settings are the budgets; "": the one with most of them.
      tolerance: largest ratio of tokens, of the larger number to the smaller one.

    Returns:
      by rising budget; the settings by method, in the order in which the methods come first.

    Raises:
      ValueError: there is no such method, or a setting without tokens.
    """
    if free := [one for one in settings if one.tokens <= 0]:
        raise ValueError(f"{free[0].method} with n = {free[0].n} has no generated tokens")
    methods = list(dict.fromkeys(one.method for one in settings))
    counts = {method: sum(one.method == method for one in settings) for method in methods}
    # an empty `settings` has no method at all, and no budget
    reference = reference or max(counts, key=lambda method: counts[method], default="")
    if reference not in counts and settings:
        raise ValueError(f"no setting is of the method {reference}")
    budgets = sorted({one.tokens for one in settings if one.method == reference})
    return [Budget(tokens, _nearest(settings, methods, tokens, tolerance)) for tokens in budgets]


def _nearest(
    settings: Sequence[Setting], methods: Sequence[str], tokens: float, tolerance: float
) -> dict[str, Setting]:
    found = {}
    for method in methods:
        own = [one for one in settings if one.method == method]
        best = min(own, key=lambda one: (abs(math.log(one.tokens / tokens)), one.n))
        if abs(math.log(best.tokens / tokens)) <= math.log(tolerance) + 1e-12:
            found[method] = best
    return found


def equal_tokens_markdown(budgets: Sequence[Budget]) -> str:
    """A table in Markdown: a line a budget, a column a method: score, n and tokens."""
    methods = list(dict.fromkeys(method for budget in budgets for method in budget.settings))
    head = ["tokens", *map(markdown, methods)]
    lines = [head, ["---:"] * len(head)]
    for budget in budgets:
        shown = [_shown(budget.settings.get(method)) for method in methods]
        lines.append([f"{budget.tokens:.0f}", *shown])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def scaling_series(settings: Sequence[Setting]) -> list[Series]:
    """The settings as lines of `figures.scaling_figure`, one a method."""
    methods = list(dict.fromkeys(one.method for one in settings))
    return [
        Series.of(method, [(one.tokens, one.cell) for one in settings if one.method == method])
        for method in methods
    ]


def _shown(setting: Setting | None) -> str:
    if setting is None or setting.cell.value is None:
        return "-"
    cell = setting.cell
    interval = "" if cell.low is None else f" [{cell.low:.3f}, {cell.high:.3f}]"
    size = setting.size or f"n {setting.n}"
    return f"{cell.value:.3f}{interval}, {size}, {setting.tokens:.0f} tokens"
