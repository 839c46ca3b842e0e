"""A model whose weights are here, as the target of an evaluation."""

import math
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Any, ClassVar

from stair_jax.data.questions import Question
from stair_jax.decoding.requests import Completion, Request
from stair_jax.decoding.task import OuterTask, Task
from stair_jax.errors import UserError
from stair_jax.evaluation.target import Asked, ChatTokens, Message, Place, Reply, Target, Weights
from stair_jax.inference.answers import Answered, Answering
from stair_jax.inference.likelihood import chat_likelihoods
from stair_jax.inference.methods import is_search
from stair_jax.inference.scoring import Scorer
from stair_jax.text import steps
from stair_jax.text.chat import encode_prompt
from stair_jax.text.conversations import encode_chat
from stair_jax.text.thoughts import split_thought
from stair_jax.text.tokenizer import Tokenizer

PROMPTED = "prompted"  # the method of a greedy answer to a prompt that asks to think first


class ChatEncoder:
    """How a model's chats and answers become tokens."""

    def __init__(self, tokenizer: Tokenizer, is_structured: bool):
        """For a model.

        Args:
          tokenizer: of the model.
          is_structured: whether its answers have steps and an output block.
        """
        self.tokenizer, self.is_structured = tokenizer, is_structured

    def chat(self, messages: Sequence[Message]) -> list[int]:
        """Token ids up to where the answer starts: a single prompt as in training and search."""
        if len(messages) == 1:
            return encode_prompt(self.tokenizer, messages[0]["content"])
        if not self.is_structured:  # it knows no tags, and may have no room for them
            messages = [
                {**message, "content": steps.without_tags(message["content"])}
                if message["role"] == "assistant"  # those of others stay text anyway
                else message
                for message in messages
            ]
        return encode_chat(self.tokenizer, messages)

    def begin(self, text: str, place: Place) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Token ids of the form before a text at a place of the answer, and those of the text.

        Both as in an answer that holds them: where the tokenizer joins the space between with the
        word behind it, the space belongs to the text. What the text says never becomes control.
        """
        encode, tags = self.tokenizer.encode_text, self.tokenizer.tags
        if not self.is_structured or place == "answer":
            return (), tuple(encode(text))
        opening, prefix = tags.output_open, steps.FINAL_PREFIX
        if place == "first_step":
            opening, prefix = tags.reasoning_open, steps.TITLE_PREFIX
        before, own = [opening, *encode(prefix)], encode(f" {text}")
        space = encode(" ")
        if own == [*space, *encode(text)]:
            before, own = [*before, *space], own[len(space) :]
        return tuple(before), tuple(own)

    def prefill(self, asked: Asked) -> list[int]:
        """Token ids that the answer begins with."""
        if not asked.prefill:
            return []
        before, text = self.begin(asked.prefill, asked.place)
        return [*before, *text]

    def choice(self, text: str) -> list[int]:
        """Token ids of a given answer, without its end: what would follow is no part of it."""
        before, own = self.begin(text, "output")
        return [*before, *own]


class LocalTarget(Target):
    """Asks an engine, and a service of log-likelihoods where there is one."""

    CAN_PREFILL: ClassVar[bool] = True

    def __init__(
        self,
        name: str,
        encoder: ChatEncoder,
        answering: Mapping[bool, Answering] | None,
        scorers: Mapping[str, Scorer] | None = None,
        likelihood_service: str | None = None,
        prompt_template: str = "{prompt}",
        service: str = "",
        weights: Weights | None = None,
    ):
        """A target.

        Args:
          name: of the model.
          encoder: of its chats.
          answering: its engine, and how it is asked by methods that search (True) and others;
            None: it answers nothing, and is asked for likelihoods alone.
          scorers: of the methods that search, by method.
          likelihood_service: service of its log-likelihoods; None: there is none.
          prompt_template: with {prompt}, what the method "prompted" asks.
          service: of the engine; "": the driver's own.
          weights: of the model, beside the engine's own, for attacks by gradients; None: it shows
            none.
        """
        self.name, self.encoder = name, encoder
        self._answering, self._scorers = answering, scorers or {}
        self._likelihoods, self._template = likelihood_service, prompt_template
        self._service, self._kind, self._weights = service, "helpfulness", weights

    def of_kind(self, kind: str) -> "LocalTarget":
        """The same for prompts of a kind."""
        target = copy(self)
        target._kind = kind
        return target

    def ask(self, asked: Asked, key: str, method: str = "greedy") -> Task[Reply]:
        """See `Target.ask`; also the method "prompted".

        Raises:
          UserError: the answer of a search is to have a prefill, or a way of sampling of its own;
            or the model's template refuses the chat.
        """
        assert self._answering is not None, "this target answers nothing"
        if asked.prefill and is_search(method):
            raise UserError(f"an attack by prefill goes with sampled answers, not with {method}")
        if is_search(method) and (asked.temperature, asked.top_p) != (None, None):
            raise UserError(f"an attack that chooses a temperature does not go with {method}")
        messages = list(asked.messages)
        if method == PROMPTED:
            text = self._template.replace("{prompt}", messages[-1]["content"])
            messages[-1] = {**messages[-1], "content": text}
            method = "greedy"
        question = Question(key, tuple(dict(message) for message in messages), self._kind)
        prefill = self.encoder.prefill(asked)
        tokens = [*self.encoder.chat(messages), *prefill]
        inner = self._answering[is_search(method)].task(
            method,
            question.to_prompt(),
            tokens,
            self._scorers.get(method),
            sampling=_sampling(asked),
        )
        decode = self.encoder.tokenizer.decode
        return ReplyTask(
            inner,
            # All of it at once: a character may be split between the prefill and what follows.
            lambda found: read_reply(
                decode([*prefill, *found.tokens]) if prefill else found.text, found, len(prefill)
            ),
            self._service,
        )

    def likelihoods(
        self, messages: Sequence[Message], choices: Sequence[str]
    ) -> Task[tuple[float, ...]]:
        """See `Target.likelihoods`."""
        if self._likelihoods is None:
            raise UserError(f"{self.name} has no service of log-likelihoods")
        encoded = [self.encoder.choice(choice) for choice in choices]
        return chat_likelihoods(self.encoder.chat(messages), encoded, self._likelihoods)

    def score_first(
        self, messages: Sequence[Message], texts: Sequence[str], place: Place = "answer"
    ) -> Task[tuple[float, ...]]:
        """See `Target.score_first`."""
        begins = [self.encoder.begin(text, place) for text in texts]
        before = min((before for before, _ in begins), key=len)
        firsts = tuple((*own_before, *own)[len(before)] for own_before, own in begins)
        tokens = (*self.encoder.chat(messages), *before)
        return ScoresTask(Request((), tokens, score_ids=firsts, service=self._service))

    def chat_tokens(self) -> ChatTokens:
        """See `Target.chat_tokens`."""
        return ChatTokens(
            self.encoder.tokenizer,
            lambda chat: tuple(self.encoder.chat(chat)),
            self.encoder.begin,
        )

    def weights(self) -> Weights:
        """See `Target.weights`."""
        return super().weights() if self._weights is None else self._weights


class ReplyTask(OuterTask[Reply]):
    """An answer of an engine as a reply."""

    def __init__(self, inner: Task[Answered], read: Callable[[Answered], Reply], service: str = ""):
        """A task that has asked nothing yet; `service` is the engine's."""
        super().__init__(inner)
        self._read, self._service = read, service

    def make_result(self, found: Answered) -> Reply:
        """The answer as a reply."""
        return self._read(found)

    def _after(self, requests: list[Any]) -> list[Any]:
        requests = super()._after(requests)
        if not self._service:
            return requests
        return [
            replace(request, service=self._service) if isinstance(request, Request) else request
            for request in requests
        ]


