"""Search trees and preference pairs, as the files of the paper's released code."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from stair_jax.data.pairs import read_pairs
from stair_jax.data.records import StepPair
from stair_jax.errors import UserError
from stair_jax.monitoring import say
from stair_jax.run.context import StageContext
from stair_jax.run.stage import Artifact, Stage, stage_input
from stair_jax.search.released_files import to_released, to_released_pair
from stair_jax.search.tree_records import TreeRecord
from stair_jax.stages.preferences import read_trees
from stair_jax.storage import atomic_file, write_jsonl

TREES, PROMPTS, PAIRS = "mct_data.json", "prompts.json", "actor_data.jsonl"


@dataclass(frozen=True)
class ExportData(Stage):
    """Settings of `export_data`, which leaves out what the form has no place for.

    These are chats with a system turn or earlier turns, and answers with a start.

    Attributes:
      trees: the stage whose search trees become `mct_data.json`, and their prompts, with the kinds
        that such trees lack, `prompts.json`; empty: none do.
      preferences: the stage whose `file` becomes `actor_data.jsonl`; empty: none does.
      file: JSON lines, the preference pairs for DPO of docs/architecture.md.
    """

    PROCESSES: ClassVar[Literal["all", "first"]] = "first"

    trees: str = stage_input(Artifact.TREES, required=False)
    preferences: str = stage_input(Artifact.STEP_PAIRS, file="file", required=False)
    file: str = "dpo.jsonl"

    def __post_init__(self) -> None:
        """Raises a UserError when nothing is named."""
        super().__post_init__()
        if not (self.trees or self.preferences):
            raise UserError("name the stage of the trees or that of the preferences, or both")

    def run(self, context: StageContext) -> None:
        """Writes the files."""
        if self.trees:
            source = context.input("trees")
            # A list of many gigabytes: read twice, and never held.
            odd: list[str] = []
            trees = _plain(read_trees(source), odd)
            count = _write_list(context.folder / TREES, map(to_released, trees))
            _write_list(context.folder / PROMPTS, map(_prompt, _plain(read_trees(source), [])))
            say(f"{context.name}: {count} trees in {TREES}, their prompts in {PROMPTS}")
            _tell(context, len(odd), "trees")
        if self.preferences:
            pairs = read_pairs(context.input("preferences") / self.file, StepPair)
            single = [pair for pair in pairs if not (pair.is_chat or pair.start)]
            write_jsonl(context.folder / PAIRS, map(to_released_pair, single))
            say(f"{context.name}: {len(single)} pairs in {PAIRS}")
            _tell(context, len(pairs) - len(single), "pairs")


def _plain(trees: Iterable[TreeRecord], odd: list[str]) -> Iterator[TreeRecord]:
    """The trees of single turns, without a start; the ids of the others go into `odd`."""
    for tree in trees:
        if tree.is_chat or tree.start:
            odd.append(tree.id)
        else:
            yield tree


def _tell(context: StageContext, count: int, what: str) -> None:
    if count:
        say(
            f"{context.name}: {count} {what} of chats or with a start left out: the form has no "
            "place for turns or a start"
        )


def _prompt(record: TreeRecord) -> Mapping[str, Any]:
    """The prompt of a tree as the released search reads it, with its id."""
    return {"question": record.prompt, "type": record.kind, "id": record.id}


def _write_list(path: Path, values: Iterable[Mapping[str, Any]]) -> int:
    """Writes values as a JSON list, one a line, and returns how many they are."""
    count = 0
    with atomic_file(path) as file:
        for count, value in enumerate(values, start=1):
            text = json.dumps(value, ensure_ascii=False, allow_nan=False)
            file.write(f"{'[' if count == 1 else ','}\n{text}".encode())
        file.write(b"\n]\n" if count else b"[]\n")
    return count
