"""The cases that an evaluation asked, read again from the files that its record names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stair_jax.errors import UserError
from stair_jax.evaluation import suites
from stair_jax.evaluation.benchmark import Benchmark
from stair_jax.evaluation.benchmarks.own import OwnBenchmark
from stair_jax.evaluation.benchmarks.pocket import Pocket
from stair_jax.evaluation.case import Case
from stair_jax.evaluation.rows import read_rows
from stair_jax.reports.records import FinishedStage
from stair_jax.run.source_hashes import joined_hash
from stair_jax.storage import fingerprint_file

# Sets of prompts that are harmless, whatever words they have.
HARMLESS_SETS = frozenset(
    {
        "xstest_safe",
        "oktest",
        "coconot",
        "or_bench",
        "gsm8k",
        "math500",
        "simpleqa",
        "ifeval",
        "advglue",
    }
)
_SAFE = "safe"


@dataclass(frozen=True)
class AskedCases:
    """A benchmark with its cases.

    Attributes:
      benchmark: that graded.
      cases: by their ids; none where `missing` says why.
      safe: ids of cases that the rows of the user's file label as safe.
      missing: why there are no cases.
    """

    benchmark: Benchmark
    cases: Mapping[str, Case] = field(default_factory=dict)
    safe: frozenset[str] = frozenset()
    missing: str = ""

    def is_harmless(self, case: str) -> bool:
        """Whether a case is known to ask for nothing harmful; unknown ones count as harmful."""
        if case not in self.cases:
            return False
        if isinstance(self.benchmark, Pocket):
            return self.cases[case].group.startswith("harmless")
        return self.benchmark.NAME in HARMLESS_SETS or case in self.safe


def asked_cases(stage: FinishedStage, files: str = "") -> dict[str, AskedCases]:
    """The benchmarks of an evaluation, by name, as far as they are known here.

    Args:
      stage: of the kind evaluate.
      files: a folder of benchmark files in place of the one that the record names.

    Raises:
      UserError: a file cannot be read.
    """
    settings = stage.settings
    data, files = settings.get("data"), files or settings.get("files", "")
    folders = [stage.folder.parent / data] if data else []
    folders += [Path(files).expanduser()] if files else []
    found = (_read(name, folders, stage.record.get("sources", {})) for name in _named(settings))
    return {asked.benchmark.NAME: asked for asked in found if asked is not None}


def _named(settings: Mapping[str, Any]) -> list[str]:
    """The benchmarks that an evaluation names, each once."""
    wanted = [*suites.SUITES.get(settings.get("suite", ""), ()), *settings.get("benchmarks", ())]
    names = [str(name).strip().partition(":")[0] for name in wanted]
    return list(dict.fromkeys(names or [Pocket.NAME]))


def _read(name: str, folders: Sequence[Path], sources: Mapping[str, str]) -> AskedCases | None:
    """A benchmark with its cases; None: it is a file that is gone, or no program registers it."""
    try:
        benchmark = suites.make_benchmark(name)
    except UserError:
        return None
    path = suites.find_file(benchmark, folders)
    if path is None:
        return AskedCases(benchmark, missing="its file is not there")
    hashes = {file: fingerprint_file(file) for file in benchmark.files(path)}
    if sources.get(name, joined_hash(hashes)) != joined_hash(hashes):
        return AskedCases(benchmark, missing="its file has changed since it was asked")
    cases = {case.id: case for case in benchmark.read(path)}
    safe = _labelled_safe(path) if isinstance(benchmark, OwnBenchmark) else frozenset()
    return AskedCases(benchmark, cases, safe)


def _labelled_safe(path: Path) -> frozenset[str]:
    """Ids of the rows of a user's file whose column `label` says that they are safe."""
    rows = read_rows(path)
    return frozenset(row.text("id", str(row.number)) for row in rows if row.value("label") == _SAFE)
