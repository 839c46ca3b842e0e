"""What each stage of a run cost, by its records: seconds, tokens, and what came of them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stair_jax import storage
from stair_jax.monitoring import METRICS_FILE, SPEED_FILE
from stair_jax.record_log import RecordLog
from stair_jax.reports.records import FinishedStage, RunRecords
from stair_jax.reports.trees import TREES_FILE
from stair_jax.run.stage_times import StageTime, read_times

_TRAINING = ("pretrain", "sft", "dpo", "prm")
_PAIRS = ("dpo", "prm")
_PAUSE = "_seconds"

Row = Mapping[str, Any]


@dataclass(frozen=True)
class StageCost:
    """What a stage cost.

    Attributes:
      stage: its name.
      kind: of the stage.
      seconds: by the wall clock, all starts together; None: not known.
      is_exact: whether these were recorded as a whole; else they are put together from what the
        stage recorded while it ran, without what stood between that.
      compile_seconds: of these, spent on compiling; None: not known.
      devices: number and kind, as in "8 x NVIDIA H100"; "": not known.
      num_devices: their number; None: not known.
      generated: tokens that were sampled.
      prefilled: tokens that were prefilled.
      trained: tokens that were trained on, all epochs together.
      tokens_per_second: while it sampled or trained, without compilation; None: not known.
      mfu: mean model FLOPs utilization of the steps; None: not known.
      units: number of trees, pairs or answers.
      unit: "tree", "pair" or "answer"; "": it makes none of these.
    """

    stage: str
    kind: str
    seconds: float | None = None
    is_exact: bool = False
    compile_seconds: float | None = None
    devices: str = ""
    num_devices: int | None = None
    generated: int = 0
    prefilled: int = 0
    trained: int = 0
    tokens_per_second: float | None = None
    mfu: float | None = None
    units: int = 0
    unit: str = ""

    @property
    def work_seconds(self) -> float | None:
        """Seconds without compilation."""
        if self.seconds is None:
            return None
        return max(0.0, self.seconds - (self.compile_seconds or 0.0))

    @property
    def unit_seconds(self) -> float | None:
        """Seconds of a tree, a pair or an answer, without compilation."""
        return self.work_seconds / self.units if self.work_seconds and self.units else None


def run_costs(run: RunRecords) -> list[StageCost]:
    """The cost of each finished stage, in order.

    Raises:
      UserError: a file is damaged.
    """
    return [_cost(stage) for stage in run.stages]


def _cost(stage: FinishedStage) -> StageCost:
    speed = _rows(stage.folder / SPEED_FILE)
    if stage.kind in _TRAINING:
        found = _training(stage, speed)
    elif stage.kind == "search":
        found = _search(stage, speed)
    elif stage.kind == "evaluate":
        found = _evaluation(speed)
    else:
        found = {}
    return StageCost(stage.name, stage.kind, **{**found, **_times(read_times(stage.folder))})


def _times(times: Sequence[StageTime]) -> dict[str, Any]:
    """What is known of the wall clock and of the devices; nothing of older runs."""
    if not times:
        return {}
    kinds = dict.fromkeys(
        f"{time.devices} x {time.device}" if time.devices else time.device for time in times
    )
    numbers = {time.devices for time in times}
    return {
        "seconds": sum(time.seconds for time in times),
        "compile_seconds": sum(time.compile_seconds for time in times),
        "is_exact": True,
        "devices": ", ".join(kinds),
        "num_devices": numbers.pop() if len(numbers) == 1 else None,
    }


def _training(stage: FinishedStage, speed: Sequence[Row]) -> dict[str, Any]:
    metrics = [row for row in _rows(stage.folder / METRICS_FILE) if "tokens" in row]
    tokens = {row["step"]: row["tokens"] for row in metrics}
    timed = {row["step"]: row["seconds"] for row in speed if "seconds" in row}
    trained = sum(tokens[step] for step in timed if step in tokens)
    steps = sum(timed.values())
    others = sum(
        value for row in speed for name, value in row.items() if name.endswith(_PAUSE) and value
    )
    utilizations = [row["mfu"] for row in speed if row.get("mfu")]
    pairs = sum(row.get("weight") or 0 for row in metrics) if stage.kind in _PAIRS else 0
    return {
        "seconds": steps + others if speed else None,
        "compile_seconds": _sum(speed, "compile_seconds") if speed else None,
        "trained": round(sum(tokens.values())),
        "tokens_per_second": trained / steps if steps else None,
        "mfu": sum(utilizations) / len(utilizations) if utilizations else None,
        "units": round(pairs),
        "unit": "pair" if stage.kind in _PAIRS else "",
    }


def _search(stage: FinishedStage, speed: Sequence[Row]) -> dict[str, Any]:
    """Of a search; its seconds are those at its last tree, where they were not recorded.

    The rate is that of the last start: of the first trees of a start, it is too low.
    """
    trees = list(_tree_costs(stage.folder / TREES_FILE))
    rated = [row for row in speed if row.get("trees_per_hour")]
    seconds = 3600 * rated[-1]["step"] / rated[-1]["trees_per_hour"] if rated else None
    generated = sum(made for made, _ in trees)
    return {
        "seconds": seconds,
        "generated": generated,
        "prefilled": sum(prefilled for _, prefilled in trees),
        "tokens_per_second": generated / seconds if seconds else None,
        "units": len(trees),
        "unit": "tree",
    }


def _tree_costs(path: Path) -> Iterator[tuple[int, int]]:
    """Tokens that were sampled and prefilled for each tree."""
    for record in RecordLog(path):
        yield record.get("generated_tokens") or 0, record.get("prefilled_tokens") or 0


def _evaluation(speed: Sequence[Row]) -> dict[str, Any]:
    seconds, generated = _sum(speed, "seconds"), _sum(speed, "generated_tokens")
    return {
        "seconds": seconds or None,
        "generated": round(generated),
        "tokens_per_second": generated / seconds if seconds else None,
        "units": round(_sum(speed, "answers")),
        "unit": "answer",
    }


def _sum(rows: Iterable[Row], name: str) -> float:
    return float(sum(row.get(name) or 0 for row in rows))


def _rows(path: Path) -> list[dict[str, Any]]:
    return storage.read_jsonl(path) if path.is_file() else []
