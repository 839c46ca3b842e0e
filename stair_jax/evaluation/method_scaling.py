"""Test-time scaling in an evaluation: what each method reaches on a benchmark, at what cost."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stair_jax.evaluation.benchmark import Benchmark
from stair_jax.evaluation.equal_tokens import (
    TOLERANCE,
    Setting,
    equal_tokens,
    equal_tokens_markdown,
)
from stair_jax.evaluation.escaping import markdown
from stair_jax.evaluation.table import Table
from stair_jax.evaluation.tabulate import Result
from stair_jax.inference.candidates import TestTimeSettings
from stair_jax.inference.methods import METHODS, is_search, parse_method


@dataclass(frozen=True)
class Scaling:
    """The methods of the models that search, on one benchmark under one attack.

    Attributes:
      benchmark: its name, with the attack as a user names both.
      metric: the main one, with who graded.
      settings: of all methods; those without generated tokens are left out.
    """

    benchmark: str
    metric: str
    settings: tuple[Setting, ...]

    @property
    def has_sizes(self) -> bool:
        """Whether a method is there with several sizes."""
        sizes: dict[str, set[str]] = {}
        for setting in self.settings:
            sizes.setdefault(setting.method, set()).add(setting.size)
        return any(len(several) > 1 for several in sizes.values())


def main_results(results: Sequence[Result], benchmarks: Mapping[str, Benchmark]) -> list[Result]:
    """One result for each row, benchmark and attack: the first that has the main metric.

    A judge that cannot answer a benchmark's own question may count refusals all the same; its
    result is chosen where there is no other.

    Args:
      results: of all judges.
      benchmarks: by name.
    """
    found: dict[Any, Result] = {}
    for one in results:
        place, main = (one.key, one.benchmark, one.attack), benchmarks[one.benchmark].METRICS[0]
        known = found.setdefault(place, one)
        if main not in known.metrics and main in one.metrics:
            found[place] = one
    return list(found.values())


def scalings(
    table: Table, results: Sequence[Result], test_time: TestTimeSettings
) -> Iterator[Scaling]:
    """What there is to compare, for each benchmark and attack where a method searches.

    Args:
      table: of the results.
      results: of `main_results`.
      test_time: of the searches, where their names have no size.
    """
    models = list(dict.fromkeys(one.model for one in results if is_search(one.method)))
    groups: dict[tuple[str, str], list[Result]] = {}
    for one in results:
        if one.model in models:
            groups.setdefault((one.benchmark, one.attack), []).append(one)
    for (benchmark, attack), group in groups.items():
        found = [_setting(one, table, test_time, len(models) > 1) for one in group]
        settings = tuple(one for one in found if one.tokens > 0 and one.cell.value is not None)
        if settings and any(is_search(one.method) for one in group):
            name = benchmark if attack == "none" else f"{benchmark}:{attack}"
            judge = group[0].judge
            metric = group[0].metrics[0].name + (f" by {judge}" if judge else "")
            yield Scaling(name, metric, settings)


def _setting(
    result: Result, table: Table, test_time: TestTimeSettings, with_model: bool
) -> Setting:
    column, _ = next(result.columns())  # of the main metric
    cell = table.cell(result.key, column)
    assert cell is not None
    answers = [row.answer for row in result.rows if not row.answer.is_missing]
    tokens = sum(answer.generated_tokens for answer in answers) / max(len(answers), 1)
    name, size, count = result.method, "", 1
    if name.partition(":")[0] in METHODS:  # others, such as "prompted", are those of a target
        method = parse_method(name).sized(test_time)
        name, size, count = method.name, method.shown_size, method.num_candidates(test_time)
    return Setting(f"{result.model}, {name}" if with_model else name, count, tokens, cell, size)


def scaling_markdown(found: Sequence[Scaling]) -> str:
    """The methods at about equal numbers of generated tokens, a table a benchmark.

    Args:
      found: those that are to be compared.
    """
    head = (
        "# Methods at about the same number of generated tokens\n\n"
        "Tokens are those generated for an answer in the mean, with the other candidates and the "
        "scores\nof a search. Each line is a setting of the method that has the most of them; of "
        "every other\nmethod it has the setting that is nearest in tokens, no further than a "
        f"factor of {TOLERANCE:g}: score\nwith its 95 % interval, size, tokens.\n"
    )
    parts = [
        f"\n## {markdown(one.benchmark)}: {markdown(one.metric)}\n\n"
        + equal_tokens_markdown(equal_tokens(one.settings))
        for one in found
    ]
    return head + "".join(parts)