class ScoresTask(Task[tuple[float, ...]]):
    """Log-probabilities of the next token, of one scoring request."""

    def __init__(self, request: Request):
        """A task that has asked nothing yet."""
        self._request = request

    def start(self) -> list[Request]:
        """The only request."""
        return [self._request]

    def receive(self, completion: Completion) -> list[Request]:
        """Takes the scores; a chat that has no room is as unlikely as can be."""
        count = len(self._request.score_ids)
        self.result = completion.scores or (-math.inf,) * count
        return []


def read_reply(text: str, answered: Answered, prefilled: int = 0) -> Reply:
    """What an answer says: its reasoning, and the final answer.

    Args:
      text: of the whole answer, with what it began with.
      answered: what the model added.
      prefilled: tokens that the answer began with, which are no part of the prompt.
    """
    thought, said = split_thought(text)
    parsed = steps.parse_tolerant(said)
    return Reply(
        text=text,
        reasoning="\n\n".join(filter(None, (thought, steps.reasoning_text(said)))),
        final=parsed.final,
        finish=answered.finish,
        tokens=len(answered.tokens),
        generated_tokens=answered.generated_tokens,
        prompt_tokens=answered.prompt_tokens - prefilled,
        steps=len(parsed.steps),
        score=answered.score,
        well_formed=steps.is_well_formed(said),
    )


def _sampling(asked: Asked) -> dict[str, Any]:
    """What a chat says of how its answer is sampled."""
    names = ("temperature", "top_p", "max_tokens")
    values = {name: getattr(asked, name) for name in names}
    return {name: value for name, value in values.items() if value is not None}
