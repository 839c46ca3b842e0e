"""Which category a prompt belongs to, and so which policy it is shown with."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from stair_jax.data.records import KINDS, SynthesisPrompt
from stair_jax.decoding.driver import Driver, run_tasks
from stair_jax.decoding.requests import MAX_SCORE_IDS, Completion, Request
from stair_jax.decoding.task import Task
from stair_jax.errors import UserError, did_you_mean
from stair_jax.search.judging.templates import common_start
from stair_jax.synthesis.policies import about
from stair_jax.synthesis.settings import CategoriesBy
from stair_jax.text.chat import encode_prompt
from stair_jax.text.policies import GENERAL
from stair_jax.text.tokenizer import Tokenizer

_QUESTION = """\
Below are a list of topics and the request of a user.

### Topics
{topics}

### Request
{prompt}

### Question
To which of the topics does the request belong? Reply with its name alone."""
_LEAD_IN = "The topic is"  # what the reply begins with, before a name


class Categories(Protocol):
    """Finds the category of a prompt."""

    def task(self, prompt: SynthesisPrompt) -> Task[str | None]:
        """A task whose result is the category; "": there are none; None: the prompt is too long."""


class Known(Task[str | None]):
    """A category that is known at once."""

    def __init__(self, category: str):
        """Nothing is asked."""
        self._category = category

    def start(self) -> list[Request]:
        """Sets the result."""
        self.result = self._category
        return []

    def receive(self, completion: Completion) -> list[Request]:
        """Never called: nothing is asked."""
        raise AssertionError("nothing was asked")


class KnownCategories:
    """Of prompts whose row says it, by its column or its kind."""

    def __init__(self, by: CategoriesBy, policies: Mapping[str, str]):
        """Categories without any policy are none.

        Args:
          by: "column" or "kind".
          policies: texts by category; empty: no prompt has a category.
        """
        self._by, self._policies = by, policies

    def task(self, prompt: SynthesisPrompt) -> Task[str | None]:
        """See `Categories.task`."""
        return Known(self.of(prompt))

    def of(self, prompt: SynthesisPrompt) -> str:
        """The category of a prompt.

        Raises:
          UserError: there is no policy for it.
        """
        if not self._policies:
            return ""
        own = prompt.kind if self._by == "kind" else prompt.category
        if own and own in self._policies:
            return own
        if GENERAL in self._policies and (self._by == "kind" or not own):
            return GENERAL
        if not own:
            raise UserError(
                f"the prompt {prompt.id!r} has no column 'category': add it, set policies.general, "
                "or categories='kind' or 'model'"
            )
        raise UserError(
            f"the prompt {prompt.id!r} is of the category {own!r}, which has no policy: "
            f"{did_you_mean(own, self._policies)}"
        )


def check_kinds(kinds: Sequence[str], names: Collection[str]) -> None:
    """Checks that each kind of prompt has a policy, where the kind is the category.

    Raises:
      UserError: one has none.
    """
    lacking = [kind for kind in kinds or KINDS if {kind, GENERAL}.isdisjoint(names)]
    if lacking:
        raise UserError(
            f"categories is 'kind', and there is no policy for {lacking[0]!r}: set "
            f"policies.{lacking[0]} or policies.general"
        )


class ChosenCategories:
    """The model itself chooses: the likeliest first token among the names of a list of topics.

    Relative to their log-probs without any request, since models have favourites (Zhao et al.,
    "Calibrate before use", ICML 2021). Names and not letters: small models do not tie a letter to
    what stands behind it (Robinson et al., ICLR 2023).
    """

    def __init__(self, tokenizer: Tokenizer, policies: Mapping[str, str], driver: Driver):
        """Asks once, without a request.

        Args:
          tokenizer: of the model.
          policies: texts by category, whose first lines are the topics, "Name: what it is about".
          driver: without tasks.

        Raises:
          UserError: two topics have the same first token.
        """
        self._tokenizer, self._names = tokenizer, list(policies)
        self._topics = "\n".join(f"- {about(policy)}" for policy in policies.values())
        topics = [about(policy).partition(":")[0].strip() for policy in policies.values()]
        labels = [tuple(tokenizer.encode_text(f" {topic.lower()}")) for topic in topics]
        shared = common_start(labels) if len(labels) > 1 else ()  # such as a space
        self._lead_in = (*tokenizer.encode_text(_LEAD_IN), *shared)
        self.ids = [label[len(shared)] for label in labels if len(label) > len(shared)]
        if len(set(self.ids)) < len(topics):
            raise UserError(
                f"the model cannot tell {', '.join(topics)} apart by their first tokens: begin the "
                "first lines of the policies with different words, or set categories='column'"
            )
        (self._prior,) = run_tasks(driver, [_Scores(self.ids, self.tokens("N/A"))])

    def task(self, prompt: SynthesisPrompt) -> Task[str | None]:
        """See `Categories.task`."""
        return _Choice(self, self.tokens(prompt.to_prompt().conversation))

    def tokens(self, request: str) -> list[int]:
        """Token ids of the question about a request."""
        before, after = _QUESTION.replace("{topics}", self._topics).split("{prompt}")
        asked = encode_prompt(self._tokenizer, f"{before}{request.strip()}{after}")
        return [*asked, *self._lead_in]

    def choose(self, scores: Sequence[float]) -> str:
        """The category with the largest gain over its prior; the first of several."""
        gains = [score - prior for score, prior in zip(scores, self._prior, strict=True)]
        return self._names[max(range(len(gains)), key=gains.__getitem__)]


class _Scores(Task[list[float]]):
    """Log-probs of labels, in requests of as many as an engine scores at once."""

    def __init__(self, ids: Sequence[int], tokens: Sequence[int]):
        self._ids, self._tokens = ids, tuple(tokens)
        self._scores: dict[int, Sequence[float]] = {}

    def start(self) -> list[Request]:
        self._starts = range(0, len(self._ids), MAX_SCORE_IDS)
        return [
            Request((start,), self._tokens, score_ids=tuple(self._ids[start:][:MAX_SCORE_IDS]))
            for start in self._starts
        ]

    def receive(self, completion: Completion) -> list[Request]:
        assert isinstance(completion.id, tuple)
        (start,) = completion.id
        count = len(self._ids[start:][:MAX_SCORE_IDS])
        self._scores[start] = completion.scores or (-math.inf,) * count  # no room
        if len(self._scores) == len(self._starts):
            self.result = [score for start in self._starts for score in self._scores[start]]
        return []


class _Choice(Task[str | None]):
    """The category of one prompt."""

    def __init__(self, categories: ChosenCategories, tokens: Sequence[int]):
        self._categories, self._scores = categories, _Scores(categories.ids, tokens)

    def start(self) -> list[Request]:
        return self._scores.start()

    def receive(self, completion: Completion) -> list[Request]:
        requests = self._scores.receive(completion)
        if self._scores.done:
            scores = self._scores.result
            is_there = all(map(math.isfinite, scores))
            self.result = self._categories.choose(scores) if is_there else None
        return requests
