"""Preference pairs of one search, for DPO and for the PRM."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from stair_jax.data.records import PathPair, StepPair, write_rows
from stair_jax.errors import UserError
from stair_jax.monitoring import say
from stair_jax.run.context import StageContext
from stair_jax.run.stage import Artifact, Stage, stage_input
from stair_jax.search.preference_pairs import (
    PrmPairSettings,
    StepPairSettings,
    prm_pairs,
    sibling_pairs,
    thin,
    trajectory_pairs,
)
from stair_jax.search.tree_records import TreeRecord
from stair_jax.settings import setting
from stair_jax.stages.search_parts import TREES_FILE
from stair_jax.storage import RecordLog, write_json


@dataclass(frozen=True)
class Preferences(Stage, StepPairSettings):
    """Settings of `preferences`, beside those of `StepPairSettings`.

    Attributes:
      trees: the search stage.
      variant: "step", or "trajectory": full answers, as in the paper's ablation.
      match_steps: of "trajectory": at most as many pairs as "step" would give.
      prm: pairs for the process reward model, see `PrmPairSettings` of search/preference_pairs.py.
    """

    VERSION: ClassVar[int] = 2  # 2: an answer with a second output block is not preferred
    PROCESSES: ClassVar[Literal["all", "first"]] = "first"

    trees: str = stage_input(Artifact.TREES)
    variant: Literal["step", "trajectory"] = "step"
    match_steps: bool = False
    prm: PrmPairSettings = setting(PrmPairSettings)

    def makes(self) -> Mapping[str, Artifact]:
        """Pairs of both kinds."""
        return {"dpo.jsonl": Artifact.STEP_PAIRS, "prm.jsonl": Artifact.PATH_PAIRS}

    def run(self, context: StageContext) -> None:
        """Makes `dpo.jsonl`, `prm.jsonl` and `counts.json`, in the order of the prompts' ids."""
        trees = sorted(
            (_pairs_of(record, self) for record in read_trees(context.input("trees"))),
            key=lambda tree: tree.id,
        )
        pairs = [pair for tree in trees for pair in tree.dpo]
        if self.variant == "trajectory" and self.match_steps:
            pairs = thin(pairs, sum(tree.num_steps for tree in trees))
        write_rows(context.folder / "dpo.jsonl", pairs)
        write_rows(context.folder / "prm.jsonl", [pair for tree in trees for pair in tree.prm])
        counts = {
            "dpo": sum((tree.dpo_counts for tree in trees), Counter()),
            "prm": sum((tree.prm_counts for tree in trees), Counter()),
        }
        counts["dpo"].update(f"depth_{pair.depth}" for pair in pairs)
        counts["dpo"].update(f"kind_{pair.kind}" for pair in pairs)
        counts["dpo"]["trees"], counts["dpo"]["pairs"] = len(trees), len(pairs)
        shown = {name: dict(sorted(counter.items())) for name, counter in counts.items()}
        write_json(context.folder / "counts.json", shown)
        for name, numbers in shown.items():
            text = ", ".join(f"{reason} {count}" for reason, count in numbers.items())
            say(f"{context.name}: {name}: {text}")


@dataclass(frozen=True)
class _TreePairs:
    """What one tree gives."""

    id: str
    dpo: list[StepPair]
    dpo_counts: Counter[str]
    prm: list[PathPair]
    prm_counts: Counter[str]
    num_steps: int  # sibling pairs, whatever the variant


def _pairs_of(record: TreeRecord, settings: Preferences) -> _TreePairs:
    siblings, counts = sibling_pairs(record, settings)
    dpo = siblings
    if settings.variant == "trajectory":
        dpo, counts = trajectory_pairs(record, settings)
    return _TreePairs(record.id, dpo, counts, *prm_pairs(record, settings.prm), len(siblings))


def read_trees(folder: Path) -> Iterator[TreeRecord]:
    """The trees of a search stage, in the order in which they were finished.

    Raises:
      UserError: there are none.
    """
    path, number = folder / TREES_FILE, 0
    for number, record in enumerate(RecordLog(path), start=1):
        yield TreeRecord.from_dict(record, f"{path}, record {number}")
    if not number:
        raise UserError(f"{path} holds no tree: search at least one prompt")
