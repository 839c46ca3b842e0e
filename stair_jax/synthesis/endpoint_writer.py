"""Answers of a teacher behind an OpenAI-compatible endpoint."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from stair_jax.data.records import SynthesisPrompt
from stair_jax.decoding.requests import request_key
from stair_jax.decoding.task import Task
from stair_jax.endpoints.chat import ChatCompletion, ChatRequest
from stair_jax.synthesis.faults import ask_repair
from stair_jax.synthesis.records import FILTERED, NO_REPLY, Writing, Written
from stair_jax.synthesis.settings import WritingSettings
from stair_jax.synthesis.writers import NO_PROMPT, TOO_LONG, answered, shown
from stair_jax.text.thoughts import split_thought

HAS_START = "an endpoint cannot begin an answer"
_SAMPLES = 2**31  # numbers of samples
_REPAIR = -1  # the priority of repairs: prompts that were begun end first
_FAULTS = {"content_filter": FILTERED, "missing": NO_REPLY}


class EndpointWriter:
    """Asks an endpoint, whose settings say how it samples.

    The number of a sample is a hash of seed, prompt id and the number of the answer: so the same
    answer is the same call, whenever it is asked for, and never paid twice.
    """

    def __init__(
        self, service: str, settings: WritingSettings, policies: Mapping[str, str], seed: int
    ):
        """A writer.

        Args:
          service: of the endpoint, by its name in the driver.
          settings: how answers are written.
          policies: texts by category.
          seed: of the run.
        """
        self.service, self.settings, self.seed = service, settings, seed
        self._policies = policies

    def task(self, prompt: SynthesisPrompt, category: str) -> Task[Writing]:
        """See `Writer.task`."""
        policy = self._policies.get(category, "")
        return EndpointWriting(self, prompt, shown(prompt, self.settings, policy))


class EndpointWriting(Task[Writing]):
    """The answers to one prompt, a call each, and perhaps one more for a malformed one."""

    def __init__(self, writer: EndpointWriter, prompt: SynthesisPrompt, asked: SynthesisPrompt):
        """A task that has asked nothing yet; made by `EndpointWriter.task`."""
        self._writer, self._prompt, self._asked = writer, prompt, asked
        self._written: dict[int, Written] = {}
        self._malformed: dict[int, Written] = {}  # those that are asked for once more
        self._has_room = True

    def start(self) -> list[Any]:
        """A request for each answer; none where the prompt is skipped."""
        if self._prompt.start:
            return self._skip(HAS_START)
        if not self._prompt.prompt.strip():
            return self._skip(NO_PROMPT)
        count = self._writer.settings.num_candidates
        return [self._request(number, self._asked) for number in range(count)]

    def receive(self, completion: ChatCompletion) -> list[Any]:
        """Takes an answer."""
        assert isinstance(completion.id, tuple)
        (number,) = completion.id
        written, before = _read(completion), self._malformed.get(number)
        # Without a second reply the first one stands.
        if before is not None and (written.fault or completion.finish == "too_long"):
            written = before
        elif completion.finish == "too_long":
            self._has_room = False
        elif before is None and (turn := ask_repair(written, self._writer.settings)):
            self._malformed[number] = written
            again = self._request(number, answered(self._asked, written.text, turn))
            return [replace(again, priority=_REPAIR)]
        self._written[number] = written
        if len(self._written) == self._writer.settings.num_candidates:
            self._end()
        return []

    def _request(self, number: int, asked: SynthesisPrompt) -> ChatRequest:
        writer = self._writer
        key = request_key(writer.seed, self._prompt.id, "synthesize", number)
        messages = tuple(asked.messages)
        return ChatRequest((number,), messages, writer.service, sample=key[0] % _SAMPLES)

    def _end(self) -> None:
        if not self._has_room:
            self._skip(TOO_LONG)
            return
        answers = tuple(self._written[number] for number in sorted(self._written))
        self.result = Writing(answers, repairs=len(self._malformed))

    def _skip(self, reason: str) -> list[Any]:
        self.result = Writing(skipped=reason)
        return []


def _read(completion: ChatCompletion) -> Written:
    """An answer, without the thought that some models write before it."""
    _, text = split_thought(completion.text)
    fault = _FAULTS.get(completion.finish, "")
    return Written(text.strip(), completion.finish == "stop", fault=fault)
