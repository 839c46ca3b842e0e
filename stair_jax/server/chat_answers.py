"""The answers to one chat: what their tasks bring, as a whole response or as pieces of one."""

import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from stair_jax.decoding.requests import Completion
from stair_jax.server.chat_bodies import ChatBody
from stair_jax.server.choice_text import ChoiceText, num_reasoning_tokens
from stair_jax.server.engine_thread import Event, Stream
from stair_jax.server.logprobs import chat_logprobs
from stair_jax.server.prompts import ChatPrompt
from stair_jax.server.reasoning import Delta, Reasoning
from stair_jax.server.sampled import sampled_choices, sampling_of
from stair_jax.server.serving import Serving
from stair_jax.server.streaming import DONE, event_of
from stair_jax.server.usage import Usage


@dataclass
class Choice:
    """An answer as it comes.

    Attributes:
      number: among the answers to the request.
      text: its text.
      ids: of its tokens.
      logps: of the same, where they are asked for.
      finish: why it ended, in OpenAI's words; "": it has not.
    """

    number: int
    text: ChoiceText
    ids: list[int] = field(default_factory=list)
    logps: tuple[float, ...] = ()
    finish: str = ""


class ChatAnswers:
    """The answers to a chat."""

    def __init__(self, serving: Serving, body: ChatBody, prompt: ChatPrompt):
        """Nothing is asked yet.

        Raises:
          UserError: the model cannot be asked so.
        """
        self._serving, self._body, self._prompt = serving, body, prompt
        self._sampling = sampling_of(body, body.most_tokens, serving)
        self._choices = [Choice(n, self._new_text()) for n in range(body.num_choices)]
        self._usage = Usage(prompt=len(prompt.tokens))
        self._start, self._has_begun = time.monotonic(), False
        self._head = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": body.model,
            "system_fingerprint": serving.fingerprint,
        }

    async def whole(self) -> dict[str, Any]:
        """The response with all answers."""
        found = [Delta() for _ in self._choices]
        with self._ask(streams=bool(self._body.stops)) as stream:
            async for choice, delta in self._deltas(stream):
                found[choice.number] = _joined(found[choice.number], delta)
        choices = [
            {
                "index": choice.number,
                "message": {"role": "assistant", **self._texts(delta), "refusal": None},
                "logprobs": self._logprobs(choice),
                "finish_reason": choice.finish,
            }
            for choice, delta in zip(self._choices, found, strict=True)
        ]
        return {
            **self._head,
            "object": "chat.completion",
            "choices": choices,
            "usage": self._usage.as_json(),
        }

    async def events(self) -> AsyncGenerator[bytes, None]:
        """The response in pieces, as server-sent events."""
        begun = set()
        with self._ask(streams=True) as stream:
            async for choice, delta in self._deltas(stream):
                if choice.number not in begun:
                    begun.add(choice.number)
                    yield self._piece(choice, {"role": "assistant", "content": ""})
                logprobs = self._logprobs(choice)
                if delta.reasoning or delta.content or logprobs:
                    yield self._piece(choice, self._texts(delta, is_piece=True), logprobs)
                if choice.finish:
                    yield self._piece(choice, {}, finish=choice.finish)
        if self._body.includes_usage:
            yield event_of({**self._chunk, "choices": [], "usage": self._usage.as_json()})
        yield DONE

    def _ask(self, streams: bool) -> Stream:
        makes = sampled_choices(
            self._prompt.tokens,
            self._sampling,
            self._prompt.question.id,
            self._body.seed,
            self._body.num_choices,
        )
        # Log-probabilities come with the whole answer.
        streams = streams and not self._body.logprobs
        priority = self._serving.next_priority(self._body.priority)
        return self._serving.thread.asking(makes, priority, streams)

    async def _deltas(self, stream: Stream) -> AsyncIterator[tuple[Choice, Delta]]:
        """Pieces of the answers as they come; the last one of an answer says why it ended."""
        async for event in stream:
            if not self._has_begun:
                self._has_begun = True
                self._serving.metrics.count_first_token(self._seconds)
            choice = self._choices[event.choice]
            yield choice, self._take(choice, event, stream)
        self._serving.metrics.count_answers(self._usage, self._seconds)

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._start

    def _take(self, choice: Choice, event: Event, stream: Stream) -> Delta:
        """What an event adds to its answer."""
        if event.error is not None:
            raise event.error
        completion = event.result
        new = event.tokens if completion is None else completion.tokens[len(choice.ids) :]
        choice.ids += new
        delta = choice.text.add(new)
        if completion is None and not choice.text.is_stopped:
            return delta
        if completion is None:
            stream.cancel(choice.number)
        self._end(choice, completion)
        return _joined(delta, choice.text.end())

    def _end(self, choice: Choice, completion: Completion | None) -> None:
        was_cut = completion is not None and completion.finish != "stop"
        choice.finish = "length" if was_cut and not choice.text.is_stopped else "stop"
        if self._body.logprobs and completion is not None:
            choice.logps = completion.logps
        self._usage.generated += len(choice.ids)
        self._usage.kept += len(choice.ids)
        self._usage.reasoning += num_reasoning_tokens(self._serving.tokenizer, choice.ids)

    def _new_text(self) -> ChoiceText:
        serving = self._serving
        reasoning = Reasoning(serving.settings.reasoning, serving.files.is_structured)
        reasoning.add(self._prompt.prefill)  # it goes on from there; what it said is not repeated
        return ChoiceText(serving.tokenizer, self._body.stops, reasoning)

    def _texts(self, delta: Delta, is_piece: bool = False) -> dict[str, Any]:
        """Fields of a message; steps are in two, as clients look for either."""
        texts: dict[str, Any] = {}
        if not is_piece or delta.content:
            texts["content"] = delta.content
        if delta.reasoning or (not is_piece and self._has_reasoning):
            texts |= {"reasoning": delta.reasoning, "reasoning_content": delta.reasoning}
        return texts

    @property
    def _has_reasoning(self) -> bool:
        serving = self._serving
        return serving.files.is_structured and serving.settings.reasoning == "separate"

    def _logprobs(self, choice: Choice) -> dict[str, Any] | None:
        if not self._body.logprobs or not choice.finish:
            return None
        return chat_logprobs(self._serving.tokenizer, choice.ids, choice.logps)

    @property
    def _chunk(self) -> dict[str, Any]:
        return {**self._head, "object": "chat.completion.chunk"}

    def _piece(
        self,
        choice: Choice,
        delta: dict[str, Any],
        logprobs: dict[str, Any] | None = None,
        finish: str | None = None,
    ) -> bytes:
        piece = {"index": choice.number, "delta": delta, "finish_reason": finish}
        return event_of({**self._chunk, "choices": [{**piece, "logprobs": logprobs}]})


def _joined(first: Delta, second: Delta) -> Delta:
    return Delta(first.reasoning + second.reasoning, first.content + second.content)
