"""Graded answers as a table: cells, costs, differences of rows, agreement of judges."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from stair_jax.evaluation.agreement import agreement
from stair_jax.evaluation.benchmark import Metric, Role
from stair_jax.evaluation.calibration import Calibration
from stair_jax.evaluation.case import Graded
from stair_jax.evaluation.cells import NUM_SAMPLES, Cell, cell, difference
from stair_jax.evaluation.costs import Cost, cost
from stair_jax.evaluation.per_case import is_about, score
from stair_jax.evaluation.table import Column, Compared, JudgePair, RowKey, Table


@dataclass(frozen=True)
class Result:
    """Graded answers of one model and method to one benchmark under one attack, by one judge.

    Attributes:
      model: name of the model.
      method: how it answers.
      benchmark: name of the benchmark.
      attack: name of the attack.
      metrics: columns, the main one first.
      rows: the graded answers.
      role: of the benchmark.
      judge: name of who graded; "": nobody was asked.
      identity: what makes the judge's verdicts comparable.
      calibration: of the judge; metrics with `labels` get a corrected column beside theirs.
      seconds: wall time of the answers, where it is known.
      latencies: seconds from prompt to answer, of the answers where it is known.
    """

    model: str
    method: str
    benchmark: str
    attack: str
    metrics: Sequence[Metric]
    rows: Sequence[Graded]
    role: Role = "reported"
    judge: str = ""
    identity: Mapping[str, Any] = field(default_factory=dict)
    calibration: Calibration | None = None
    seconds: float | None = None
    latencies: Sequence[float] = ()

    @property
    def key(self) -> RowKey:
        """Its row of the table."""
        return RowKey(self.model, self.method)

    def columns(self) -> Iterator[tuple[Column, Metric]]:
        """Its columns of the table."""
        for metric in self.metrics:
            for corrected in (False, True):
                if corrected and not (self.calibration and metric.labels):
                    continue
                names = (self.benchmark, self.attack, metric.name)
                yield Column(*names, self.judge, corrected, self.role), metric


@dataclass(frozen=True)
class AttackMean:
    """A column that is the mean over attacks, such as STAIR's of StrongREJECT.

    Attributes:
      benchmark: name of the benchmark.
      attacks: names of the attacks.
    """

    benchmark: str
    attacks: tuple[str, ...]

    @property
    def name(self) -> str:
        """What stands in the place of the attack."""
        return f"mean of {', '.join(self.attacks)}"


def tabulate(
    results: Sequence[Result],
    means: Sequence[AttackMean] = (),
    baseline: RowKey | None = None,
    num_samples: int = NUM_SAMPLES,
    seed: int = 0,
) -> Table:
    """A table of results; rows and columns in the order in which they come first.

    Args:
      results: in any number; of one model, method, benchmark, attack and judge there is one.
      means: further columns, for rows that have results under all of their attacks.
      baseline: the row that the others are compared with; None: the first one.
      num_samples: number of bootstrap samples.
      seed: for the resampling.

    Raises:
      ValueError: two results have the same place in the table, or none has that of the baseline.
    """
    places = _places([*results, *mean_results(results, means)])
    rows = tuple(dict.fromkeys(result.key for result in results))
    columns = _ordered(column for _, column in places)

    def made(row: RowKey, column: Column) -> Cell | None:
        if (row, column) not in places:
            return None
        result, metric = places[row, column]
        calibration = result.calibration if column.corrected else None
        correction = calibration.correction(metric.labels) if calibration else None
        return cell(result.rows, metric, result.judge, correction, num_samples, seed)

    first = baseline or (rows[0] if rows else None)
    if first not in (*rows, None):
        raise ValueError(f"no result is of the baseline {first}")
    return Table(
        rows=rows,
        columns=columns,
        cells=tuple(tuple(made(row, column) for column in columns) for row in rows),
        costs=tuple(_cost(row, results) for row in rows),
        compared=tuple(_compared(rows, columns, places, first, num_samples, seed)),
        judges=_identities(results),
        calibrations=_once(result.calibration for result in results),
        pairs=tuple(_pairs(columns, _places(results), num_samples, seed)),
        num_samples=num_samples,
    )


Places = Mapping[tuple[RowKey, Column], tuple[Result, Metric]]


def _places(results: Sequence[Result]) -> Places:
    places: dict[tuple[RowKey, Column], tuple[Result, Metric]] = {}
    for result in results:
        for column, metric in result.columns():
            if (result.key, column) in places:
                raise ValueError(f"two results for {result.key} and {column}")
            places[result.key, column] = result, metric
    return places


def mean_results(results: Sequence[Result], means: Sequence[AttackMean]) -> Iterator[Result]:
    """Results under several attacks, as one each."""
    for mean in means:
        found: dict[tuple[RowKey, str], dict[str, Result]] = {}
        for one in results:
            if one.benchmark == mean.benchmark and one.attack in mean.attacks:
                found.setdefault((one.key, one.judge), {})[one.attack] = one
        for parts in found.values():
            if len(parts) == len(set(mean.attacks)):
                first = next(iter(parts.values()))
                rows = [row for part in parts.values() for row in part.rows]
                yield replace(first, attack=mean.name, rows=rows)


def _ordered(columns: Iterable[Column]) -> tuple[Column, ...]:
    """Each column once; those of one benchmark and attack side by side."""
    found = list(dict.fromkeys(columns))
    groups = list(dict.fromkeys((column.benchmark, column.attack) for column in found))
    return tuple(sorted(found, key=lambda c: groups.index((c.benchmark, c.attack))))


def _cost(row: RowKey, results: Sequence[Result]) -> Cost:
    """Of a row's answers, those that two judges graded once."""
    of_row: dict[tuple[str, str], Result] = {}
    for one in results:
        if one.key == row:
            of_row.setdefault((one.benchmark, one.attack), one)
    chosen = list(of_row.values())
    seconds = [one.seconds for one in chosen]
    known = [number for number in seconds if number is not None]
    return cost(
        [graded.answer for one in chosen for graded in one.rows],
        sum(known) if known and len(known) == len(seconds) else None,
        [latency for one in chosen for latency in one.latencies],
    )


