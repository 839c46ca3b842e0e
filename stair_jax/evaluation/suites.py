"""What is asked: benchmarks and attacks by their names, and the suites of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from stair_jax.errors import UserError, did_you_mean
from stair_jax.evaluation.asking import AskedSet
from stair_jax.evaluation.attacks import ATTACKS, make_attack
from stair_jax.evaluation.attacks.settings import AttackSettings
from stair_jax.evaluation.attacks.stored import (
    PREFIX,
    Stored,
    StoredPrompts,
    joined,
    read_stored,
)
from stair_jax.evaluation.benchmark import Benchmark
from stair_jax.evaluation.benchmarks import (
    BENCHMARKS,
    get_benchmark,
    is_own_file,
    unknown_benchmark,
)
from stair_jax.evaluation.benchmarks.own import OwnBenchmark
from stair_jax.evaluation.case import Case

# The table of the paper, and over-refusal, which it does not have.
_PAPER = (
    "strongreject",
    "strongreject:stored:pair",
    "strongreject:stored:pap_misrepresentation",
    "xstest_unsafe",
    "xstest_safe",
    "wildchat",
    "stereotype",
    "simpleqa",
    "confaide_1",
    "confaide_2a",
    "confaide_2b",
    "advglue",
    "gsm8k",
    "alpaca_eval",
    "hhh",
)
_SAFETY = (
    "strongreject",
    "strongreject:stored:pair",
    "strongreject:stored:pap_misrepresentation",
    "strongreject:stored:pap_authority",
    "strongreject:disemvowel",
    "strongreject:prefill",
    "strongreject:prefill_first_step",
    "strongreject:pair",
    "xstest_unsafe",
    "xstest_safe",
    "oktest",
    "coconot",
    "do_not_answer",
    "stereotype",
    "harmbench",
)
# Minutes, and no judge but a rule.
_QUICK = ("xstest_unsafe", "xstest_safe", "stereotype", "gsm8k", "advglue", "hhh_ab")

SUITES: Mapping[str, tuple[str, ...]] = {"paper": _PAPER, "safety": _SAFETY, "quick": _QUICK}
_QUICK_CASES = 100


@dataclass(frozen=True)
class Wanted:
    """A benchmark under an attack, as it is named: "BENCHMARK" or "BENCHMARK:ATTACK".

    Attributes:
      benchmark: its name, or a file of one's own as `own.own_benchmark` takes it.
      attack: its name; "none": the prompts as they are.
    """

    benchmark: str
    attack: str = "none"

    @classmethod
    def parse(cls, text: str) -> "Wanted":
        """Reads a name.

        Raises:
          UserError: there is no such benchmark or attack, or "stored" has no name behind it.
        """
        name, _, attack = text.strip().partition(":")
        if name not in BENCHMARKS and not is_own_file(name):
            raise unknown_benchmark(name)
        attack = attack or "none"
        if attack == Stored.NAME or attack == PREFIX:
            raise UserError(f"{text.strip()} names no stored attack: write {name}:{PREFIX}NAME")
        if not attack.startswith(PREFIX) and attack not in ATTACKS:
            raise UserError(f"there is no attack {attack!r}: {did_you_mean(attack, ATTACKS)}")
        return cls(name, attack)

    def __str__(self) -> str:
        """As `parse` reads it."""
        return self.benchmark if self.attack == "none" else f"{self.benchmark}:{self.attack}"

    def without_prompts(self, benchmark: Benchmark, stored: StoredPrompts) -> str:
        """Why a stored attack cannot be asked, and how to get it; "": it can, or is none."""
        name = self.attack.removeprefix(PREFIX)
        if not self.attack.startswith(PREFIX) or name in stored:
            return ""
        known = ", ".join(sorted(stored)) or "none"
        return f"it has no stored prompts of {name!r} (of these: {known}): {benchmark.STORED_HOW}"


def wanted_of(suite: str, benchmarks: Iterable[str]) -> list[Wanted]:
    """What a suite and further names come to, each once."""
    names = [*(SUITES[suite] if suite else ()), *benchmarks]
    return list(dict.fromkeys(map(Wanted.parse, names)))


def limit_of(suite: str, limit: int) -> int:
    """Cases of each benchmark; 0: all."""
    return limit or (_QUICK_CASES if suite == "quick" else 0)


def make_benchmark(name: str) -> Benchmark:
    """A benchmark by its name, or in a file of the user's."""
    return get_benchmark(name)


