"""Data of the pocket world: SFT examples, search prompts of each iteration, the evaluation set."""

from dataclasses import dataclass

from stair_jax import storage
from stair_jax.pocket import datasets
from stair_jax.pocket.world import Split
from stair_jax.settings import read_settings
from stair_jax.stages.context import StageContext

INPUTS: tuple[str, ...] = ()
PROCESSES = "first"


@dataclass(frozen=True)
class PocketSettings:
    """Settings of `pocket`.

    Attributes:
      num_sft: prompts of the SFT data, half safety, half helpfulness.
      careless: share of the harmless recipes whose risk the teacher judges by the tone.
      num_replay: examples of the base's skills in the SFT data.
      num_search: prompts an iteration, half safety, half helpfulness.
      iterations: how many sets of search prompts.
      split: items and held-out families of the evaluation set: "test", or "development" for tuning.
      per_family: hazardous requests in each held-out family of the evaluation set.
    """

    num_sft: int = 2000
    careless: float = 0.5
    num_replay: int = 400
    num_search: int = 160
    iterations: int = 3
    split: Split = "test"
    per_family: int = 60


def run(context: StageContext) -> None:
    """Writes `sft.jsonl`, `system1.jsonl`, `prompts1.jsonl` ..., `evaluation.jsonl`."""
    settings = read_settings(PocketSettings, context.settings, context.name)
    structured, direct = datasets.sft_rows(
        context.seed, settings.num_sft, settings.careless, settings.num_replay
    )
    storage.write_jsonl(context.folder / "sft.jsonl", structured)
    storage.write_jsonl(context.folder / "system1.jsonl", direct)
    seen = [row["prompt"] for row in structured]
    searches = datasets.search_rows(context.seed, settings.num_search, settings.iterations, seen)
    for iteration, rows in enumerate(searches, start=1):
        storage.write_jsonl(context.folder / f"prompts{iteration}.jsonl", rows)
    storage.write_jsonl(
        context.folder / "evaluation.jsonl",
        datasets.evaluation_rows(settings.split, settings.per_family),
    )
