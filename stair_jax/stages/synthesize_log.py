"""What `synthesize` writes down while it runs: answers, metrics, samples, progress."""

import time
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from stair_jax.data.records import SynthesisPrompt
from stair_jax.data.row_file import RowFile
from stair_jax.decoding.requests import EngineStats
from stair_jax.endpoints.service import EndpointService
from stair_jax.evaluation.shards import Shards
from stair_jax.monitoring import Metrics, Progress
from stair_jax.parallel.compile_clock import compile_seconds
from stair_jax.parallel.processes import collectives
from stair_jax.run.context import StageContext
from stair_jax.stages.synthesize_parts import answer_sample, prompt_metrics
from stair_jax.synthesis.records import PromptAnswers

if TYPE_CHECKING:
    from stair_jax.stages.synthesize import Synthesize


class AnswerLog:
    """Puts finished prompts on the disk, with a line of metrics, samples and progress."""

    def __init__(
        self,
        context: StageContext,
        stage: "Synthesize",
        prompts: RowFile[SynthesisPrompt],
        shards: Shards,
        stats: EngineStats,
        endpoints: Collection[EndpointService] = (),
    ):
        """Looks at what is there.

        Args:
          context: of the stage.
          stage: its settings.
          prompts: all of them.
          shards: of their answers, with the same ids.
          stats: of the engine, while it works.
          endpoints: that are asked, and cost money.
        """
        self._stage, self._prompts, self._shards = stage, prompts, shards
        self._stats, self._endpoints = stats, endpoints
        self._first = self._done = len(shards.done) // collectives.num_processes()
        self._kept = 0
        silent = not collectives.is_main()
        total = self._done + len(shards.left())
        self._progress = Progress(
            context.name, total, "prompts", self._done, silent, compile_seconds
        )
        self._metrics = Metrics(context.folder, self._done or -1, silent=silent)
        self._start, self._compiled = time.monotonic(), compile_seconds()

    def __enter__(self) -> "AnswerLog":
        """The log itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        """Closes the files; says what was done, if all was."""
        self._metrics.close()
        if kind is None:
            self._progress.close()

    def write(self, found: Sequence[PromptAnswers]) -> None:
        """Samples first: those of answers that a kill then loses are dropped."""
        places = [self._prompts.ids.places(each.id)[0] for each in found]
        for number, (place, each) in enumerate(zip(places, found, strict=True), self._done + 1):
            self._sample(number, place, each)
        self._shards.extend((each.id, [each.to_dict()]) for each in found)
        for place, each in zip(places, found, strict=True):
            self._done += 1
            values = prompt_metrics(self._stage, self._prompts[place], each)
            self._kept += int(values["kept"])
            self._metrics.write(self._done, values, clock=self._clock())
        self._progress.update(self._done, kept=self._kept, **self._spent())

    def _sample(self, step: int, place: int, found: PromptAnswers) -> None:
        every = self._stage.samples_every
        if every and place % every == 0:
            sample = answer_sample(self._stage, self._prompts[place], found)
            self._metrics.write_samples(step, [sample] if sample else [])

    def _spent(self) -> dict[str, Any]:
        """Calls, and money where the prices are known, with those of earlier starts."""
        if not self._endpoints:
            return {}
        spent: dict[str, Any] = {"calls": sum(each.calls for each in self._endpoints)}
        if any(each.settings.input_price is not None for each in self._endpoints):
            spent["cost"] = f"{sum(each.cost for each in self._endpoints):.4g}"
        return spent

    def _clock(self) -> dict[str, float]:
        seconds = time.monotonic() - self._start - (compile_seconds() - self._compiled)
        seconds = max(seconds, 1e-9)
        return {
            "seconds": seconds,
            "prompts_per_hour": 3600 * (self._done - self._first) / seconds,
            "tokens_per_second": self._stats.generated / seconds,
            "hit_rate": self._stats.hit_rate,
            "occupancy": self._stats.occupancy,
        }
