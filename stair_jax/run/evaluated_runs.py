"""The finished evaluations of several runs: which of them differ in the seed alone.

An arm is what such runs have in common. In the folder of a sweep it is a cell without its seed.
Runs that are named one by one are of the same arm if the records of their evaluations, and of all
stages that these read, have the same settings; or if the user gives them the same name.
"""

import glob
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from stair_jax import storage
from stair_jax.errors import UserError
from stair_jax.evaluation.graded_rows import GRADED_FILE
from stair_jax.monitoring import say
from stair_jax.run.stage_records import COMPLETE_FILE, read_record
from stair_jax.run.sweep_grid import SEED
from stair_jax.run.sweep_manifest import read_manifest
from stair_jax.run.workdir import CONFIG_FILE, stage_labels

_BRACES = re.compile(r"\{([^{}]*,[^{}]*)\}")
_SEED_IN_NAME = re.compile(rf"(^|_){SEED}-\d+")


@dataclass(frozen=True)
class EvaluatedRun:
    """The evaluations of a run.

    Attributes:
      workdir: of the run.
      folders: of its stages that evaluate.
      arm: what it is one of the seeds of; "": there is no other.
      seed: its seed, or its number in the arm where seeds do not tell the runs apart.
      values: what a sweep varies, by field, without the seed.
    """

    workdir: Path
    folders: tuple[Path, ...]
    arm: str
    seed: str
    values: Mapping[str, str] = field(default_factory=dict)


def find_runs(names: Sequence[str], stage: str = "") -> list[EvaluatedRun]:
    """The runs that the user names, in order.

    Args:
      names: working folders of runs, of `stair-jax evaluate`, or of sweeps, or folders of stages
        that evaluate; each may have an arm in front, as ARM=FOLDER, and be a pattern of a shell.
      stage: of the runs; empty: all that evaluate.

    Raises:
      UserError: a folder has no finished evaluation, or is named twice.
    """
    found: list[EvaluatedRun] = []
    unnamed: list[EvaluatedRun] = []
    given: set[str] = set()
    for arm, path in (each for name in names for each in _split(name)):
        own = list(_runs_of(path, arm, stage))
        if not own:
            what = f"of the stage {stage}" if stage else "with a graded.jsonl"
            raise UserError(f"{path} has no finished evaluation {what}: run it first")
        found += own
        is_sweep = read_manifest(path) is not None
        given |= {arm} if arm and not is_sweep else set()
        unnamed += own if not arm and not is_sweep else []
    places = [run.workdir.resolve() for run in found]
    if twice := next((run for run in found if places.count(run.workdir.resolve()) > 1), None):
        raise UserError(f"the run {twice.workdir} is named twice: leave it out once")
    return _numbered(_with_arms(found, unnamed), given)


def has_evaluation(folder: Path, stage: str = "") -> bool:
    """Whether a run, or a cell of a sweep, has finished an evaluation.

    Args:
      folder: of the run or sweep.
      stage: of the run; empty: any.

    Raises:
      UserError: a record in the folder is damaged.
    """
    manifest = read_manifest(folder)
    runs = [folder] if manifest is None else [folder / cell for cell in manifest.cells]
    return any(_run(run, "", stage) is not None for run in runs)


def _split(name: str) -> list[tuple[str, Path]]:
    """The arm that the user gives, and the folders."""
    arm, equals, path = name.partition("=")
    if not equals or Path(name).expanduser().exists():
        arm, path = "", name
    return [(arm.strip(), folder) for each in _braces(path) for folder in _fitting(each)]


def _braces(text: str) -> list[str]:
    """The texts that a shell makes of one with alternatives, as {a,b}."""
    match = _BRACES.search(text)
    if match is None or Path(text).exists():
        return [text]
    parts = (text[: match.start()] + part + text[match.end() :] for part in match[1].split(","))
    return [each for part in parts for each in _braces(part)]


