"""Models that a run has no more use for, with `runtime.keep_models` "needed".

A language model is of no more use when a later one was made of it and every stage that reads it is
finished. Its weights are removed, whole or not at all: the record of its stage says so first. The
stage stays finished, and what was made of it valid; config and tokenizer stay in `hf/`. The last
models are kept, adapters, which are small, and the model that adapters belong to.
"""

from collections.abc import Collection, Sequence
from pathlib import Path

from stair_jax import storage
from stair_jax.errors import UserError
from stair_jax.monitoring import say
from stair_jax.run.out_of_memory import format_bytes
from stair_jax.run.stage import Artifact
from stair_jax.run.stage_list import StageEntry
from stair_jax.run.stage_records import (
    COMPLETE_FILE,
    REMOVED,
    is_model_removed,
    read_record,
    write_record,
)

_WEIGHTS = (".safetensors", ".safetensors.index.json")
_ADAPTERS = "adapter_config.json"


def unneeded_models(
    entries: Sequence[StageEntry], finished: Collection[str], adapters: Collection[str]
) -> list[str]:
    """The stages whose models no stage needs any more.

    Args:
      entries: of the run.
      finished: names of the stages that are.
      adapters: names of the stages whose model is adapters of an earlier one's.
    """
    bases = {_base_of(name, entries, adapters) for name in adapters}
    return [
        entry.name
        for entry in entries
        if entry.name in finished
        and entry.name not in bases | set(adapters)
        and _is_superseded(entry, entries, finished)
    ]


def _is_superseded(
    entry: StageEntry, entries: Sequence[StageEntry], finished: Collection[str]
) -> bool:
    """Whether all stages that read a model are finished, and one of them made another of it."""
    readers = [each for each in entries if entry.name in each.input_names]
    return (
        _makes_model(entry)
        and all(each.name in finished for each in readers)
        and any(_makes_model(each) for each in readers)
    )


def _makes_model(entry: StageEntry) -> bool:
    return Artifact.MODEL in entry.stage.makes().values()


def _base_of(name: str, entries: Sequence[StageEntry], adapters: Collection[str]) -> str:
    """The stage of the model that the adapters of a stage belong to."""
    models = {entry.name: entry.stage.inputs().get("model", "") for entry in entries}
    while name in adapters:
        name = str(models[name])
    return name


def remove_unneeded_models(
    entries: Sequence[StageEntry], finished: Collection[str], workdir: Path
) -> None:
    """Removes the weights of the models that no stage needs any more, and says of which."""
    adapters = [name for name in finished if (workdir / name / "hf" / _ADAPTERS).is_file()]
    for name in unneeded_models(entries, finished, adapters):
        folder = workdir / name
        record = read_record(folder / COMPLETE_FILE)
        if REMOVED not in record:
            size = _mark(folder, record)
            say(
                f"{name}: its model is not needed any more and is removed, {format_bytes(size)} "
                "(runtime.keep_models)"
            )
        _remove(folder)


def finish_removals(entries: Sequence[StageEntry], workdir: Path) -> None:
    """Removes what a killed run had only begun to."""
    for entry in entries:
        if is_model_removed(workdir / entry.name):
            _remove(workdir / entry.name)


def _mark(folder: Path, record: dict[str, object]) -> int:
    """Writes into the record which files are removed; returns their bytes."""
    files = [path for path in (folder / "hf").iterdir() if path.name.endswith(_WEIGHTS)]
    size = sum(path.stat().st_size for path in files)
    names = sorted(path.relative_to(folder).as_posix() for path in files)
    write_record(folder / COMPLETE_FILE, {**record, REMOVED: names})
    return size


def _remove(folder: Path) -> None:
    with storage.writing(folder):
        for name in read_record(folder / COMPLETE_FILE)[REMOVED]:
            (folder / name).unlink(missing_ok=True)


def require_models(entries: Sequence[StageEntry], anew: Collection[str], workdir: Path) -> None:
    """Checks that no stage that is to be run reads a model that was removed.

    Args:
      entries: of the run.
      anew: finished stages that are to be run again.
      workdir: of the run.

    Raises:
      UserError: one does; says which command makes the model again.
    """
    removed = {
        entry.name
        for entry in entries
        if entry.name not in anew and is_model_removed(workdir / entry.name)
    }
    for entry in entries:
        if entry.name not in anew and (workdir / entry.name / COMPLETE_FILE).is_file():
            continue
        for name in entry.input_names:
            if name in removed:
                flags = " ".join(f"--redo={each}" for each in _first(name, removed, entries))
                raise UserError(
                    f"the stage {entry.name} needs the model of the stage {name}, which was "
                    f"removed (runtime.keep_models): {flags} makes it again, and what depends on it"
                )


def _first(name: str, removed: Collection[str], entries: Sequence[StageEntry]) -> list[str]:
    """The stages to begin with to make a removed model again: nothing that they read is removed."""
    wanted = {name}
    first = []
    for entry in reversed(entries):
        if entry.name in wanted:
            missing = set(entry.input_names) & set(removed)
            wanted |= missing
            if not missing:
                first.append(entry.name)
    return first[::-1]
