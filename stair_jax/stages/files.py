"""The user's own data: JSON lines, checked, and copied into the run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stair_jax.data.pairs import PATH_FIELDS, STEP_FIELDS, read_pairs
from stair_jax.data.prompts import read_rows
from stair_jax.errors import UserError
from stair_jax.monitoring import say
from stair_jax.settings import read_settings
from stair_jax.stages.context import StageContext
from stair_jax.storage import write_jsonl

INPUTS: tuple[str, ...] = ()
_EXAMPLE = ("id", "prompt", "answer", "kind")
_PROMPT = ("id", "prompt", "kind", "source")

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class FilesSettings:
    """Settings of `files`: paths of JSON lines, from where the command is run.

    Attributes:
      sft: examples {id, prompt, answer, kind: "safety" or "helpfulness"}, into `sft.jsonl`.
      prompts: prompts {id, prompt, kind, source}, a file an iteration, into `prompts1.jsonl`,
        `prompts2.jsonl`, ...
      dpo: preference pairs for DPO (docs/architecture.md), into `dpo.jsonl`.
      prm: pairs for the process reward model, of any number of files, into `prm.jsonl`.
    """

    sft: str = ""
    prompts: tuple[str, ...] = ()
    dpo: str = ""
    prm: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raises a UserError when nothing is named."""
        if not (self.sft or self.prompts or self.dpo or self.prm):
            raise UserError("config.files names no file: set files.sft, .prompts, .dpo or .prm")


def run(context: StageContext) -> None:
    """Writes each file into the folder of the stage, so that later stages know it by its bytes."""
    settings = read_settings(FilesSettings, context.settings, context.name)
    for name, paths, read in _artifacts(settings):
        rows = [row for path in paths for row in read(Path(path).expanduser())]
        write_jsonl(context.folder / name, rows)
        say(f"{context.name}: {len(rows)} rows in {name}, from {', '.join(paths)}")


def _artifacts(
    settings: FilesSettings,
) -> list[tuple[str, Sequence[str], Callable[[Path], Rows]]]:
    """(name, paths, reader) of each artifact."""
    named: list[tuple[str, Sequence[str], Callable[[Path], Rows]]] = [
        ("sft.jsonl", [settings.sft], _rows_of(_EXAMPLE)),
        *(
            (f"prompts{number}.jsonl", [path], _rows_of(_PROMPT))
            for number, path in enumerate(settings.prompts, start=1)
        ),
        ("dpo.jsonl", [settings.dpo], _pairs_of(STEP_FIELDS)),
        ("prm.jsonl", settings.prm, _pairs_of(PATH_FIELDS)),
    ]
    return [(name, paths, read) for name, paths, read in named if any(paths)]


def _rows_of(columns: Sequence[str]) -> Callable[[Path], Rows]:
    return lambda path: read_rows(path, columns)


def _pairs_of(fields: Mapping[str, type]) -> Callable[[Path], Rows]:
    return lambda path: read_pairs(path, fields)
