"""Splits as the paper has them: prompts for SFT, and fresh ones for each iteration of the search.

The kinds have equal parts. Jailbreaks are among the prompts of safety, in the iterations that are
given a number of them: the paper's second and third (thousand of five, two thousand of five).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stair_jax.data.built_folder import write_folder
from stair_jax.data.decontamination import HeldOutTexts, Thresholds
from stair_jax.data.held_out_files import HeldOutFiles
from stair_jax.data.records import KINDS
from stair_jax.data.split_card import format_card
from stair_jax.data.split_pool import Candidate, Pool
from stair_jax.data.study.texts import ordered
from stair_jax.errors import UserError

MADE = "split"  # of the record of a folder
_SAFETY = KINDS[0]
_JAILBREAKS = "jailbreaks"
Row = dict[str, Any]


@dataclass(frozen=True)
class Sizes:
    """How many prompts each file gets.

    Attributes:
      sft: prompts for SFT, of both kinds together.
      iterations: files of prompts for the search.
      per_iteration: prompts of each, of both kinds together.
      jailbreaks: of these, jailbreaks by iteration; (): none.
    """

    sft: int = 0
    iterations: int = 0
    per_iteration: int = 0
    jailbreaks: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Raises a UserError for sizes that make no split."""
        if self.sft <= 0 and self.iterations <= 0:
            raise UserError("nothing is split: set --sft, or --iterations and --per-iteration")
        if (self.iterations > 0) != (self.per_iteration > 0):
            raise UserError("set --iterations and --per-iteration, or none of them")
        sizes = {"--sft": self.sft, "--iterations": self.iterations}
        for flag, value in (sizes | {"--per-iteration": self.per_iteration}).items():
            if value < 0 or (value % len(KINDS) and flag != "--iterations"):
                raise UserError(f"{flag}={value}: give an even number, as both kinds get a half")
        self._check_jailbreaks()

    def _check_jailbreaks(self) -> None:
        flag = f"--jailbreaks-per-iteration={','.join(map(str, self.jailbreaks))}"
        if self.jailbreaks and len(self.jailbreaks) != self.iterations:
            raise UserError(f"{flag}: give a number for each of the {self.iterations} iterations")
        most = self.per_iteration // len(KINDS)
        if any(not 0 <= count <= most for count in self.jailbreaks):
            raise UserError(f"{flag}: an iteration has {most} prompts of safety: give 0 to {most}")

    def needed(self) -> dict[str, int]:
        """How many prompts are needed, by part."""
        each = (self.sft + self.iterations * self.per_iteration) // len(KINDS)
        jailbreaks = sum(self.jailbreaks)
        counts = {kind: each - (jailbreaks if kind == _SAFETY else 0) for kind in KINDS}
        return counts | {_JAILBREAKS: jailbreaks}


@dataclass(frozen=True)
class Split:
    """What is split.

    Attributes:
      sources: of the prompts of both kinds.
      jailbreaks: sources of jailbreaks, all of which are of safety.
      sizes: of the files.
      kinds: kind by source, as of the stage `files`.
      drop_near: leave out prompts that nearly repeat another one of the split, but for jailbreaks.
      seed: of all orders.
    """

    sources: tuple[str, ...]
    jailbreaks: tuple[str, ...]
    sizes: Sizes
    kinds: Mapping[str, str]
    drop_near: bool = False
    seed: int = 0


def make_split(split: Split, held_out: HeldOutFiles, out: Path) -> dict[str, Any]:
    """Writes the files of a split into a folder; what a source gives never depends on the others.

    Args:
      split: what is split.
      held_out: prompts that none may repeat.
      out: the folder; new, empty, or with an earlier split, which is replaced.

    Returns:
      what `data.json` says.

    Raises:
      UserError: a source cannot be read, or has too few prompts.
    """
    pool = Pool(HeldOutTexts(held_out.texts), split.kinds, split.seed)
    parts = _parts(split, pool)
    _check_enough(parts, split.sizes.needed())
    files = _share_out(parts, split)
    record = {
        "made": MADE,
        "seed": split.seed,
        "sizes": split.sizes,
        "kinds": dict(split.kinds),
        "drop_near": split.drop_near,
        "thresholds": Thresholds(),
        "sources": pool.sources,
        "held_out": held_out.counts,
        "not_compared": held_out.without,
        "counts": {part: dict(counts) for part, counts in sorted(pool.counts.items())},
        "rows": {name: _kinds_of(rows) for name, rows in files.items()},
    }
    write_folder(out, files, pool.left_out, record, format_card)
    return record


def _parts(split: Split, pool: Pool) -> dict[str, list[Candidate]]:
    """The prompts that may be taken, by part, each in the order in which they are taken.

    Jailbreaks come second: a plain prompt that is in both files is a plain one.
    """
    found = pool.read(split.sources, "prompts")
    jailbreaks = pool.read(split.jailbreaks, _JAILBREAKS, _SAFETY)
    if split.drop_near:
        found = pool.without_near(found, "prompts")
    parts = {kind: [one for one in found if one.row["kind"] == kind] for kind in KINDS}
    return parts | {_JAILBREAKS: jailbreaks}


def _check_enough(parts: Mapping[str, Sequence[Candidate]], needed: Mapping[str, int]) -> None:
    for part, count in needed.items():
        if len(parts[part]) < count:
            what = part if part == _JAILBREAKS else f"prompts of {part}"
            raise UserError(
                f"{count} {what} are needed, and {len(parts[part])} are there (each text once, "
                "without those that repeat a held-out one): name more files, or lower --sft, "
                "--iterations, --per-iteration or --jailbreaks-per-iteration"
            )


def _share_out(parts: Mapping[str, list[Candidate]], split: Split) -> dict[str, list[Row]]:
    """The rows of each file: SFT has the first choice, then the iterations in turn."""
    sizes, rest = split.sizes, {part: iter(found) for part, found in parts.items()}

    def take(part: str, count: int) -> list[Candidate]:
        return [next(rest[part]) for _ in range(count)]

    files: dict[str, list[Row]] = {}
    if sizes.sft:
        chosen = [one for kind in KINDS for one in take(kind, sizes.sft // len(KINDS))]
        files["sft_prompts"] = _mixed(map(_with_answer, chosen), split.seed, "sft")
    for number in range(1, sizes.iterations + 1):
        jailbreaks = sizes.jailbreaks[number - 1] if sizes.jailbreaks else 0
        each = sizes.per_iteration // len(KINDS)
        counts = {kind: each for kind in KINDS} | {_SAFETY: each - jailbreaks}
        chosen = [one for part in parts for one in take(part, counts.get(part, jailbreaks))]
        files[f"prompts{number}"] = _mixed((one.row for one in chosen), split.seed, number)
    return files


def _mixed(rows: Any, seed: int, name: object) -> list[Row]:
    return ordered(rows, lambda row: str(row["id"]), seed, name)


def _with_answer(one: Candidate) -> Row:
    return one.row | ({"answer": one.answer} if one.answer else {})


def _kinds_of(rows: Sequence[Row]) -> dict[str, int]:
    counts = Counter(row["kind"] for row in rows)
    return {kind: counts[kind] for kind in KINDS}
