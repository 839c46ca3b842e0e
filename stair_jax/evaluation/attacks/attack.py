"""What every attack has in common: of a case it makes chats that the target answers."""

import random
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, is_dataclass, replace
from typing import Any, ClassVar, Literal, Self

from stair_jax.decoding.task import GatherTask, OuterTask, Service, Task
from stair_jax.evaluation.attacks.settings import AttackSettings
from stair_jax.evaluation.case import Case
from stair_jax.evaluation.judges.judge import Judge
from stair_jax.evaluation.target import Asked, Reply, Target
from stair_jax.storage import fingerprint

Need = Literal["attacker", "judge", "prefill", "likelihoods", "weights", "stored"]


@dataclass(frozen=True)
class Tried:
    """One chat of an attack, with the answer to it.

    Attributes:
      asked: what the target was asked.
      reply: of the target.
      final: the final answer, decoded where the attack makes the target encode it.
      attack_tokens: sampled by the attacker and by its judge up to here, in the order of the
        results; the rating of this try is among them.
    """

    asked: Asked
    reply: Reply
    final: str
    attack_tokens: int = 0


def with_prompt(case: Case, prompt: str, **more: Any) -> Asked:
    """The chat of a case with another prompt in place of its own; `more` fields of `Asked`."""
    return Asked(replace(case, prompt=prompt).messages, **more)


def nothing_asked(label: str, attack_tokens: int = 0) -> Tried:
    """The result of an attack that made no prompt for a case: missing, never the plain prompt.

    Args:
      label: why, for readers.
      attack_tokens: that were spent all the same.
    """
    return Tried(Asked((), label=label), Reply("", finish="missing"), "", attack_tokens)


@dataclass(frozen=True)
class Means:
    """What an attack may use.

    Attributes:
      target: the model under attack.
      attacker: the model that writes prompts, where the attack needs one.
      judge: that rates tries while the attack goes on; never the one whose verdicts are reported,
        unless the user has no other.
      method: how the target answers, see `Target.ask`.
      seed: of the run.
    """

    target: Target
    attacker: Target | None = None
    judge: Judge | None = None
    method: str = "greedy"
    seed: int = 0


class Attack(ABC):
    """An attack; its fields are its budget.

    Class attributes:
      NAME: on the command line and in tables.
      NEEDS: what must be there; said by name where it is not.
      PAPER: arXiv id of where it is from; "": of none.
      VERSION: rises when the same fields would now ask something else.
    """

    NAME: ClassVar[str]
    NEEDS: ClassVar[frozenset[Need]] = frozenset()
    PAPER: ClassVar[str] = ""
    VERSION: ClassVar[int] = 1

    @classmethod
    def from_settings(cls, settings: AttackSettings) -> Self:
        """The attack with its section of the settings; the base has none."""
        return cls()

    @property
    def name(self) -> str:
        """Of this attack in answers and tables: `NAME`, unless it stands for several."""
        return self.NAME

    @property
    def sets_sampling(self) -> bool:
        """Whether it sets how an answer begins or is sampled, so that no search can make it."""
        return "prefill" in self.NEEDS

    def identity(self) -> dict[str, Any]:
        """What makes its answers comparable: name, version, hash of its fields (texts of files)."""
        values: Any = self if is_dataclass(self) else {}
        return {"attack": self.name, "version": self.VERSION, "fields": fingerprint(values)}

    @abstractmethod
    def task(self, case: Case, means: Means) -> Task[list[Tried]]:
        """A task whose result has the answers in the order of asking; at least one.

        Whether the attack had success within so many queries is read from all of them, each judged
        like any other answer.
        """

    def services(self, means: Means) -> Mapping[str, Service]:
        """Services that its tasks ask beside those of the target, by name; new ones each time.

        The driver of the tasks needs them.
        """
        return {}


class Transform(Attack):
    """An attack that needs no other model: prompts are made at once, all are answered."""

    @abstractmethod
    def apply(self, case: Case, draw: random.Random) -> Sequence[Asked]:
        """The chats, at least one.

        Args:
          case: with the original prompt.
          draw: seeded with the run's seed, the name of the attack and the id of the case.
        """

    def decode(self, final: str) -> str:
        """The final answer as the judge reads it."""
        return final

    def task(self, case: Case, means: Means) -> Task[list[Tried]]:
        """Asks all chats side by side."""
        chats = self.apply(case, random.Random(f"{means.seed}/{self.name}/{case.id}"))
        tasks = [
            means.target.ask(asked, f"{case.id}/{self.name}/{number}", means.method)
            for number, asked in enumerate(chats)
        ]
        return TriedTask(chats, GatherTask(tasks), self.decode)


class Rewriting(Transform):
    """A transform that makes one prompt of another; rewritings can be combined."""

    @abstractmethod
    def rewrite(self, prompt: str, draw: random.Random) -> str:
        """The prompt that is asked; `draw` as in `apply`."""

    def apply(self, case: Case, draw: random.Random) -> Sequence[Asked]:
        """One chat."""
        return [with_prompt(case, self.rewrite(case.prompt, draw))]


class TriedTask(OuterTask[list[Tried]]):
    """Replies to chats that were asked at once, as tries."""

    def __init__(self, chats: Sequence[Asked], inner: Task[list[Reply]], decode: Any):
        """Nothing is asked yet."""
        super().__init__(inner)
        self._chats, self._decode = chats, decode

    def make_result(self, found: list[Reply]) -> list[Tried]:
        """A try a chat."""
        return [
            Tried(asked, reply, self._decode(reply.final))
            for asked, reply in zip(self._chats, found, strict=True)
        ]
