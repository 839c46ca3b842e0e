"""A finished evaluation as it lies in its folder: what logs of inspect-ai are made of."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from stair_jax import storage
from stair_jax.errors import UserError
from stair_jax.evaluation.benchmark import Benchmark
from stair_jax.evaluation.benchmarks import BENCHMARKS
from stair_jax.evaluation.case import Answer, Case
from stair_jax.evaluation.graded_rows import GRADED_FILE, scores_of
from stair_jax.evaluation.judges.judge import Verdict
from stair_jax.evaluation.runner import answer_key, key_of, read_verdicts
from stair_jax.evaluation.suites import Wanted, find_file, make_benchmark
from stair_jax.evaluation.table import RowKey, Table
from stair_jax.evaluation.writers import read_table
from stair_jax.monitoring import say
from stair_jax.run.stage_records import COMPLETE_FILE, read_record


@dataclass(frozen=True)
class Grade:
    """What an answer got.

    Attributes:
      judge: who graded; "": the benchmark without a judge.
      scores: numbers by name; None: missing.
      verdict: of the judge; None: there is none.
    """

    judge: str
    scores: Mapping[str, float | None]
    verdict: Verdict | None = None


@dataclass(frozen=True)
class ResultSet:
    """The answers of one row of the table to a benchmark under an attack.

    Attributes:
      row: model and method.
      benchmark: its name.
      attack: its name.
      answers: in the order of asking.
    """

    row: RowKey
    benchmark: str
    attack: str
    answers: Sequence[Answer]


class Results:
    """What a finished evaluation found.

    Attributes:
      table: with all figures.
      cases: by benchmark and id, as far as the files of the benchmarks are there.
    """

    def __init__(self, folder: Path, data: Path | None = None):
        """Reads all but the answers.

        Args:
          folder: of the stage, such as `results/a/evaluate`.
          data: folder of the benchmarks' files; None: that of the evaluation.

        Raises:
          UserError: there is no finished evaluation, or a file is damaged.
        """
        if not (folder / "table.json").is_file():
            inner = next(iter(sorted(folder.glob("*/table.json"))), None)
            hint = f"name {inner.parent}" if inner else "run stair-jax evaluate to its end"
            raise UserError(f"{folder} holds no finished evaluation: {hint}")
        self._folder = folder
        self.table: Table = read_table(folder / "table.json")
        self._grades = self._read_grades()
        names = dict.fromkeys(column.benchmark for column in self.table.columns)
        names |= dict.fromkeys(each.benchmark for each in self.sets())
        self.cases: dict[tuple[str, str], Case] = {}
        self._read_cases(names, [data] if data else self._data_folders())

    def sets(self) -> Iterator[ResultSet]:
        """The answers, by row of the table, benchmark and attack."""
        for path in sorted((self._folder / "answers").glob("*.jsonl")):
            found: dict[tuple[RowKey, str, str], list[Answer]] = {}
            for line in storage.read_jsonl(path):
                answer = Answer.from_dict(line)
                key = (RowKey(answer.model, answer.method), answer.benchmark, answer.attack)
                found.setdefault(key, []).append(answer)
            for (row, benchmark, attack), answers in found.items():
                yield ResultSet(row, benchmark, attack, answers)

    def grades(self, answer: Answer) -> Sequence[Grade]:
        """What an answer got from each judge; empty: nobody could grade it."""
        return self._grades.get(answer_key(answer), ())

    def _read_grades(self) -> dict[str, list[Grade]]:
        verdicts: dict[str, Mapping[str, Verdict]] = {}
        for about in sorted((self._folder / "verdicts").glob("*.json")):
            rows = storage.read_jsonl(about.with_suffix(".jsonl"))
            verdicts[storage.read_json(about)["judge"]] = read_verdicts(rows)
        names = ("model", "method", "benchmark", "attack", "case", "sample")
        found: dict[str, list[Grade]] = {}
        for row in storage.read_jsonl(self._folder / GRADED_FILE):
            key, judge = key_of(*(row[name] for name in names)), row["judge"]
            grade = Grade(judge, scores_of(row), verdicts.get(judge, {}).get(key))
            found.setdefault(key, []).append(grade)
        return found

    @cached_property
    def _settings(self) -> Mapping[str, Any]:
        """Of the evaluation, as far as its record tells them."""
        path = self._folder / COMPLETE_FILE
        return dict(read_record(path)["settings"]) if path.is_file() else {}

    def _data_folders(self) -> list[Path]:
        """Where the evaluation had its rows from."""
        files, data = self._settings.get("files"), self._settings.get("data")
        own = [self._folder.parent / data] if data else []
        return [*own, *([Path(files).expanduser()] if files else [])]

    def _own_benchmarks(self) -> dict[str, Benchmark]:
        """Those in files of the user's, as far as they are still there."""
        found = {}
        for text in self._settings.get("benchmarks", ()):
            with suppress(UserError):
                benchmark = make_benchmark(Wanted.parse(text).benchmark)
                found[benchmark.NAME] = benchmark
        return found

    def _read_cases(self, names: Iterable[str], folders: Sequence[Path]) -> None:
        own = self._own_benchmarks()
        for name in names:
            benchmark = BENCHMARKS[name]() if name in BENCHMARKS else own.get(name)
            path = find_file(benchmark, folders) if benchmark else None
            if benchmark is None or path is None:
                say(f"{name}: its rows are not there, so that logs lack prompts: name their folder")
                continue
            self.cases |= {(name, case.id): case for case in benchmark.read(path)}
