"""The answer to one request of /v1/responses, as a whole or as pieces of one."""

import time
import uuid
from collections.abc import AsyncGenerator, Iterator
from typing import Any

from stair_jax.server.answers import Answers, joined
from stair_jax.server.choice_text import ChoiceText
from stair_jax.server.prompts import ChatPrompt
from stair_jax.server.reasoning import Delta, Reasoning
from stair_jax.server.response_bodies import ResponseBody
from stair_jax.server.sampled import sampled_choices, sampling_of
from stair_jax.server.search_names import Search
from stair_jax.server.searching import search_choices, search_details, search_settings
from stair_jax.server.serving import Serving
from stair_jax.server.streaming import event_of

_Json = dict[str, Any]


class ResponseAnswer:
    """An answer as items: its reasoning, if there is any, and a message."""

    def __init__(
        self, serving: Serving, body: ResponseBody, prompt: ChatPrompt, search: Search | None
    ):
        """Nothing is asked yet; the arguments are those of `ChatAnswers`."""
        self._serving, self._body, self._search = serving, body, search
        most = body.max_output_tokens
        if search is None:
            sampling = sampling_of(body, most, serving)
            name = prompt.question.id
            self._makes = sampled_choices(prompt.tokens, sampling, name, body.seed, 1)
        else:
            settings = search_settings(body, most, search, serving)
            self._makes = search_choices(prompt, search, settings, body.seed, 1)
        reasoning = Reasoning(serving.settings.reasoning, serving.files.is_structured)
        reasoning.add(prompt.prefill)
        text = ChoiceText(serving.tokenizer, (), reasoning)
        self._answers = Answers(serving, [text], len(prompt.tokens), prompt.prefill)
        self._created, self._unique = int(time.time()), uuid.uuid4().hex
        self._numbers = 0

    async def whole(self) -> _Json:
        """The response."""
        found = Delta()
        async for delta in self._deltas(streams=False):
            found = joined(found, delta)
        return self._response(found)

    async def events(self) -> AsyncGenerator[bytes, None]:
        """The response in pieces, as server-sent events with names."""
        started = self._described("in_progress", [])
        yield self._event("response.created", response=started)
        yield self._event("response.in_progress", response=started)
        found, items = Delta(), _Items(self._unique)
        async for delta in self._deltas(streams=self._search is None):
            found = joined(found, delta)
            for name, fields in items.add(delta):
                yield self._event(name, **fields)
        for name, fields in items.end():
            yield self._event(name, **fields)
        response = self._response(found)
        yield self._event(f"response.{response['status']}", response=response)

    async def _deltas(self, streams: bool) -> AsyncGenerator[Delta, None]:
        with self._answers.ask(self._makes, self._body.priority, streams) as stream:
            async for _, delta in self._answers.deltas(stream):
                yield delta

    def _response(self, found: Delta) -> _Json:
        """The response with all that was found."""
        items = _Items(self._unique)
        list(items.add(found))
        list(items.end())
        was_cut = self._answers.choices[0].finish == "length"
        response = self._described("incomplete" if was_cut else "completed", items.finished)
        if was_cut:
            response["incomplete_details"] = {"reason": "max_output_tokens"}
        usage = self._answers.usage
        response["usage"] = {
            "input_tokens": usage.prompt,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": usage.generated,
            "output_tokens_details": {
                "reasoning_tokens": usage.reasoning,
                "kept_tokens": usage.kept,
            },
            "total_tokens": usage.prompt + usage.generated,
        }
        choice, search = self._answers.choices[0], self._search
        if search is not None and search.details and choice.found is not None:
            response["search"] = search_details(choice.found, search, self._serving)
        return response

    def _described(self, status: str, output: list[_Json]) -> _Json:
        body = self._body
        return {
            "id": f"resp_{self._unique}",
            "object": "response",
            "created_at": self._created,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "metadata": {},
            "model": body.model,
            "output": output,
            "parallel_tool_calls": False,
            "previous_response_id": None,
            "store": False,
            "temperature": body.temperature,
            "text": {"format": {"type": "text"}},
            "tool_choice": "none",
            "tools": [],
            "top_p": body.top_p,
            "truncation": "disabled",
            "usage": None,
        }

    def _event(self, name: str, **fields: Any) -> bytes:
        number, self._numbers = self._numbers, self._numbers + 1
        return event_of({"type": name, "sequence_number": number, **fields}, name)


class _Items:
    """The items of an answer as they come, one after the other; each has one part.

    Attributes:
      finished: whole items.
    """

    def __init__(self, unique: str):
        self._unique = unique
        self.finished: list[_Json] = []
        self._kind, self._text = "", ""

    def add(self, delta: Delta) -> Iterator[tuple[str, _Json]]:
        """Events of further text."""
        for kind, text in (("reasoning", delta.reasoning), ("message", delta.content)):
            if not text:
                continue
            if self._kind != kind:
                yield from self._close()
                yield from self._open(kind)
            self._text += text
            yield f"response.{_DELTAS[kind]}.delta", self._about(delta=text)

    def end(self) -> Iterator[tuple[str, _Json]]:
        """Events of the end; there is a message, be it an empty one."""
        if self._kind != "message":
            yield from self._close()
            yield from self._open("message")
        yield from self._close()

    def _open(self, kind: str) -> Iterator[tuple[str, _Json]]:
        self._kind, self._text = kind, ""
        item = self._item("in_progress", [])
        yield "response.output_item.added", {"output_index": self._index, "item": item}
        yield "response.content_part.added", self._about(part=self._part(""))

    def _close(self) -> Iterator[tuple[str, _Json]]:
        if not self._kind:
            return
        yield f"response.{_DELTAS[self._kind]}.done", self._about(text=self._text)
        part = self._part(self._text)
        yield "response.content_part.done", self._about(part=part)
        item, index = self._item("completed", [part]), self._index
        self.finished.append(item)
        self._kind = ""
        yield "response.output_item.done", {"output_index": index, "item": item}

    @property
    def _index(self) -> int:
        return len(self.finished)

    @property
    def _id(self) -> str:
        return f"{'rs' if self._kind == 'reasoning' else 'msg'}_{self._unique}{self._index:02d}"

    def _about(self, **fields: Any) -> _Json:
        """Fields of an event about the part of the item that is open."""
        about = {"item_id": self._id, "output_index": self._index, "content_index": 0}
        if self._kind == "message" and ("delta" in fields or "text" in fields):
            about["logprobs"] = []
        return {**about, **fields}

    def _part(self, text: str) -> _Json:
        if self._kind == "reasoning":
            return {"type": "reasoning_text", "text": text}
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}

    def _item(self, status: str, content: list[_Json]) -> _Json:
        item: _Json = {"id": self._id, "type": self._kind, "status": status, "content": content}
        more: _Json = {"summary": []} if self._kind == "reasoning" else {"role": "assistant"}
        return item | more


_DELTAS = {"reasoning": "reasoning_text", "message": "output_text"}
