"""Data of the pocket world: SFT examples, search prompts of each iteration, the evaluation set."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from stair_jax import storage
from stair_jax.data.records import write_rows
from stair_jax.planning.figures import Figure
from stair_jax.planning.needs import Needs, Work, plain_needs
from stair_jax.pocket import datasets, offline_pairs
from stair_jax.pocket.world import Split
from stair_jax.run.context import PlanContext, StageContext
from stair_jax.run.stage import Artifact, Stage
from stair_jax.settings import setting

_ALL_PROMPTS = "prompts.jsonl"
# Files of pairs, and of how many kinds they hold pairs.
_PAIRS = {"helpfulness_pairs.jsonl": 1, "safety_pairs.jsonl": 1, "pairs.jsonl": 2}


@dataclass(frozen=True)
class Pocket(Stage):
    """Settings of `pocket`.

    Attributes:
      num_sft: prompts of the SFT data, half safety, half helpfulness.
      careless: share of the harmless recipes whose risk the teacher judges by the tone.
      num_replay: examples of the base's skills in the SFT data.
      num_search: prompts per iteration, half safety, half helpfulness.
      iterations: how many sets of search prompts.
      split: items and held-out families of the evaluation set: "test", or "development" for tuning.
      per_family: hazardous requests in each held-out family of the evaluation set.
      lookalikes: share of the SFT and search prompts of the kind "safety" that are harmless;
        without any, SFT teaches to refuse by the wording.
      contrasts: share of the SFT and search prompts of either kind that are contrast data: harmless
        requests that sound dangerous, and hazards in the same words.
      wrong_ratings: share of the ratings among the replayed examples whose conclusion is turned
        round, for a judge that errs.
      forced_starts: share of the search prompts whose answer begins wrong and has to recover.
      labels: whether each search prompt has its `label`, "safe" or "unsafe".
      all_prompts: also write the search prompts of all iterations into one file.
      num_pairs: pairs of direct answers of each kind, about items of the SFT data, for DPO without
        a search.
    """

    PROCESSES: ClassVar[Literal["all", "first"]] = "first"

    num_sft: int = setting(2000, least=0, most=10**7)
    careless: float = setting(0.5, least=0, most=1)
    num_replay: int = setting(400, least=0, most=10**7)
    num_search: int = setting(160, least=1, most=10**7)
    iterations: int = setting(3, least=0, most=1000)
    split: Split = "test"
    per_family: int = setting(60, least=1, most=10**6)
    lookalikes: float = setting(datasets.LOOKALIKES, least=0, most=1, absent=datasets.LOOKALIKES)
    contrasts: float = setting(0.0, least=0, most=1, absent=0.0)
    wrong_ratings: float = setting(0.0, least=0, most=1, absent=0.0)
    forced_starts: float = setting(0.0, least=0, most=1, absent=0.0)
    labels: bool = setting(False, absent=False)
    all_prompts: bool = setting(False, absent=False)
    num_pairs: int = setting(0, least=0, most=10**7, absent=0)

    def makes(self) -> Mapping[str, Artifact]:
        """Examples of both kinds, prompts of each iteration, the evaluation set."""
        prompts = [f"prompts{number}.jsonl" for number in range(1, self.iterations + 1)]
        return {
            "sft.jsonl": Artifact.SFT_ROWS,
            "system1.jsonl": Artifact.SFT_ROWS,
            **dict.fromkeys(prompts, Artifact.PROMPTS),
            **({_ALL_PROMPTS: Artifact.PROMPTS} if self.all_prompts else {}),
            "evaluation.jsonl": Artifact.EVALUATION,
            **(dict.fromkeys(_PAIRS, Artifact.STEP_PAIRS) if self.num_pairs else {}),
        }

    def needs(self, context: PlanContext, work: Work) -> Needs:
        """It hands on as many rows as its settings say."""
        counts = {
            "sft.jsonl": self.num_sft + self.num_replay,
            "system1.jsonl": self.num_sft + self.num_replay,
            **{f"prompts{i}.jsonl": self.num_search for i in range(1, self.iterations + 1)},
            _ALL_PROMPTS: self.num_search * self.iterations,
            **{file: self.num_pairs * kinds for file, kinds in _PAIRS.items()},
        }
        rows = {file: Figure(counts[file]) for file in self.makes() if file in counts}
        return replace(plain_needs(0, 0, self.amount()), rows=rows)

    def run(self, context: StageContext) -> None:
        """Writes `sft.jsonl`, `system1.jsonl`, `prompts1.jsonl` ..., `evaluation.jsonl`.

        With `all_prompts` also `prompts.jsonl`; with `num_pairs` also `helpfulness_pairs.jsonl`,
        `safety_pairs.jsonl`, and both in `pairs.jsonl`.
        """
        structured, direct = datasets.sft_rows(
            context.seed,
            self.num_sft,
            self.careless,
            self.num_replay,
            self.contrasts,
            self.wrong_ratings,
            self.lookalikes,
        )
        write_rows(context.folder / "sft.jsonl", structured)
        write_rows(context.folder / "system1.jsonl", direct)
        seen = [row.prompt for row in structured]
        searches = datasets.search_rows(
            context.seed,
            self.num_search,
            self.iterations,
            seen,
            self.contrasts,
            self.forced_starts,
            self.labels,
            self.lookalikes,
        )
        for iteration, rows in enumerate(searches, start=1):
            write_rows(context.folder / f"prompts{iteration}.jsonl", rows)
        if self.all_prompts:
            write_rows(context.folder / _ALL_PROMPTS, itertools.chain.from_iterable(searches))
        storage.write_jsonl(
            context.folder / "evaluation.jsonl",
            datasets.evaluation_rows(self.split, self.per_family),
        )
        if self.num_pairs:
            self._write_pairs(context)

    def _write_pairs(self, context: StageContext) -> None:
        helpful = offline_pairs.helpfulness_pairs(context.seed, self.num_pairs)
        safe = offline_pairs.safety_pairs(context.seed, self.num_pairs)
        for file, pairs in zip(_PAIRS, (helpful, safe, helpful + safe), strict=True):
            write_rows(context.folder / file, pairs)

    def amount(self) -> str:
        """Prompts."""
        return f"{self.num_sft} SFT prompts, {self.iterations} x {self.num_search} to search"