def _fitting(text: str) -> list[Path]:
    """The folders that a pattern fits, sorted; a text that is none, or fits nothing, as it is."""
    path = Path(text).expanduser()
    found = [] if path.exists() else sorted(map(Path, glob.glob(str(path))))
    return found or [path]


def _runs_of(path: Path, arm: str, stage: str) -> Iterator[EvaluatedRun]:
    manifest = read_manifest(path)
    if manifest is None:
        if run := _run(path, arm, stage):
            yield run
        return
    for name, values in manifest.cells.items():
        # Another field may have that short name too.
        own = _SEED_IN_NAME.sub("", name).strip("_") if SEED in values else name
        run = _run(path / name, "/".join(filter(None, (arm, own))), stage)
        if run is None:
            say(f"{path / name} has no finished evaluation yet, and is left out")
        else:
            varied = {field: text for field, text in values.items() if field != SEED}
            yield replace(run, values=varied)


def _run(path: Path, arm: str, stage: str) -> EvaluatedRun | None:
    """The evaluations in a working folder, or the one in the folder of a stage; None: none."""
    if (path / GRADED_FILE).is_file():
        workdir, names = path.parent, [path.name]
    elif (path / CONFIG_FILE).is_file():
        workdir, names = path, [label.rpartition(":")[2] for label in stage_labels(path)]
    else:
        return None
    folders = [workdir / name for name in names if stage in ("", name)]
    folders = [each for each in folders if _is_evaluated(each)]
    if not folders:
        return None
    seed = read_record(folders[0] / COMPLETE_FILE)["seed"]
    return EvaluatedRun(workdir, tuple(folders), arm, str(seed))


def _is_evaluated(folder: Path) -> bool:
    return (folder / GRADED_FILE).is_file() and (folder / COMPLETE_FILE).is_file()


def _with_arms(runs: Sequence[EvaluatedRun], unnamed: Sequence[EvaluatedRun]) -> list[EvaluatedRun]:
    """The runs, where those without an arm have that of the first which has the same settings."""
    keys = {run.workdir: storage.fingerprint(_settings(run)) for run in unnamed}
    first: dict[str, str] = {}
    for run in unnamed:
        first.setdefault(keys[run.workdir], run.workdir.name)
    if len(runs) == len(unnamed) and len(first) == 1:
        return list(runs)  # all are seeds of one arm
    if clash := next((name for name in first.values() if list(first.values()).count(name) > 1), ""):
        raise UserError(f"two different runs have the name {clash}: name them, as ARM=FOLDER")
    arms = {workdir: first[key] for workdir, key in keys.items()}
    return [replace(run, arm=arms.get(run.workdir, run.arm)) for run in runs]


def _settings(run: EvaluatedRun) -> list[Any]:
    """Kind, version and settings of the stages that evaluate, and of all that they read."""
    found: dict[str, Any] = {}
    left = [folder.name for folder in run.folders]
    while left:
        name = left.pop()
        if name not in found and (run.workdir / name / COMPLETE_FILE).is_file():
            record = read_record(run.workdir / name / COMPLETE_FILE)
            found[name] = [record["kind"], record.get("version", 1), record["settings"]]
            left += record["inputs"]
    return sorted(found.items())


def _numbered(runs: Sequence[EvaluatedRun], given: Collection[str]) -> list[EvaluatedRun]:
    """The runs, numbered in an arm of the user's in which two have the same seed.

    Raises:
      UserError: two have the same seed in another arm: one is the other again.
    """
    result = []
    for run in runs:
        own = [each for each in runs if each.arm == run.arm]
        same = [each for each in own if each.seed == run.seed]
        if len(same) > 1 and run.arm not in given:
            raise UserError(
                f"{same[0].workdir} and {same[1].workdir} are the same run with seed {run.seed}: "
                "leave one out, or name what they are, as ARM=FOLDER"
            )
        is_told_apart = len({each.seed for each in own}) == len(own)
        result.append(run if is_told_apart else replace(run, seed=str(own.index(run))))
    return result
