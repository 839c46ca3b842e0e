"""Preference pairs of one search, for DPO and for the PRM, and its good answers for SFT."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

from stair_jax.data.records import PathPair, SftRow, StepPair, write_rows
from stair_jax.errors import UserError
from stair_jax.monitoring import say
from stair_jax.planning.figures import Basis, Figure
from stair_jax.planning.needs import Needs, Work, plain_needs
from stair_jax.record_log import RecordLog
from stair_jax.run.context import PlanContext, StageContext
from stair_jax.run.stage import Artifact, Stage, stage_input
from stair_jax.search.pair_candidates import NO_PAIRS, Candidates, why_no_pairs
from stair_jax.search.pair_filters import filtered
from stair_jax.search.pair_outcomes import mean_regrets, regret, write_regrets
from stair_jax.search.pair_report import (
    REPORT_FILE,
    PairReportSettings,
    TreeGaps,
    format_proposal,
    make_report,
    tree_gaps,
)
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
from stair_jax.storage import write_json

_PAIR_BYTES = 6000  # of a line of text


@dataclass(frozen=True)
class Preferences(Stage, StepPairSettings):
    """Settings of `preferences`, beside those of `StepPairSettings`.

    Attributes:
      trees: the stage that holds the search trees.
      variant: "step", or "trajectory": full answers, as in the paper's ablation.
      max_pairs_per_source: of all trees whose prompts have one source; evenly spread over them.
      match_steps: of "trajectory" and of `sft`: at most as many as there are pairs of "step".
      prm: pairs for the process reward model, see `PrmPairSettings` of search/preference_pairs.py.
      write_sft: also make `sft.jsonl` of the good answers, for the ablation of SFT on them.
      sft: which answers, see `SftAnswerSettings` of search/sft_answers.py.
      report: which thresholds `report.json` proposes, see `PairReportSettings` of
        search/pair_report.py.
    """

    VERSION: ClassVar[int] = 2  # 2: an answer with a second output block is not preferred
    PROCESSES: ClassVar[Literal["all", "first"]] = "first"

    trees: str = stage_input(Artifact.TREES)
    variant: Literal["step", "trajectory"] = "step"
    max_pairs_per_source: int = setting(0, least=0, absent=0)
    match_steps: bool = False
    prm: PrmPairSettings = setting(PrmPairSettings)
    write_sft: bool = False
    sft: SftAnswerSettings = setting(SftAnswerSettings)
    report: PairReportSettings = setting(PairReportSettings)

    def __post_init__(self) -> None:
        """Raises a UserError that names a setting that cannot be."""
        super().__post_init__()
        if self.max_pairs_per_depth and self.variant == "trajectory":
            raise UserError(
                "max_pairs_per_depth is a limit of steps, and the variant 'trajectory' has whole "
                "answers: set it to 0, or the variant to 'step'"
            )

    def makes(self) -> Mapping[str, Artifact]:
        """Pairs of both kinds, and SFT examples where they are wanted."""
        made = {"dpo.jsonl": Artifact.STEP_PAIRS, "prm.jsonl": Artifact.PATH_PAIRS}
        return made | ({"sft.jsonl": Artifact.SFT_ROWS} if self.write_sft else {})

    def needs(self, context: PlanContext, work: Work) -> Needs:
        """As many pairs a tree as are assumed."""
        trees = work.rows_of(self.trees, TREES_FILE, work.amounts.prompts)
        pairs = trees * Figure(work.amounts.pairs, Basis.ASSUMED)
        disk = (pairs * (2 * _PAIR_BYTES)).value
        rows = {"dpo.jsonl": pairs, "prm.jsonl": pairs}
        return replace(plain_needs(disk, disk), rows=rows, work=f"{pairs.text} pairs of each kind")

    def run(self, context: StageContext) -> None:
        """Makes `dpo.jsonl`, `prm.jsonl`, and `sft.jsonl` where it is wanted, by the prompts' ids.

        Beside them, `counts.json` says why candidates were left out and why trees give no pair,
        `report.json` what other thresholds would give, and `regret.json` how much the trees of each
        kind say is to be gained.

        Raises:
          UserError: there is not one pair of any kind, nor an answer; says what to change.
        """
        trees = sorted(
            (_pairs_of(record, self) for record in read_trees(context.input("trees"))),
            key=lambda tree: tree.id,
        )
        pairs = [pair for tree in trees for pair in tree.dpo]
        above_limit = Counter[str]()
        if self.max_pairs_per_source:
            kept = _thin_sources(trees, self.max_pairs_per_source)
            above_limit["limit"], pairs = len(pairs) - len(kept), kept
        processes = [pair for tree in trees for pair in tree.prm]
        num_steps = sum(tree.num_steps for tree in trees)
        if self.variant == "trajectory" and self.match_steps:
            pairs = thin(pairs, num_steps)
        write_rows(context.folder / "dpo.jsonl", pairs)
        write_rows(context.folder / "prm.jsonl", processes)
        counts = {
            "dpo": sum((tree.dpo_counts for tree in trees), Counter()),
            "prm": sum((tree.prm_counts for tree in trees), Counter()),
        }
        answers: list[SftRow] = []
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
        counts["dpo"] += above_limit
        counts["dpo"].update(f"depth_{pair.depth}" for pair in pairs)
        counts["dpo"].update(f"kind_{pair.kind}" for pair in pairs)
        counts["dpo"]["trees"], counts["dpo"]["pairs"] = len(trees), len(pairs)
        # Where a counter is summed, reasons that never applied are gone.
        counts["trees_without_pairs"] = Counter(tree.no_pairs for tree in trees if tree.no_pairs)
        shown = {name: dict(sorted(counter.items())) for name, counter in counts.items()}
        write_json(context.folder / "counts.json", shown)
        thresholds = self.v0, self.v1, self.min_visits
        report = make_report((tree.gaps for tree in trees), thresholds, self.report)
        write_json(context.folder / REPORT_FILE, report)
        regrets = mean_regrets((tree.kind, tree.regret) for tree in trees)
        write_regrets(context.folder, regrets)
        for name in [name for name in counts if name != "trees_without_pairs"]:
            text = ", ".join(f"{reason} {count}" for reason, count in shown[name].items())
            say(f"{context.name}: {name}: {text}")
        lines = _why(counts["trees_without_pairs"], len(trees))
        proposal = format_proposal(report, context.name)
        for line in (*lines, proposal):
            say(f"{context.name}: {line}")
        if not (pairs or processes or answers):
            raise UserError(f"{lines[0]}; {proposal}")


def _why(reasons: Counter[str], trees: int) -> list[str]:
    """A line for each reason why trees give no pair, the most frequent first."""
    return [
        f"{count} of {trees} trees give no pair: {NO_PAIRS[reason]}"
        for reason, count in sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    ]


@dataclass(frozen=True)
class _TreePairs:
    """What one tree gives."""

    id: str
    kind: str
    source: str
    dpo: list[StepPair]
    dpo_counts: Counter[str]
    prm: list[PathPair]
    prm_counts: Counter[str]
    num_steps: int  # sibling pairs, whatever the variant
    sft: list[SftRow]
    sft_counts: Counter[str]
    has_tokens: bool
    no_pairs: str  # why there are none for DPO, of `NO_PAIRS`; empty: there are some
    gaps: TreeGaps
    regret: float | None


def _pairs_of(record: TreeRecord, settings: Preferences) -> _TreePairs:
    siblings, counts = sibling_pairs(record, settings)
    dpo = siblings
    if settings.variant == "trajectory":
        dpo, counts = trajectory_pairs(record, settings)
    candidates = Candidates(record, settings.max_tokens)
    compared = candidates.siblings()
    are_answers = settings.variant == "trajectory"
    if are_answers:
        compared = candidates.within(candidates.terminals)
    gap = candidates.gap(*compared)
    thresholds = candidates.left_out(*compared, settings.v0, settings.v1, settings.min_visits)
    filters = filtered(record, compared, gap, settings, are_answers)
    answers, sft_counts = (
        sft_answers(record, settings.sft) if settings.write_sft else ([], Counter())
    )
    return _TreePairs(
        record.id,
        record.kind,
        record.source,
        dpo,
        counts,
        *prm_pairs(record, settings.prm),
        num_steps=len(siblings),
        sft=answers,
        sft_counts=sft_counts,
        has_tokens=record.tokens(range(len(record.nodes))) is not None,
        no_pairs="" if dpo else why_no_pairs(candidates.value, gap, thresholds | filters),
        gaps=tree_gaps(record, candidates, compared, filters),
        regret=regret(record),
    )


def _thin_sources(trees: Sequence[_TreePairs], limit: int) -> list[StepPair]:
    """Of the pairs of each source at most `limit`, in the order of the trees."""
    pairs = [pair for tree in trees for pair in tree.dpo]
    numbers: dict[str, list[int]] = {}
    for number, source in enumerate(tree.source for tree in trees for _ in tree.dpo):
        numbers.setdefault(source, []).append(number)
    kept = sorted(number for each in numbers.values() for number in thin(each, limit))
    return [pairs[number] for number in kept]


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
