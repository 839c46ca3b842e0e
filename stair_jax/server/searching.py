"""Answers that a test-time search finds, as the tasks of a request."""

from dataclasses import dataclass, replace
from typing import Any

from stair_jax.decoding.task import GatherTask, Task, TaskGroup
from stair_jax.inference.answers import Answered
from stair_jax.inference.step_scores import StepScore, StepScores
from stair_jax.run.answer_models import AnswerSettings
from stair_jax.run.answering import Answerer
from stair_jax.run.answering_thread import Make
from stair_jax.server.bodies import SamplingFields
from stair_jax.server.errors import ApiError
from stair_jax.server.prompts import ChatPrompt
from stair_jax.server.search_names import Search
from stair_jax.server.serving import Serving, new_seed


@dataclass(frozen=True)
class Found:
    """What a search has found.

    Attributes:
      answered: the answer.
      steps: of each of `answered.candidates` the scores of its steps; () where they were not asked
        for, or no reward model guides the search.
    """

    answered: Answered
    steps: tuple[tuple[StepScore, ...], ...] = ()


class SearchTask(Task[Found]):
    """A search, and then the scores of the steps of its candidates, if they are wanted."""

    def __init__(
        self, answerer: Answerer, search: Task[Answered], prompt: ChatPrompt, scores: bool
    ):
        """A task that has asked nothing yet.

        Args:
          answerer: the model.
          search: of `Answerer.task`.
          prompt: what is answered.
          scores: whether the steps of the candidates are scored by the reward model.
        """
        self._answerer, self._prompt, self._scores = answerer, prompt, scores
        self._search = search
        self._group = TaskGroup()

    def start(self) -> list[Any]:
        """The first requests of the search."""
        return self._after(self._group.add("search", self._search))

    def receive(self, completion: Any) -> list[Any]:
        """Sends a completion on."""
        return self._after(self._group.receive(completion))

    def close(self) -> None:
        """Closes what is not done."""
        self._group.close()

    def _after(self, requests: list[Any]) -> list[Any]:
        if not self._group.done:
            return requests
        answered: Answered = self._group.results["search"]
        if self._scores and "scores" not in self._group.results:
            requests = requests + self._group.add("scores", self._scoring(answered))
            if not self._group.done:
                return requests
        steps = self._group.results.get("scores", ())
        self.result = Found(answered, tuple(map(tuple, steps)))
        return requests

    def _scoring(self, answered: Answered) -> Task[list[list[StepScore]]]:
        tokenizer, tokens = self._answerer.files.tokenizer, self._prompt.tokens
        return GatherTask(
            StepScores(tokenizer, tokens, candidate.tokens) for candidate in answered.candidates
        )


def search_settings(body: SamplingFields, search: Search, serving: Serving) -> AnswerSettings:
    """How a search samples: as the server does, but for what the request says.

    Temperature 0 says nothing here, as all candidates would be alike: clients that measure send it
    with each request, whatever the model's name is.
    """
    settings: AnswerSettings = search.settings(serving.defaults)
    if body.temperature:
        settings = replace(settings, temperature=body.temperature, top_p=1.0, top_k=0)
    if body.top_p is not None:
        settings = replace(settings, top_p=body.top_p)
    if body.top_k is not None:
        settings = replace(settings, top_k=max(0, body.top_k))
    return settings


def limit_tokens(settings: AnswerSettings, most: int | None) -> AnswerSettings:
    """The same for answers of at most so many tokens; None: those of the settings."""
    if most is None:
        return settings
    answer = min(most, settings.max_answer_tokens)
    return replace(
        settings,
        max_answer_tokens=answer,
        max_step_tokens=min(settings.max_step_tokens, answer),
    )


def search_choices(
    prompt: ChatPrompt, search: Search, settings: AnswerSettings, seed: int | None, count: int
) -> list[Make]:
    """Tasks of so many searches of one prompt, whose results are `Found`.

    Args:
      prompt: what is answered.
      search: that is asked for.
      settings: of `search_settings`.
      seed: of the request; None: a random one.
      count: searches.
    """
    drawn = new_seed(seed)

    def make(answerer: Answerer, number: int) -> Task[Found]:
        question = replace(prompt.question, id=f"{prompt.question.id}-{number}")
        own = replace(settings, seed=drawn)
        task = answerer.task(question, prompt.tokens, own)
        return SearchTask(answerer, task, prompt, search.details and search.method.is_guided)

    return [lambda answerer, number=number: make(answerer, number) for number in range(count)]  # type: ignore[misc]


def check_search(
    search: Search, settings: AnswerSettings, body: SamplingFields, prefill: str, serving: Serving
) -> None:
    """Raises an ApiError where a request cannot be answered by a search.

    Args:
      search: that is asked for.
      settings: of `search_settings`.
      body: of the request.
      prefill: the beginning of the answer.
      serving: the model.
    """
    serving.answerer.check_method(str(search.method))
    if body.stops:
        raise ApiError(400, f"stop would cut what {search.method} has chosen: leave it out", "stop")
    if prefill:
        raise ApiError(
            400,
            f"{search.method} begins its answers itself: end messages with the user's",
            "messages",
        )
    most, each = serving.settings.max_choices, search.method.num_candidates(settings)
    if each * body.num_choices > most:
        raise ApiError(
            400,
            f"{body.num_choices} x {search.method} samples {each * body.num_choices} answers side "
            f"by side, and the server allows {most}: ask for less, or start it with a larger "
            "--max-choices",
            "n" if body.num_choices > 1 else "model",
        )


def search_details(found: Found, search: Search, serving: Serving) -> dict[str, Any]:
    """The field `search` of a choice: the candidates, their scores and those of their steps."""
    decode, answered = serving.tokenizer.decode, found.answered
    candidates = []
    for number, candidate in enumerate(answered.candidates):
        steps = found.steps[number] if found.steps else ()
        candidates.append(
            {
                "text": decode(candidate.tokens),
                "score": finite(candidate.score),
                "step_scores": [finite(step.score) for step in steps],
                "tokens": len(candidate.tokens),
                "chosen": candidate.tokens == answered.tokens,
            }
        )
    return {
        "method": str(search.method),
        "candidates": candidates,
        "score": answered.score,
        "tokens": answered.generated_tokens,
        "unscored": answered.unscored,
    }


def finite(score: float) -> float | None:
    """A score as JSON has it; None: it is missing."""
    return score if abs(score) < float("inf") else None
