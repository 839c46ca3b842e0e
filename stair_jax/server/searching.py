"""Answers that a test-time search finds, as the tasks of a request."""

from dataclasses import dataclass, replace
from typing import Any

from stair_jax.decoding.task import GatherTask, Task, TaskGroup
from stair_jax.errors import UserError
from stair_jax.inference.answers import Answered
from stair_jax.inference.methods import Method
from stair_jax.inference.step_scores import StepScore, StepScores
from stair_jax.run.answer_models import AnswerSettings
from stair_jax.run.answering import Answerer
from stair_jax.run.answering_thread import Make
from stair_jax.server.bodies import SamplingFields
from stair_jax.server.errors import ApiError
from stair_jax.server.prompts import ChatPrompt
from stair_jax.server.search_names import Search, SearchFields, choose_search
from stair_jax.server.serving import Serving, new_seed
from stair_jax.settings import build


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


def chosen_search(
    serving: Serving, named: Method | None, fields: dict[str, Any] | None
) -> Search | None:
    """The search that a request asks for; None: none.

    Args:
      serving: the model.
      named: in the name of the model.
      fields: the field `search` of the body.

    Raises:
      ApiError: name and field contradict each other, or there is no such search.
    """
    try:
        written = None if fields is None else build(SearchFields, fields, "search")
        return choose_search(named, written, serving.defaults)
    except UserError as error:
        raise ApiError(400, str(error), "search") from error


def search_settings(
    body: SamplingFields, most: int | None, search: Search, serving: Serving
) -> AnswerSettings:
    """How a search samples: as the server does, but for what the request says.

    Temperature 0 says nothing here, as all candidates would be alike: clients that measure send it
    with each request, whatever the model's name is.

    Args:
      body: of the request.
      most: tokens of an answer; None: those of the server.
      search: that is asked for.
      serving: the model.
    """
    settings: AnswerSettings = search.settings(serving.defaults)
    if body.temperature:
        settings = replace(settings, temperature=body.temperature, top_p=1.0, top_k=0)
    if body.top_p is not None:
        settings = replace(settings, top_p=body.top_p)
    if body.top_k is not None:
        settings = replace(settings, top_k=max(0, body.top_k))
    answer = min(most or settings.max_answer_tokens, serving.max_length)
    step = min(settings.max_step_tokens, answer)
    return replace(settings, max_answer_tokens=answer, max_step_tokens=step)


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
    search: Search, body: SamplingFields, prompt: ChatPrompt, serving: Serving
) -> None:
    """Raises an ApiError where a request cannot be answered by a search."""
    try:
        serving.answerer.check_method(str(search.method))
    except UserError as error:
        raise ApiError(400, str(error), "model") from error
    if prompt.prefill:
        raise ApiError(
            400,
            f"{search.method} begins its answers itself: end messages with the user's",
            "messages",
        )
    most = serving.settings.max_choices
    count = search.method.num_candidates(serving.defaults) * body.num_choices
    if count > most:
        raise ApiError(
            400,
            f"n is {body.num_choices}, and {search.method} samples {count} answers side by side: "
            f"the server allows {most}, by --max-choices",
            "model",
        )


def search_details(found: Found, search: Search, serving: Serving) -> dict[str, Any]:
    """The field `search` of a choice: the candidates, their scores and those of their steps."""
    decode, answered = serving.tokenizer.decode, found.answered
    candidates = []
    # The first of several that say the same.
    chosen = [candidate.tokens for candidate in answered.candidates].index(answered.tokens)
    for number, candidate in enumerate(answered.candidates):
        steps = found.steps[number] if found.steps else ()
        candidates.append(
            {
                "text": decode(candidate.tokens),
                "score": finite(candidate.score),
                "step_scores": [finite(step.score) for step in steps],
                "tokens": len(candidate.tokens),
                "chosen": number == chosen,
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
