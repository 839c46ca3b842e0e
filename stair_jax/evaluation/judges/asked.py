"""What judges have in common that are asked in words: wordings, both orders, identity."""

from abc import abstractmethod
from dataclasses import replace
from typing import Any

from stair_jax.decoding.requests import request_key
from stair_jax.decoding.task import GatherTask, Task
from stair_jax.evaluation.judges.grading import Outcome, verdict
from stair_jax.evaluation.judges.judge import Judge, Material, Verdict
from stair_jax.evaluation.judges.questions import QUESTIONS
from stair_jax.evaluation.judges.settings import JudgeSettings
from stair_jax.evaluation.judges.wordings import load_wordings


class AskedJudge(Judge):
    """A model that is asked questions, by our wordings or those of files.

    Attributes:
      settings: how it is asked.
      wordings: by question.
      reasons: why a question cannot be asked, as a line for the user, by question.
    """

    def __init__(self, name: str, settings: JudgeSettings):
        """Reads the wordings and the policy.

        Raises:
          UserError: a file cannot be read or used.
        """
        self.name, self.settings = name, settings
        self.wordings = load_wordings(settings.wordings, settings.fence)
        self._policy = settings.read_policy()
        self.reasons: dict[str, str] = {}
        if not self._policy:
            self.reasons["safeguard"] = (
                "the question 'safeguard' needs the rules to judge by: name their file in policy"
            )

    def identity(self) -> dict[str, Any]:
        """How it is asked: mode, fence, and the hash of each wording and of the policy."""
        settings = self.settings
        return {
            "judge": self.name,
            "mode": settings.mode,
            "fence": settings.fence,
            "ask_closing": settings.ask_closing,
            "temperature": settings.temperature,
            "max_tokens": settings.max_tokens,
            "seed": settings.seed,
            "policy": settings.policy_hash(),
            "wordings": {name: wording.sha256 for name, wording in self.wordings.items()},
        }

    def can(self, question: str) -> bool:
        """All questions but those with `reasons`."""
        return question in QUESTIONS and question not in self.reasons

    def task(self, question: str, material: Material, key: str) -> Task[Verdict]:
        """The asking, in both orders where two answers are compared."""
        material = replace(material, policy=material.policy or self._policy)
        shown = [material]
        if QUESTIONS[question].is_pairwise:
            shown.append(replace(material, answer=material.other, other=material.answer))
        return VerdictTask(
            question,
            self.name,
            [
                self.ask(question, each, request_key(self.settings.seed, question, key, order))
                for order, each in enumerate(shown)
            ],
        )

    @abstractmethod
    def ask(self, question: str, material: Material, key: tuple[int, int]) -> Task[Outcome]:
        """A task of one prompt, whose fence and samples are drawn from the key."""


class VerdictTask(Task[Verdict]):
    """One or two askings whose outcomes make a verdict."""

    def __init__(self, question: str, judge: str, askings: list[Task[Outcome]]):
        """Nothing is asked yet."""
        self._question, self._judge = question, judge
        self._askings = GatherTask(askings)

    def start(self) -> list[Any]:
        """The first requests."""
        return self._after(self._askings.start())

    def receive(self, completion: Any) -> list[Any]:
        """Sends a completion on to its asking."""
        return self._after(self._askings.receive(completion))

    def close(self) -> None:
        """Closes the askings that are not done."""
        self._askings.close()

    def _after(self, requests: list[Any]) -> list[Any]:
        if self._askings.done:
            self.result = verdict(self._question, self._judge, self._askings.result)
        return requests


class Known(Task[Verdict]):
    """A verdict that needs no request."""

    def __init__(self, known: Verdict):
        """It is the result from the start."""
        self.result = known

    def start(self) -> list[Any]:
        """No request."""
        return []

    def receive(self, completion: Any) -> list[Any]:
        """Never called."""
        raise AssertionError(f"nothing was asked, and {completion.id!r} came")
