"""The answers to one chat, as a whole response or as pieces of one."""

import time
import uuid
from collections import Counter
from collections.abc import AsyncGenerator
from typing import Any

from stair_jax.inference.prompt_logps import LogpsCompletion
from stair_jax.run.answering_thread import Make
from stair_jax.server.answers import Answers, Choice, joined
from stair_jax.server.chat_bodies import ChatBody
from stair_jax.server.choice_text import ChoiceText
from stair_jax.server.engine_thread import Stream
from stair_jax.server.logprobs import chat_logprobs
from stair_jax.server.prompts import ChatPrompt
from stair_jax.server.reasoning import Delta, Reasoning
from stair_jax.server.sampled import sampled_choices, sampling_of
from stair_jax.server.search_names import Search
from stair_jax.server.searching import search_choices, search_details, search_settings
from stair_jax.server.serving import Serving
from stair_jax.server.streaming import DONE, event_of


class ChatAnswers:
    """The answers to a chat, sampled or found by searches."""

    def __init__(
        self, serving: Serving, body: ChatBody, prompt: ChatPrompt, search: Search | None = None
    ):
        """Nothing is asked yet.

        Args:
          serving: the model.
          body: of the request.
          prompt: its chat.
          search: that finds the answers; None: they are sampled.

        Raises:
          ApiError: the model cannot be asked so.
        """
        self._serving, self._body, self._prompt = serving, body, prompt
        self._search = search
        self._makes = self._sampled() if search is None else self._searched(search)
        texts = [self._new_text() for _ in range(body.num_choices)]
        self._answers = Answers(serving, texts, len(prompt.tokens), prompt.prefill)
        self._head = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": body.model,
            "system_fingerprint": serving.fingerprint,
        }

    async def whole(self) -> dict[str, Any]:
        """The response with all answers."""
        found = [Delta() for _ in self._answers.choices]
        with self._ask(streams=bool(self._body.stops)) as stream:
            async for choice, delta in self._answers.deltas(stream):
                found[choice.number] = joined(found[choice.number], delta)
        scored = await self._scored(self._answers.choices)
        choices = [
            {
                "index": choice.number,
                "message": {"role": "assistant", **self._texts(delta), "refusal": None},
                "logprobs": self._logprobs(choice, scored),
                "finish_reason": choice.finish,
                **self._details(choice),
            }
            for choice, delta in zip(self._answers.choices, found, strict=True)
        ]
        return {
            **self._head,
            "object": "chat.completion",
            "choices": choices,
            "usage": self._answers.usage.as_json(),
        }

    async def events(self) -> AsyncGenerator[bytes, None]:
        """The response in pieces, as server-sent events."""
        begun, told = set(), Counter[int]()
        with self._ask(streams=True) as stream:
            async for choice, delta in self._answers.deltas(stream):
                if choice.number not in begun:
                    begun.add(choice.number)
                    yield self._piece(choice, {"role": "assistant", "content": ""})
                scored = await self._scored([choice]) if choice.finish else {}
                logprobs = self._logprobs(choice, scored, told[choice.number])
                told[choice.number] = len(choice.ids)
                if delta.reasoning or delta.content or logprobs:
                    yield self._piece(choice, self._texts(delta, is_piece=True), logprobs)
                if choice.finish:
                    yield self._piece(choice, {}, finish=choice.finish)
        if self._body.includes_usage:
            usage = self._answers.usage.as_json()
            yield event_of({**self._chunk, "choices": [], "usage": usage})
        yield DONE

    def _ask(self, streams: bool) -> Stream:
        # The likeliest tokens are known of whole answers, and a search has none before its end.
        streams = streams and not self._is_scored and self._search is None
        return self._answers.ask(self._makes, self._body.priority, streams)

    def _sampled(self) -> list[Make]:
        body, prompt = self._body, self._prompt
        sampling = sampling_of(body, body.most_tokens, self._serving)
        return sampled_choices(
            prompt.tokens, sampling, prompt.question.id, body.seed, body.num_choices
        )

    def _searched(self, search: Search) -> list[Make]:
        body = self._body
        settings = search_settings(body, body.most_tokens, search, self._serving)
        return search_choices(self._prompt, search, settings, body.seed, body.num_choices)

    async def _scored(self, choices: list[Choice]) -> dict[int, LogpsCompletion]:
        """Log-probabilities of answers that come without them, or not with the likeliest tokens."""
        if not self._is_scored:
            return {}
        tokens = self._prompt.tokens
        wanted = {c.number: ((*tokens, *c.ids), len(tokens)) for c in choices if c.ids}
        return await self._answers.score(wanted, self._body.priority)

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

    @property
    def _is_scored(self) -> bool:
        """Whether log-probabilities are wanted that sampling does not bring."""
        is_more = bool(self._body.top_logprobs) or self._search is not None
        return bool(self._body.logprobs) and is_more

    def _logprobs(
        self, choice: Choice, scored: dict[int, LogpsCompletion], start: int = 0
    ) -> dict[str, Any] | None:
        """Those of the tokens from `start` on."""
        if not self._body.logprobs or (start == len(choice.ids) and not choice.finish):
            return None
        tokenizer, found = self._serving.tokenizer, scored.get(choice.number)
        if found is None:
            return chat_logprobs(tokenizer, choice.ids[start:], choice.logps[start:])
        top = [likeliest[: self._body.top_logprobs or 0] for likeliest in found.top]
        return chat_logprobs(tokenizer, choice.ids, found.logps, top)

    def _details(self, choice: Choice) -> dict[str, Any]:
        if self._search is None or not self._search.details or choice.found is None:
            return {}
        return {"search": search_details(choice.found, self._search, self._serving)}

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
        details = self._details(choice) if finish else {}
        choices = [{**piece, "logprobs": logprobs, **details}]
        return event_of({**self._chunk, "choices": choices})
