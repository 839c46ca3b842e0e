"""How test-time search has its candidates scored: one scoring task for those of a prompt."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from stair_jax.data.records import Prompt
from stair_jax.decoding.driver import Driver, run_tasks
from stair_jax.decoding.task import Service, Task
from stair_jax.inference.candidates import Candidate, Scored

Score = Callable[[Sequence[Candidate]], list[Scored]]


class PromptScorer(Protocol):
    """Scores the candidates of one prompt."""

    def score(self, candidates: Sequence[Candidate]) -> Task[list[Scored]]:
        """A task whose result has one score per candidate, in their order."""

    def close(self) -> None:
        """Gives back what is kept for the prompt."""


class Scorer(Protocol):
    """Scores candidates: a reward model, or the model's own judgement.

    Attributes:
        services: services that its tasks ask beside the engine, by name; new ones each time.
    """

    @property
    def services(self) -> Mapping[str, Service]: ...

    def open(self, prompt: Prompt) -> PromptScorer:
        """What scores the candidates of a prompt; to be closed."""


class FunctionScorer:
    """A plain function as a scorer: it is called with all candidates of a prompt at once."""

    def __init__(self, score: Score):
        """A scorer that calls `score`."""
        self.services: Mapping[str, Service] = {}
        self._score = score

    def open(self, prompt: Prompt) -> "FunctionScorer":
        """The scorer itself, which keeps nothing for a prompt."""
        return self

    def score(self, candidates: Sequence[Candidate]) -> Task[list[Scored]]:
        """A task that is done at once."""
        return _Known(lambda: self._score(candidates))

    def close(self) -> None:
        """Does nothing."""


class _Known(Task[list[Scored]]):
    def __init__(self, compute: Callable[[], list[Scored]]):
        self._compute = compute

    def start(self) -> list[Any]:
        self.result = self._compute()
        return []

    def receive(self, completion: Any) -> list[Any]:
        return []  # nothing was asked


def score_candidates(
    engine: Service, scorer: Scorer, candidates: Sequence[Candidate]
) -> list[Scored]:
    """Scores candidates of any prompts over an idle engine.

    Returns:
      one score per candidate, in their order.
    """
    driver = Driver(engine, scorer.services)
    opened = [scorer.open(candidate.prompt) for candidate in candidates]
    try:
        tasks = [one.score([each]) for one, each in zip(opened, candidates, strict=True)]
        return [scored for (scored,) in run_tasks(driver, tasks)]
    finally:
        for one in opened:
            one.close()


def as_scorer(score: Score | Scorer) -> Scorer:
    """A scorer as it is, or one that calls a function."""
    return score if hasattr(score, "open") else FunctionScorer(score)  # type: ignore[arg-type,return-value]