def find_file(benchmark: Benchmark, folders: Sequence[Path]) -> Path | None:
    """The rows of a benchmark; None: they are in none of the folders."""
    if isinstance(benchmark, OwnBenchmark):  # its path is absolute
        return benchmark.SOURCE.find(Path())
    found = (benchmark.SOURCE.find(folder) for folder in folders)
    return next((path for path in found if path is not None), None)


def absent(
    wanted: Sequence[Wanted], folders: Sequence[Path], settings: AttackSettings | None = None
) -> dict[str, str]:
    """Benchmarks whose rows are not there, and stored attacks whose prompts are not.

    Returns:
      for each of them, named as in `Wanted`, how to get it.
    """
    lines = {}
    for name in dict.fromkeys(each.benchmark for each in wanted):
        benchmark = make_benchmark(name)
        path = find_file(benchmark, folders)
        if path is None:
            place = " or ".join(benchmark.SOURCE.paths[:2])
            lines[name] = f"{place} is not there: {benchmark.SOURCE.how}"
            continue
        attacked = [each for each in wanted if each.benchmark == name and PREFIX in each.attack]
        if attacked:
            _, stored = _read(benchmark, path, settings or AttackSettings())
            reasons = {str(each): each.without_prompts(benchmark, stored) for each in attacked}
            lines |= {each: reason for each, reason in reasons.items() if reason}
    return lines


def read_sets(
    wanted: Sequence[Wanted],
    folders: Sequence[Path],
    settings: AttackSettings,
    limit: int = 0,
    seed: int = 0,
) -> list[AskedSet]:
    """The cases of what is wanted, but for what is `absent`.

    Args:
      wanted: in the order of the table.
      folders: that rows are looked for in.
      settings: of the attacks.
      limit: cases of each benchmark, drawn by `seed`, in their order; 0: all.
      seed: of the run.

    Raises:
      UserError: a file cannot be read, or an attack cannot be used.
    """
    sets = []
    read: dict[str, tuple[Benchmark, tuple[Case, ...], StoredPrompts]] = {}
    for each in wanted:
        if each.benchmark not in read:
            benchmark = make_benchmark(each.benchmark)
            path = find_file(benchmark, folders)
            if path is None:
                continue
            whole, stored = _read(benchmark, path, settings)
            read[each.benchmark] = benchmark, _drawn(whole, limit, each.benchmark, seed), stored
        benchmark, cases, stored = read[each.benchmark]
        if each.without_prompts(benchmark, stored):
            continue
        sets.append(AskedSet(benchmark, make_attack(each.attack, settings, stored), cases))
    return sets


def _read(
    benchmark: Benchmark, path: Path, settings: AttackSettings
) -> tuple[list[Case], StoredPrompts]:
    """All cases of a benchmark, and the prompts of attacks that are stored for it."""
    cases, own = benchmark.read(path), settings.stored.path
    prompts = read_stored(own, cases).prompts if own else {}
    return cases, joined(benchmark.stored_attacks(path), prompts)


def _drawn(cases: Sequence[Case], limit: int, name: str, seed: int) -> tuple[Case, ...]:
    """So many cases; those of one cluster are drawn together, and may be a few more."""
    if not limit or limit >= len(cases):
        return tuple(cases)
    clusters: dict[str, list[int]] = {}
    for place, case in enumerate(cases):
        clusters.setdefault(case.cluster or f"/{case.id}", []).append(place)
    order = list(clusters.values())
    Random(f"{seed}/{name}").shuffle(order)
    chosen: list[int] = []
    for places in order:
        if len(chosen) >= limit:
            break
        chosen += places
    return tuple(cases[place] for place in sorted(chosen))
