"""The answers to one request: what their tasks bring, as pieces of text and numbers of tokens."""

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field

from stair_jax.decoding.requests import Completion
from stair_jax.inference.prompt_logps import LogpsCompletion
from stair_jax.run.answering_thread import Make
from stair_jax.server.choice_text import ChoiceText, joined, num_reasoning_tokens
from stair_jax.server.engine_thread import Event, Stream
from stair_jax.server.reasoning import Delta
from stair_jax.server.searching import Found
from stair_jax.server.serving import Serving
from stair_jax.server.usage import Usage


@dataclass
class Choice:
    """An answer as it comes.

    Attributes:
      number: among the answers to the request.
      text: its text.
      ids: of its tokens.
      logps: of the same, before temperature and filters; (): they are not known.
      finish: why it ended, in OpenAI's words; "": it has not.
      found: what a search has found; None: it was sampled.
    """

    number: int
    text: ChoiceText
    ids: list[int] = field(default_factory=list)
    logps: tuple[float, ...] = ()
    finish: str = ""
    found: Found | None = None


class Answers:
    """The answers to a request, side by side.

    Attributes:
      choices: each of them.
      usage: tokens of those that have ended.
    """

    def __init__(
        self,
        serving: Serving,
        texts: Sequence[ChoiceText],
        prompt_tokens: int,
        begun: str = "",
    ):
        """Nothing is asked yet.

        Args:
          serving: the model.
          texts: of each answer, without any token.
          prompt_tokens: of the prompts, each once.
          begun: text of the prompt that the answers go on with.
        """
        self._serving, self._begun = serving, begun
        self.choices = [Choice(number, text) for number, text in enumerate(texts)]
        self.usage = Usage(prompt=prompt_tokens)
        self._start = time.monotonic()

    def ask(self, makes: Sequence[Make], priority: int, streams: bool) -> Stream:
        """Starts the tasks; to be used in a `with` block.

        Args:
          makes: of each answer, whose result is a `Completion` or `Found`.
          priority: of the request.
          streams: whether tokens are wanted as they are sampled.
        """
        return self._serving.thread.asking(makes, self._serving.next_priority(priority), streams)

    async def score(
        self, sequences: Mapping[int, tuple[tuple[int, ...], int]], priority: int
    ) -> dict[int, LogpsCompletion]:
        """Log-probabilities of tokens, with the likeliest in their places.

        Args:
          sequences: by the number of a choice, token ids and the place of the first that is scored.
          priority: of the request.
        """
        numbers, found = list(sequences), {}
        makes = [_scoring(*sequences[number]) for number in numbers]
        with self.ask(makes, priority, streams=False) as stream:
            async for event in stream:
                if event.error is not None:
                    raise event.error
                found[numbers[event.choice]] = event.result
        return found

    async def deltas(self, stream: Stream) -> AsyncIterator[tuple[Choice, Delta]]:
        """Pieces of the answers as they come; with the last one of an answer, its `finish` is set.

        Raises:
          Exception: what made a task fail.
        """
        metrics, has_begun = self._serving.metrics, False
        async for event in stream:
            if event.error is not None:
                raise event.error
            if not has_begun:
                has_begun = True
                metrics.count_first_token(self._seconds)
            choice = self.choices[event.choice]
            yield choice, self._take(choice, event, stream)
        metrics.count_answers(self.usage, self._seconds)

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._start

    def _take(self, choice: Choice, event: Event, stream: Stream) -> Delta:
        """What an event adds to its answer."""
        result = event.result
        if isinstance(result, Found):
            choice.found, result = result, _as_completion(result)
        known = len(choice.ids)
        new = event.tokens if result is None else result.tokens[known:]
        delta = choice.text.add(new)
        used = new[: choice.text.num_tokens - known]  # up to a stop text
        choice.ids += used
        choice.logps += (event.logps if result is None else result.logps[known:])[: len(used)]
        if result is None and not choice.text.is_stopped:
            return delta
        if result is None:
            stream.cancel(choice.number)
        delta = joined(delta, choice.text.end())
        self._end(choice, result)
        return delta

    def _end(self, choice: Choice, completion: Completion | None) -> None:
        was_cut = completion is not None and completion.finish != "stop"
        choice.finish = "length" if was_cut and not choice.text.is_stopped else "stop"
        found, kept = choice.found, len(choice.ids)
        self.usage.generated += kept if found is None else found.answered.generated_tokens
        self.usage.kept += kept
        tokenizer = self._serving.tokenizer
        self.usage.reasoning += num_reasoning_tokens(tokenizer, choice.ids, self._begun)


def _scoring(tokens: tuple[int, ...], start: int) -> Make:
    return lambda answerer: answerer.logps_task(tokens, start)


def _as_completion(found: Found) -> Completion:
    answered = found.answered
    return Completion((), answered.tokens, finish="stop" if answered.finish == "stop" else "length")
