"""Which pairs `dpo` trains on: of which stages and kinds, and what their columns have to hold."""

from collections.abc import Collection, Sequence
from pathlib import Path

from stair_jax.data.pairs import check_token_ids, read_pairs
from stair_jax.data.records import StepPair
from stair_jax.errors import UserError
from stair_jax.monitoring import say


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
