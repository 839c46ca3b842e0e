"""A model behind an OpenAI-compatible endpoint, as the target of an evaluation."""

import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

from stair_jax.decoding.task import Task
from stair_jax.endpoints.chat import ChatCompletion, ChatRequest
from stair_jax.endpoints.settings import ChatSampling
from stair_jax.errors import UserError
from stair_jax.evaluation.local_target import PROMPTED
from stair_jax.evaluation.target import Asked, Message, Reply, Target
from stair_jax.text import steps
from stair_jax.text.thoughts import split_thought

METHODS = ("greedy", PROMPTED)


class EndpointTarget(Target):
    """Asks an endpoint; it has no log-likelihoods of given texts, and no search."""

    CAN_SCORE: ClassVar[bool] = False
    CAN_PREFILL: ClassVar[bool] = False

    def __init__(
        self,
        name: str,
        sampling: ChatSampling,
        prompt_template: str = "{prompt}",
        service: str = "",
    ):
        """A target.

        Args:
          name: of the model.
          sampling: of answers. Without a temperature, 0 is sent: greedy, as benchmarks ask for; a
            model that takes no other than 1 is given that.
          prompt_template: with {prompt}, what the method "prompted" asks.
          service: of the endpoint; "": it is the driver's own.
        """
        self.name, self._sampling = name, sampling
        self._template, self._service = prompt_template, service

    def ask(self, asked: Asked, key: str, method: str = "greedy") -> Task[Reply]:
        """See `Target.ask`.

        Raises:
          UserError: the method searches, or the answer is to have a prefill.
        """
        if method not in METHODS:
            raise UserError(f"{self.name} is an endpoint, which answers by {' or '.join(METHODS)}")
        if asked.prefill:
            raise UserError(f"{self.name} is an endpoint, whose answers can have no prefill")
        messages = [dict(message) for message in asked.messages]
        if method == PROMPTED:
            messages[-1]["content"] = self._template.replace("{prompt}", messages[-1]["content"])
        temperature = self._sampling.temperature or 0.0
        if asked.temperature is not None:
            temperature = asked.temperature
        sampling = replace(self._sampling, temperature=temperature)
        if asked.top_p is not None:
            sampling = replace(sampling, top_p=asked.top_p)
        if asked.max_tokens is not None:
            sampling = replace(sampling, max_tokens=min(asked.max_tokens, sampling.max_tokens))
        # Greedy answers to one prompt are one call; of others each is a sample of its own.
        sample = zlib.crc32(key.encode(errors="replace")) if temperature else 0
        return _ChatTask(ChatRequest((), tuple(messages), self._service, sampling, sample))

    def likelihoods(
        self, messages: Sequence[Message], choices: Sequence[str]
    ) -> Task[tuple[float, ...]]:
        """There are none."""
        raise UserError(f"{self.name} is an endpoint, which has no log-likelihoods of given texts")


class _ChatTask(Task[Reply]):
    """One call."""

    def __init__(self, request: ChatRequest):
        self._request = request

    def start(self) -> list[Any]:
        return [self._request]

    def receive(self, completion: ChatCompletion) -> list[Any]:
        text = completion.text
        thought, said = split_thought(text)
        parsed = steps.parse_tolerant(said)
        reasoning = (completion.reasoning or thought, steps.reasoning_text(said))
        self.result = Reply(
            text=text,
            reasoning="\n\n".join(filter(None, reasoning)),
            final=parsed.final,
            finish=completion.finish,
            tokens=completion.usage.output_tokens,
            generated_tokens=completion.usage.output_tokens,
            prompt_tokens=completion.usage.input_tokens,
            steps=len(parsed.steps),
            well_formed=steps.is_well_formed(said),
        )
        return []
