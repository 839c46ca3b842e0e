"""Which pairs `dpo` trains on, at which rates, and what their columns have to hold."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from stair_jax.data.pairs import check_token_ids, read_pairs
from stair_jax.data.records import StepPair
from stair_jax.errors import UserError
from stair_jax.monitoring import say
from stair_jax.search.pair_outcomes import Regret, outcome


def read_step_pairs(
    name: str, paths: Sequence[Path], kinds: Collection[str], vocab_size: int
) -> list[StepPair]:
    """The pairs of all files, one file behind another.

    Args:
      name: of the stage, for what it says.
      paths: JSON lines.
      kinds: of the pairs that are taken; empty: all.
      vocab_size: of the model.

    Raises:
      UserError: a line that is no pair or has ids of no token; pairs without a kind where `kinds`
        are named, or none of these.
    """
    found: list[StepPair] = []
    for path in paths:
        rows = read_pairs(path, StepPair)
        check_token_ids(rows, vocab_size, path)
        if len(paths) > 1:
            say(f"{name}: {len(rows)} pairs in {path}")
        found += rows
    return _of_kinds(name, found, kinds, paths) if kinds and found else found


def _of_kinds(
    name: str, rows: Sequence[StepPair], kinds: Collection[str], paths: Sequence[Path]
) -> list[StepPair]:
    where, wanted = " and ".join(map(str, paths)), " and ".join(kinds)
    for row in rows:
        if row.kind is None:
            raise UserError(
                f"{where}: pair {row.id!r} has no kind, and kinds is {wanted}: give each pair its "
                "kind, or leave kinds empty"
            )
    taken = [row for row in rows if row.kind in kinds]
    if not taken:
        raise UserError(f"{where}: none of {len(rows)} pairs is of the kind {wanted}: change kinds")
    say(f"{name}: {len(taken)} of {len(rows)} pairs are of the kind {wanted}")
    return taken


def check_values(name: str, value_margin: float, rows: Sequence[StepPair]) -> None:
    """Says how many pairs have no values to take a margin from.

    Raises:
      UserError: none has.
    """
    missing = sum(row.value_gap is None for row in rows)
    if missing == len(rows):
        raise UserError(
            f"value_margin is {value_margin:g}, and no pair has chosen_value and rejected_value: "
            "set it to 0, or give them"
        )
    if missing:
        say(f"{name}: {missing} of {len(rows)} pairs have no values, and so no value margin")


def balanced(
    name: str, rows: Sequence[StepPair], rates: Mapping[str, float] | None
) -> tuple[list[str], dict[str, float]]:
    """What each pair teaches, and at which rates these outcomes are drawn.

    Without rates those that teach to refuse and those that teach to comply come equally often, and
    the others as often as there are of them. A pair of which it is not known teaches neither.

    Raises:
      UserError: there are no rates, and pairs teach only one of the two.
    """
    taught = [outcome(row) for row in rows]
    labels: list[str] = [label or "neither" for label in taught]
    count = Counter(labels)
    if rates is None:
        for label in ("refuse", "comply"):
            if not count[label]:
                raise UserError(
                    f"balance is 'outcome', and none of {len(rows)} pairs teaches to {label} "
                    f"({taught.count(None)} do not say whether a side refuses): set rates, or "
                    "balance to 'none'"
                )
        both = (count["refuse"] + count["comply"]) / 2
        found = {"refuse": both, "comply": both, "neither": float(count["neither"])}
        rates = {label: rate for label, rate in found.items() if rate}
    shown = ", ".join(f"{label} {count[label]} (rate {rate:g})" for label, rate in rates.items())
    say(f"{name}: pairs by what they teach: {shown}; of {taught.count(None)} it is not known")
    return labels, dict(rates)


def adapted(
    name: str,
    rows: Sequence[StepPair],
    rates: Mapping[str, float] | None,
    exponent: float,
    regrets: Mapping[str, Regret],
) -> dict[str, float]:
    """The rate of each kind: that of `rates`, else 1, times its mean regret to the `exponent`.

    Raises:
      UserError: a kind has pairs and no regret, or no kind has any.
    """
    kinds = list(rates or dict.fromkeys(row.kind or "" for row in rows))
    for kind in kinds:
        if kind not in regrets:
            raise UserError(
                f"adaptive_rates is {exponent:g}, and no tree tells the regret of the kind "
                f"{kind!r}: set adaptive_rates to 0, or leave it out of kinds and rates"
            )
    # Rounding may leave a mean below 0.
    found = {
        kind: (rates or {}).get(kind, 1.0) * max(regrets[kind].mean, 0.0) ** exponent
        for kind in kinds
    }
    if not any(found.values()):
        raise UserError(
            f"adaptive_rates is {exponent:g}, and the trees leave nothing to gain (a regret of 0): "
            "set it to 0"
        )
    shown = ", ".join(
        f"{kind} {rate:.3g} (regret {regrets[kind].mean:.3g} of {regrets[kind].trees} trees)"
        for kind, rate in found.items()
    )
    say(f"{name}: rates: {shown}")
    return found
