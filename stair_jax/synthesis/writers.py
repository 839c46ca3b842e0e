"""Who writes the answers: a local model over the engine of a driver.

A writer of another kind is another `Writer`, such as that of `endpoint_writer.py`: what follows
(the grammar, near-duplicates, verdicts, what is kept) looks at its `Writing` alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, replace
from typing import Protocol

from stair_jax.data.examples import encode_row, start_ids
from stair_jax.data.records import SynthesisPrompt
from stair_jax.decoding.requests import Completion, Handle, Request, request_key
from stair_jax.decoding.task import Task
from stair_jax.errors import UserError
from stair_jax.inference.candidates import end_ids
from stair_jax.search.judging.prefixes import Keeper
from stair_jax.synthesis.faults import ask_repair
from stair_jax.synthesis.records import Writing, Written
from stair_jax.synthesis.settings import WritingSettings
from stair_jax.synthesis.templates import fill_template
from stair_jax.text.tokenizer import Tokenizer

NO_ROOM = "prompt leaves no room in the context"
TOO_LONG = "prompt too long"
NO_PROMPT = "empty prompt"


class Writer(Protocol):
    """Writes answers to prompts."""

    def task(self, prompt: SynthesisPrompt, category: str) -> Task[Writing]:
        """A task whose result is the answers to a prompt of a category."""


def shown(prompt: SynthesisPrompt, settings: WritingSettings, policy: str) -> SynthesisPrompt:
    """The prompt as its writer sees it: the last turn of its chat in the template."""
    text = fill_template(settings.template_text, prompt.prompt, policy, prompt.answer or "")
    return replace(prompt, prompt=text)


def answered(prompt: SynthesisPrompt, text: str, turn: str) -> SynthesisPrompt:
    """A chat that goes on: behind the prompt stand an answer, and a turn of the user's."""
    said = ({"role": "user", "content": prompt.prompt}, {"role": "assistant", "content": text})
    return replace(prompt, history=(*(prompt.history or ()), *said), prompt=turn)


class LocalWriter:
    """Samples answers from the model of an engine, side by side.

    The random key of an answer is a hash of seed, prompt id and its number: it does not depend on
    what is written beside it.
    """

    def __init__(
        self,
        engine: Keeper,
        tokenizer: Tokenizer,
        settings: WritingSettings,
        policies: Mapping[str, str],
        seed: int,
        keeps_tokens: bool = False,
    ):
        """A writer.

        Args:
          engine: that samples, and keeps a prompt for its answers.
          tokenizer: of its model.
          settings: how it writes.
          policies: texts by category.
          seed: of the run.
          keeps_tokens: whether answers have their token ids beside their text.
        """
        self.keeps_tokens = keeps_tokens
        self.engine, self.tokenizer, self.settings, self.seed = engine, tokenizer, settings, seed
        self.sampling = settings.sampling(end_ids(tokenizer))
        self._policies = policies

    def task(self, prompt: SynthesisPrompt, category: str) -> Task[Writing]:
        """See `Writer.task`."""
        policy = self._policies.get(category, "")
        return LocalWriting(self, prompt, shown(prompt, self.settings, policy))


class LocalWriting(Task[Writing]):
    """The answers to one prompt, which share its keys and values in the engine's cache."""

    _handle: Handle | None = None

    def __init__(self, writer: LocalWriter, prompt: SynthesisPrompt, asked: SynthesisPrompt):
        """A task that has asked nothing yet; made by `LocalWriter.task`."""
        self._writer, self._prompt, self._asked = writer, prompt, asked
        self._written: dict[int, Written] = {}
        self._malformed: dict[int, Written] = {}  # those that are asked for once more
        self._has_room = True

    def start(self) -> list[Request]:
        """A request for each answer; none where the prompt is skipped."""
        writer, id = self._writer, self._prompt.id
        try:
            tokens = encode_row(writer.tokenizer, self._asked)
            tokens += start_ids(writer.tokenizer, self._asked)
        except UserError as error:
            if not self._prompt.is_chat:  # no prompt could be rendered
                raise
            return self._skip(str(error))
        if not self._prompt.prompt.strip():
            return self._skip(NO_PROMPT)
        if len(tokens) > writer.settings.max_prompt_tokens:
            return self._skip(TOO_LONG)
        self._handle = writer.engine.keep(tokens)
        return [
            Request(
                (number,),
                (),
                self._handle,
                writer.sampling,
                key=request_key(writer.seed, id, "synthesize", number),
            )
            for number in range(writer.settings.num_candidates)
        ]

    def receive(self, completion: Completion) -> list[Request]:
        """Takes an answer."""
        assert isinstance(completion.id, tuple)
        (number,) = completion.id
        if completion.finish == "too_long" and number in self._malformed:
            self._written[number] = self._malformed[number]
        else:
            self._has_room &= completion.finish != "too_long"
            self._written[number] = self._read(completion)
        if repair := self._repair(number, completion.tokens):
            return repair
        if len(self._written) < self._writer.settings.num_candidates:
            return []
        if not self._has_room:
            return self._skip(NO_ROOM)
        answers = tuple(self._written[n] for n in sorted(self._written))
        self.result = Writing(answers, repairs=len(self._malformed))
        return []

    def close(self) -> None:
        """Gives back what is kept of the prompt."""
        if self._handle is not None:
            self._writer.engine.release(self._handle)
            self._handle = None

    def _read(self, completion: Completion) -> Written:
        text = self._writer.tokenizer.decode(completion.tokens).rstrip()
        return Written(
            text if self._asked.start else text.lstrip(),
            completion.finish == "stop",
            tuple(completion.tokens) if self._writer.keeps_tokens else None,
        )

    def _repair(self, number: int, tokens: Sequence[int]) -> list[Request]:
        """The request for a malformed answer of these token ids anew.

        One with a start cannot be shown whole.
        """
        writer, answer = self._writer, self._written[number]
        turn = ask_repair(answer, writer.settings)
        if not turn or number in self._malformed or self._asked.start:
            return []
        self._malformed[number] = self._written.pop(number)
        chat = answered(self._asked, answer.text, turn)
        # A checkpoint without the tags writes them as text. Their tokens mean nothing to it yet.
        is_tagged = not set(astuple(writer.tokenizer.tags)).isdisjoint(tokens)
        asked = encode_row(writer.tokenizer, chat, tags_are_text=not is_tagged)
        key = request_key(writer.seed, self._prompt.id, "synthesize", number, "repair")
        return [Request((number,), tuple(asked), sampling=writer.sampling, key=key)]

    def _skip(self, reason: str) -> list[Request]:
        self.result = Writing(skipped=reason)
        return []