def _compared(
    rows: Sequence[RowKey],
    columns: Sequence[Column],
    places: Places,
    first: RowKey | None,
    num_samples: int,
    seed: int,
) -> Iterator[Compared]:
    for column in columns:
        for row in rows:
            if first is None or row == first or column.corrected:
                continue
            if (row, column) in places and (first, column) in places:
                result, metric = places[row, column]
                other, _ = places[first, column]
                found = difference(result.rows, other.rows, metric, num_samples, seed)
                yield Compared(row, first, column, found)


def _pairs(
    columns: Sequence[Column], places: Places, num_samples: int, seed: int
) -> Iterator[JudgePair]:
    """Agreement of each two judges of a column, where scores are 0 or 1."""
    plain = [column for column in columns if column.judge and not column.corrected]
    for index, column in enumerate(plain):
        for other in plain[index + 1 :]:
            if _without_judge(other) != _without_judge(column):
                continue
            first, second = _scores(column, places), _scores(other, places)
            both = sorted(first.keys() & second.keys())
            if not both or not {first[key] for key in both} | {second[key] for key in both} <= {
                None,
                0.0,
                1.0,
            }:
                continue
            found = agreement(
                [_label(first[key]) for key in both],
                [_label(second[key]) for key in both],
                [case for _, _, case, _ in both],  # answers to one case are not independent
                num_samples,
                seed,
            )
            yield JudgePair(column, other.judge, found)


def _without_judge(column: Column) -> tuple[str, str, str]:
    return column.benchmark, column.attack, column.metric


def _scores(column: Column, places: Places) -> Mapping[tuple[str, str, str, int], float | None]:
    return {
        (row.model, row.method, graded.case.id, graded.answer.sample): score(graded, metric.key)
        for (row, place), (result, metric) in places.items()
        if place == column
        for graded in result.rows
        if is_about(metric, graded)
    }


def _label(value: float | None) -> str | None:
    return None if value is None else f"{value:g}"


def _identities(results: Sequence[Result]) -> dict[str, dict[str, Any]]:
    """What identifies each judge; of what differs between results, a list of all values."""
    found: dict[str, dict[str, list[Any]]] = {}
    for result in results:
        if result.judge:
            known = found.setdefault(result.judge, {})
            for key, value in result.identity.items():
                values = known.setdefault(key, [])
                if value not in values:
                    values.append(value)
    return {
        judge: {key: values[0] if len(values) == 1 else values for key, values in known.items()}
        for judge, known in found.items()
    }


def _once(calibrations: Iterable[Calibration | None]) -> tuple[Calibration, ...]:
    return tuple(dict.fromkeys(one for one in calibrations if one is not None))
