"""One prompt from its category to judged answers, as a task; none waits for another prompt."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from stair_jax.data.records import SynthesisPrompt
from stair_jax.decoding.requests import Handle, num_tokens, request_key
from stair_jax.decoding.task import Task, TaskGroup
from stair_jax.search.judging.judges import Judge, Judgement, Judging
from stair_jax.search.judging.prefixes import JudgePrefixes, Prefix
from stair_jax.search.search_context import Reward
from stair_jax.synthesis.categories import Categories
from stair_jax.synthesis.duplicates import near_duplicates
from stair_jax.synthesis.faults import find_fault
from stair_jax.synthesis.records import (
    DUPLICATE,
    JudgedAnswer,
    PromptAnswers,
    Writing,
    Written,
)
from stair_jax.synthesis.settings import WritingSettings
from stair_jax.synthesis.writers import TOO_LONG, Writer
from stair_jax.text import steps

_CATEGORY, _WRITING, _JUDGING = "category", "writing", "judging"
GIVEN = -1  # number of the answer that the prompt's row brings
REPAIRS = "repairs"  # in the counts of a prompt


@dataclass(frozen=True)
class Means:
    """What the tasks of all prompts share.

    Attributes:
      categories: of the prompts.
      writer: of the answers.
      judge: of the same.
      prefixes: what judge prompts begin with, kept in the cache.
      reward: (helpfulness, safety) -> R.
      settings: how answers are written.
      seed: of the run.
      judges_given: whether the answers of the prompts' rows are judged too.
    """

    categories: Categories
    writer: Writer
    judge: Judge
    prefixes: JudgePrefixes
    reward: Reward
    settings: WritingSettings
    seed: int
    judges_given: bool = False


class PromptTask(Task[PromptAnswers]):
    """Finds the category of a prompt, has its answers written, and those that may be kept judged.

    Its result depends on nothing that runs beside it.
    """

    def __init__(self, means: Means, prompt: SynthesisPrompt):
        """A task that has asked nothing yet."""
        self._means, self._row, self._prompt = means, prompt, prompt.to_prompt()
        self._group = TaskGroup()
        self._answers: dict[int, JudgedAnswer] | None = None
        self._handles: Mapping[Prefix, Handle] = {}
        self._generated = 0

    def start(self) -> list[Any]:
        """The first requests."""
        return self._go_on([])

    def receive(self, completion: Any) -> list[Any]:
        """Sends a completion on; goes on to the next part of the work where one is done."""
        self._generated += num_tokens(completion)
        return self._go_on(self._group.receive(completion))

    def close(self) -> None:
        """Gives back what is kept of the prompt."""
        self._group.close()
        self._means.prefixes.close(self._handles)
        self._handles = {}

    def _go_on(self, requests: list[Any]) -> list[Any]:
        while self._group.done and not self.done:
            requests = [*requests, *self._next_part()]
        return requests

    def _next_part(self) -> list[Any]:
        found, means = self._group.results, self._means
        if _CATEGORY not in found:
            return self._group.add(_CATEGORY, means.categories.task(self._row))
        if found[_CATEGORY] is None:
            self._answers = {}
            self._end(TOO_LONG)
            return []
        if _WRITING not in found:
            return self._group.add(_WRITING, means.writer.task(self._row, found[_CATEGORY]))
        if self._answers is None:
            return self._judge(found[_WRITING])
        self._end(found[_WRITING].skipped)
        return []

    def _judge(self, writing: Writing) -> list[Any]:
        """Starts the judging of the answers that have a chance to be kept."""
        means = self._means
        start, malformed = self._row.start_text, means.judge.malformed_reward
        self._answers = sift(writing.answers, means.settings, malformed, start)
        if means.judges_given and self._row.answer is not None and not writing.skipped:
            self._answers[GIVEN] = given_answer(self._row.answer, means.settings, start)
        judged = [each for each in self._answers.values() if not each.reason]
        if judged:
            self._handles = means.prefixes.open(self._prompt)
        return [
            request
            for each in judged
            for request in self._group.add((_JUDGING, each.number), self._judging(each))
        ]

    def _judging(self, answer: JudgedAnswer) -> Judging:
        prompt, means = self._prompt, self._means
        text = self._row.start_text + answer.text
        path = (means.seed, prompt.id, "synthesize", answer.number, "judge")
        return means.judge.requests(
            prompt.conversation,
            prompt.kind,
            steps.final_answer(text),
            partial(request_key, *path),
            parents=self._handles,
            output=steps.output_text(text),
            text=text,
            reference=prompt.reference,
            label=prompt.label,
        )

    def _end(self, skipped: str) -> None:
        assert self._answers is not None
        counts: Counter[str] = Counter()
        if (writing := self._group.results.get(_WRITING)) and writing.repairs:
            counts[REPAIRS] = writing.repairs
        for (_, number), judgement in self._judgements():
            counts["unreadable"] += judgement.unreadable
            counts["closings"] += judgement.closings
            self._answers[number] = with_scores(
                self._answers[number], judgement, self._means.reward
            )
        given = self._answers.pop(GIVEN, None)
        self.result = PromptAnswers(
            self._prompt.id,
            tuple(self._answers[number] for number in sorted(self._answers)),
            self._group.results[_CATEGORY] or "",
            skipped,
            given,
            dict(sorted(counts.items())),
            self._generated,
        )

    def _judgements(self) -> list[tuple[Any, Judgement]]:
        found = self._group.results.items()
        return [(name, each) for name, each in found if isinstance(each, Judgement)]


def sift(
    written: tuple[Written, ...],
    settings: WritingSettings,
    malformed_reward: float | None,
    start: str = "",
) -> dict[int, JudgedAnswer]:
    """The answers by number, with the reason why some are not judged.

    Args:
      written: by number.
      settings: the format that they must have, and when they are alike.
      malformed_reward: of answers that are cut, empty or not of that format.
      start: what each of them was made to begin with.
    """
    found = {}
    for number, answer in enumerate(written):
        reason = find_fault(answer, settings, start)
        reward = malformed_reward if reason and not answer.fault else None
        found[number] = JudgedAnswer(number, answer.text, answer.tokens, reason, reward=reward)
    sound = [each for each in found.values() if not each.reason]
    alike = near_duplicates([each.text for each in sound], settings.max_similarity)
    for each, is_alike in zip(sound, alike, strict=True):
        if is_alike:
            found[each.number] = replace(each, reason=DUPLICATE)
    return found


def given_answer(text: str, settings: WritingSettings, start: str = "") -> JudgedAnswer:
    """The answer of a prompt's row, which must have the format too, behind its start."""
    text = text.rstrip() if start else text.strip()
    return JudgedAnswer(GIVEN, text, reason=find_fault(Written(text, True), settings, start))


def with_scores(answer: JudgedAnswer, judgement: Judgement, reward: Reward) -> JudgedAnswer:
    """The answer with its scores; it has a reward if none of them is missing."""
    helpfulness, safety = judgement.helpfulness, judgement.safety
    value = None
    if helpfulness is not None and safety is not None:
        value = float(reward(helpfulness, safety))
    return replace(answer, helpfulness=helpfulness, safety=safety, reward=value)
