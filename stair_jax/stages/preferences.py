"""Preference pairs of one search, for DPO and for the PRM, and its good answers for SFT."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from stair_jax.data.records import PathPair, SftRow, StepPair, write_rows
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
from stair_jax.search.sft_answers import SftAnswerSettings, sft_answers
from stair_jax.search.tree_records import TreeRecord
from stair_jax.settings import setting
from stair_jax.stages.search_parts import TREES_FILE
from stair_jax.storage import RecordLog, write_json


@dataclass(frozen=True)
class Preferences(Stage, StepPairSettings):
    """Settings of `preferences`, beside those of `StepPairSettings`.

    Attributes:
      trees: the stage that holds the search trees.
      variant: "step", or "trajectory": full answers, as in the paper's ablation.
      match_steps: of "trajectory" and of `sft`: at most as many as there are pairs of "step".
      prm: pairs for the process reward model, see `PrmPairSettings` of search/preference_pairs.py.
      write_sft: also make `sft.jsonl` of the good answers, for the ablation of SFT on them.
      sft: which answers, see `SftAnswerSettings` of search/sft_answers.py.
    """

    VERSION: ClassVar[int] = 2  # 2: an answer with a second output block is not preferred
    PROCESSES: ClassVar[Literal["all", "first"]] = "first"

    trees: str = stage_input(Artifact.TREES)
    variant: Literal["step", "trajectory"] = "step"
    match_steps: bool = False
    prm: PrmPairSettings = setting(PrmPairSettings)
    write_sft: bool = False
    sft: SftAnswerSettings = setting(SftAnswerSettings)

    def makes(self) -> Mapping[str, Artifact]:
        """Pairs of both kinds, and SFT examples where they are wanted."""
        made = {"dpo.jsonl": Artifact.STEP_PAIRS, "prm.jsonl": Artifact.PATH_PAIRS}
        return made | ({"sft.jsonl": Artifact.SFT_ROWS} if self.write_sft else {})

    def run(self, context: StageContext) -> None:
        """Makes `dpo.jsonl`, `prm.jsonl`, `counts.json`, and `sft.jsonl` where it is wanted.

        All are in the order of the prompts' ids.
        """
        trees = sorted(
            (_pairs_of(record, self) for record in read_trees(context.input("trees"))),
            key=lambda tree: tree.id,
        )
        pairs = [pair for tree in trees for pair in tree.dpo]
        num_steps = sum(tree.num_steps for tree in trees)
        if self.variant == "trajectory" and self.match_steps:
            pairs = thin(pairs, num_steps)
        write_rows(context.folder / "dpo.jsonl", pairs)
        write_rows(context.folder / "prm.jsonl", [pair for tree in trees for pair in tree.prm])
        counts = {
            "dpo": sum((tree.dpo_counts for tree in trees), Counter()),
            "prm": sum((tree.prm_counts for tree in trees), Counter()),
        }
        if self.write_sft:
            answers = [row for tree in trees for row in tree.sft]
            if self.match_steps:
                answers = thin(answers, num_steps)
            write_rows(context.folder / "sft.jsonl", answers)
            counts["sft"] = sum((tree.sft_counts for tree in trees), Counter())
            counts["sft"]["answers"] = len(answers)
        if any(not tree.has_tokens for tree in trees):
            say(
                f"{context.name}: the trees have no token ids: max_tokens is not looked at, and "
                "max_length of the training stages leaves out what is too long"
            )
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
    sft: list[SftRow]
    sft_counts: Counter[str]
    has_tokens: bool


def _pairs_of(record: TreeRecord, settings: Preferences) -> _TreePairs:
    siblings, counts = sibling_pairs(record, settings)
    dpo = siblings
    if settings.variant == "trajectory":
        dpo, counts = trajectory_pairs(record, settings)
    answers, sft_counts = (
        sft_answers(record, settings.sft) if settings.write_sft else ([], Counter())
    )
    return _TreePairs(
        record.id,
        dpo,
        counts,
        *prm_pairs(record, settings.prm),
        num_steps=len(siblings),
        sft=answers,
        sft_counts=sft_counts,
        has_tokens=record.tokens(range(len(record.nodes))) is not None,
    )


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
