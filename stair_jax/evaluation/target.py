"""The model under evaluation, as benchmarks and attacks see it: local weights or an endpoint."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from stair_jax.decoding.task import Task
from stair_jax.errors import UserError
from stair_jax.models.config import ModelConfig
from stair_jax.text.tokenizer import Tokenizer

Message = Mapping[str, str]  # "role" and "content"
Place = Literal["answer", "first_step", "output"]


@dataclass(frozen=True)
class Asked:
    """A chat to answer.

    Attributes:
      messages: {"role", "content"}, the user's last.
      prefill: text that the answer begins with; the model goes on behind it.
      place: where the prefill stands: "answer": it begins the answer as it is; "first_step": inside
        the first step of the reasoning; "output": in the output block, behind an empty reasoning. A
        model without blocks takes all of them as "answer".
      temperature: of this answer's tokens; 0 is greedy. None: that of the method.
      top_p: probability mass that is kept; None: that of the method.
      max_tokens: most tokens of this answer, where that is less than the target's own limit; None:
        the target's own. Attackers and their judges are asked with one.
      label: what the attack calls this chat, such as a technique; for readers alone.
    """

    messages: tuple[Message, ...]
    prefill: str = ""
    place: Place = "answer"
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    label: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON values; without what was left open."""
        row: dict[str, Any] = {"messages": [dict(message) for message in self.messages]}
        if self.prefill:
            row |= {"prefill": self.prefill, "place": self.place}
        sampling = {name: getattr(self, name) for name in ("temperature", "top_p", "max_tokens")}
        row |= {name: value for name, value in sampling.items() if value is not None}
        return row | ({"label": self.label} if self.label else {})


@dataclass(frozen=True)
class Reply:
    """What a model said.

    Attributes:
      text: all of it, tags visible, with the prefill.
      reasoning: of the steps, tags and all; "": none.
      final: of the output block, or `text` where there are no blocks.
      finish: see `Answer.finish`.
      tokens: of the answer; generated_tokens: those of other candidates and of scores too.
      prompt_tokens: of the prompt.
      steps: of the reasoning.
      score: of the answer that a search chose.
      well_formed: whether it has steps and one output block.
    """

    text: str
    reasoning: str = ""
    final: str = ""
    finish: str = "stop"
    tokens: int = 0
    generated_tokens: int = 0
    prompt_tokens: int = 0
    steps: int = 0
    score: float | None = None
    well_formed: bool = False


@dataclass(frozen=True)
class ChatTokens:
    """How a target whose tokenizer is at hand turns chats and answers into token ids.

    Attributes:
      tokenizer: of the model.
      encode: ids of a chat up to where the answer starts, exactly as `Target.ask` sends them.
      begin: ids of a text that begins the answer at a place (`Asked.place`): (those of what stands
        before it there, those of the text).
    """

    tokenizer: Tokenizer
    encode: Callable[[Sequence[Message]], tuple[int, ...]]
    begin: Callable[[str, Place], tuple[tuple[int, ...], tuple[int, ...]]]


@dataclass(frozen=True)
class Weights:
    """The model of a target whose weights are at hand, on one device.

    Attributes:
      config: of the model.
      params: as of `models.transformer.init_params`.
    """

    config: ModelConfig
    params: Any


class Target(ABC):
    """A model that can be asked, by tasks for the driver that it is served by.

    Class attributes:
      CAN_PREFILL: whether it takes `Asked.prefill`.
      CAN_SCORE: whether it has log-likelihoods.
    """

    CAN_PREFILL: ClassVar[bool] = True
    CAN_SCORE: ClassVar[bool] = True
    name: str

    def of_kind(self, kind: str) -> "Target":
        """The same for prompts of a kind, "safety" or "helpfulness", which self-reward heeds."""
        return self

    @abstractmethod
    def ask(self, asked: Asked, key: str, method: str = "greedy") -> Task[Reply]:
        """A task whose result is the reply.

        Args:
          asked: the chat. Its `temperature`, `top_p` and `max_tokens` go before those of the
            method.
          key: what the random keys are drawn from, beside the seed: the id of case and sample.
          method: as `inference.methods.parse_method` reads it.
        """

    @abstractmethod
    def likelihoods(
        self, messages: Sequence[Message], choices: Sequence[str]
    ) -> Task[tuple[float, ...]]:
        """A task whose result has the log-likelihood, in nats, of each text as the answer.

        Of a model with blocks, each is the final answer in an output block.

        Raises:
          UserError: the model has none (`CAN_SCORE`).
        """

    def score_first(
        self, messages: Sequence[Message], texts: Sequence[str], place: Place = "answer"
    ) -> Task[tuple[float, ...]]:
        """A task whose result has, for each text, how likely the answer begins with it.

        In nats, the log-probability of the first token of the text alone, at a place of the answer
        (`Asked.place`): one scoring request to the engine.

        Args:
          messages: the chat.
          texts: at most 8.
          place: where the text would stand.

        Raises:
          UserError: the model has no log-probabilities.
        """
        raise UserError(f"{self.name} tells no log-probabilities: name a model by its folder")

    def chat_tokens(self) -> ChatTokens:
        """How it turns chats into token ids.

        Raises:
          UserError: its tokenizer is not at hand.
        """
        raise UserError(f"the tokenizer of {self.name} is not here: name a model by its folder")

    def weights(self) -> Weights:
        """Its weights, for attacks by gradients.

        Raises:
          UserError: they are not at hand.
        """
        raise UserError(f"the weights of {self.name} are not here: name a model by its folder")
