"""The completions of one request, as a whole response or as pieces of one."""

import time
import uuid
from collections.abc import AsyncGenerator, Iterator
from typing import Any

from stair_jax.inference.prompt_logps import LogpsCompletion
from stair_jax.run.answering_thread import Make
from stair_jax.server.answers import Answers, Choice, joined
from stair_jax.server.choice_text import ChoiceText
from stair_jax.server.completion_bodies import CompletionBody, TextPrompt
from stair_jax.server.completion_logprobs import completion_logprobs
from stair_jax.server.reasoning import Delta, Reasoning
from stair_jax.server.sampled import sampled_choices, sampling_of
from stair_jax.server.serving import Serving
from stair_jax.server.streaming import DONE, event_of


class CompletionAnswers:
    """The completions of texts: `n` of each prompt, in the order of the prompts."""

    def __init__(self, serving: Serving, body: CompletionBody, prompts: list[TextPrompt]):
        """Nothing is asked yet.

        Raises:
          ApiError: the model cannot be asked so, or too much is.
        """
        self._serving, self._body = serving, body
        self._prompts = [prompt for prompt in prompts for _ in range(body.num_choices)]
        texts = [ChoiceText(serving.tokenizer, body.stops, Reasoning("raw")) for _ in self._prompts]
        self._answers = Answers(serving, texts, sum(len(prompt.tokens) for prompt in prompts))
        self._makes = list(self._sampled(prompts)) if body.most_tokens else []
        if body.logprobs is not None:
            most = serving.most_tokens(body.most_tokens) if body.most_tokens else 0
            tokens = len(self._prompts) * most
            if body.echo:
                tokens += sum(len(prompt.tokens) for prompt in self._prompts)
            serving.check_logprobs(tokens, body.logprobs)
        self._head = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": body.model,
            "system_fingerprint": serving.fingerprint,
        }

    async def whole(self) -> dict[str, Any]:
        """The response with all completions."""
        found = [Delta() for _ in self._prompts]
        if self._makes:
            with self._answers.ask(self._makes, self._body.priority, self._streams) as stream:
                async for choice, delta in self._answers.deltas(stream):
                    found[choice.number] = joined(found[choice.number], delta)
        scored = await self._scored()
        choices = []
        for choice, delta in zip(self._answers.choices, found, strict=True):
            arguments = choice, self._echo(choice) + delta.content, scored.get(choice.number)
            if self._body.logprobs is None:
                choices.append(self._choice(*arguments))
            else:  # their texts take long
                choices.append(await self._serving.in_text_thread(self._choice, *arguments))
        return {**self._head, "choices": choices, "usage": self._answers.usage.as_json()}

    async def events(self) -> AsyncGenerator[bytes, None]:
        """The response in pieces, as server-sent events."""
        if self._body.logprobs is not None or not self._makes:
            # Log-probabilities come with whole completions.
            whole = await self.whole()
            for choice in whole["choices"]:
                yield event_of({**self._head, "choices": [choice]})
        else:
            async for piece in self._pieces():
                yield event_of({**self._head, "choices": [piece]})
        if self._body.includes_usage:
            usage = self._answers.usage.as_json()
            yield event_of({**self._head, "choices": [], "usage": usage})
        yield DONE

    async def _pieces(self) -> AsyncGenerator[dict[str, Any], None]:
        begun = set()
        with self._answers.ask(self._makes, self._body.priority, True) as stream:
            async for choice, delta in self._answers.deltas(stream):
                text = delta.content
                if choice.number not in begun:
                    begun.add(choice.number)
                    text = self._echo(choice) + text
                if text or choice.finish:
                    yield self._choice(choice, text)

    async def _scored(self) -> dict[int, LogpsCompletion]:
        """Log-probabilities of the completions, and of their prompts where these are echoed."""
        if self._body.logprobs is None:
            return {}
        wanted = {}
        for choice in self._answers.choices:
            prompt = self._prompts[choice.number].tokens
            # The first token of all has nothing before it.
            tokens, start = (*prompt, *choice.ids), 1 if self._body.echo else len(prompt)
            if len(tokens) > start:
                wanted[choice.number] = (tokens, start)
        return await self._answers.score(wanted, self._body.logprobs, self._body.priority)

    def _sampled(self, prompts: list[TextPrompt]) -> Iterator[Make]:
        body = self._body
        sampling = sampling_of(body, body.most_tokens, self._serving)
        for prompt in prompts:
            yield from sampled_choices(
                prompt.tokens, sampling, prompt.name, body.seed, body.num_choices
            )

    @property
    def _streams(self) -> bool:
        """Whether tokens are looked at as they come: a stop text may end a completion."""
        return bool(self._body.stops)

    def _echo(self, choice: Choice) -> str:
        return self._prompts[choice.number].text if self._body.echo else ""

    def _choice(
        self, choice: Choice, text: str, scored: LogpsCompletion | None = None
    ) -> dict[str, Any]:
        finish = choice.finish or (None if self._makes else "length")
        return {
            "index": choice.number,
            "text": text,
            "logprobs": self._logprobs(choice, text, scored),
            "finish_reason": finish,
        }

    def _logprobs(
        self, choice: Choice, text: str, scored: LogpsCompletion | None
    ) -> dict[str, Any] | None:
        if self._body.logprobs is None:
            return None
        echoed = self._prompts[choice.number].tokens if self._body.echo else ()
        return completion_logprobs(
            self._serving.tokenizer,
            (*echoed, *choice.ids),
            scored,
            len(text) if choice.text.is_stopped else None,
        )
