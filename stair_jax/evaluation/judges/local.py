"""A language model of our own that judges: its requests, and what it makes of their completions."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from stair_jax.decoding.requests import Completion, Request, Sampling
from stair_jax.decoding.task import Task
from stair_jax.errors import UserError
from stair_jax.evaluation.judges.asked import AskedJudge
from stair_jax.evaluation.judges.choosing import LEAST_MASS, chances_of, likeliest_spelling
from stair_jax.evaluation.judges.grading import Outcome
from stair_jax.evaluation.judges.judge import Material
from stair_jax.evaluation.judges.reading import read
from stair_jax.evaluation.judges.settings import JudgeSettings
from stair_jax.evaluation.judges.wordings import Part, Wording
from stair_jax.search.judging.fence import mark_of
from stair_jax.search.judging.templates import label_ids
from stair_jax.text.chat import encode_prompt
from stair_jax.text.rendering import split_control
from stair_jax.text.tokenizer import Tokenizer

_ID = ("ask",)  # one request of a task is under way at a time
_CLOSING = "Conclusion: ["  # of a reply that had none, where the wording has no lead-in


class LocalJudge(AskedJudge):
    """Asks an engine; its service must be known to the driver by the name given here."""

    def __init__(
        self,
        name: str,
        tokenizer: Tokenizer,
        settings: JudgeSettings,
        service: str = "",
        checkpoint: str = "",
    ):
        """Finds the token ids of the labels.

        Args:
          name: of the judge.
          tokenizer: of the model.
          settings: how it is asked.
          service: where its requests go: "" is the engine of the driver.
          checkpoint: what identifies the weights, such as a commit or a hash.

        A question that the model cannot be asked is left out, see `reasons`: it has no chat
        template, or log-probabilities are what counts and two labels share their first token.

        Raises:
          UserError: a file of the settings cannot be used.
        """
        super().__init__(name, settings)
        self.tokenizer, self.service, self._checkpoint = tokenizer, service, checkpoint
        self._sampling = Sampling(
            temperature=settings.temperature,
            max_tokens=settings.max_tokens,
            # A model trained on structured answers may end its reply with an output block.
            stop_ids=tuple(dict.fromkeys([*tokenizer.stop_ids, tokenizer.tags.output_close])),
        )
        self._labels: dict[str, tuple[tuple[int, ...], ...]] = {}
        for question, wording in self.wordings.items():
            self._prepare(question, wording)

    def identity(self) -> dict[str, Any]:
        """The checkpoint, and how it is asked."""
        return super().identity() | {"checkpoint": self._checkpoint}

    def ask(self, question: str, material: Material, key: tuple[int, int]) -> "LocalAsking":
        """A task of one prompt."""
        return LocalAsking(self, self.wordings[question], material, key)

    def prompt(self, wording: Wording, material: Material, mark: str) -> tuple[int, ...]:
        """Token ids up to where the reply begins.

        Control tokens come from the chat template, or from the text of a raw wording, alone: those
        in the material stay text.
        """
        tokenizer = self.tokenizer
        if not wording.raw:
            return tuple(encode_prompt(tokenizer, wording.write(material, mark)))
        ids: list[int] = []
        for piece in split_control(tokenizer.hf, wording.whole):
            if isinstance(piece, int):
                ids.append(piece)
            else:
                ids += tokenizer.encode_text(wording.fill(piece, material, mark))
        return tuple(ids)

    def sample(self, tokens: tuple[int, ...], key: tuple[int, int]) -> Request:
        """The request for a reply."""
        return Request(_ID, tokens, sampling=self._sampling, key=key, service=self.service)

    def score(self, wording: Wording, part: int, tokens: tuple[int, ...]) -> Request:
        """The request for the log-probabilities of a part's labels behind tokens."""
        ids = self._labels[wording.question][part]
        return Request(_ID, tokens, score_ids=ids, service=self.service)

    def without_end(self, tokens: Sequence[int]) -> tuple[int, ...]:
        """A reply without the tokens that end it."""
        ids = list(tokens)
        while ids and ids[-1] in self._sampling.stop_ids:
            ids.pop()
        return tuple(ids)

    def can_score(self, question: str) -> bool:
        """Whether the log-probabilities of the labels can be asked for."""
        return question in self._labels

    def lead_in(self, part: Part) -> str:
        """What stands before a label: behind a reply it needs something that leads in to it."""
        is_first = self.settings.mode == "expected"
        return part.lead_in or ("" if is_first else _CLOSING)

    def _prepare(self, question: str, wording: Wording) -> None:
        """Finds the ids of a wording's labels, or the reason why it cannot be asked."""
        if not wording.raw and not self.tokenizer.hf.chat_template:
            self.reasons[question] = (
                f"{self.name} has no chat template: give wordings.{question} a text with the "
                "model's own control tokens and the header line 'raw: yes'"
            )
        try:
            self._labels[question] = tuple(
                label_ids(self.tokenizer, self.lead_in(part), part.scored) for part in wording.parts
            )
        except UserError as error:
            if self.settings.mode == "expected":  # else a reply is read without them too
                self.reasons.setdefault(question, f"{self.name}, {question}: {error}")


class LocalAsking(Task[Outcome]):
    """One prompt: a reply, or the log-probabilities of labels, part by part."""

    def __init__(
        self, judge: LocalJudge, wording: Wording, material: Material, key: tuple[int, int]
    ):
        """Nothing is asked yet."""
        self._judge, self._wording, self._key = judge, wording, key
        self._tokens = judge.prompt(wording, material, mark_of(key))
        self._stage: Literal["reply", "labels"] = "reply"
        self._found: dict[str, Mapping[str, float]] = {}
        self._text, self._generated, self._least_mass = "", 0, 0.0

    def start(self) -> list[Request]:
        """The first request."""
        if self._judge.settings.mode == "expected":
            return self._next_part()
        return [self._judge.sample(self._tokens, self._key)]

    def receive(self, completion: Completion) -> list[Request]:
        """Reads a reply, or the log-probabilities of a part."""
        if self._stage == "labels":
            return self._take(completion)
        judge = self._judge
        self._generated = len(completion.tokens)
        self._text = judge.tokenizer.decode(completion.tokens)
        # Of one that was cut off, a verdict in it may not be the last word.
        found = read(self._wording, self._text) if completion.finish == "stop" else None
        if found is None and completion.finish != "too_long" and self._may_close:
            self._least_mass = LEAST_MASS
            self._tokens += judge.without_end(completion.tokens)
            return self._next_part("\n")
        return self._end(found)

    @property
    def _may_close(self) -> bool:
        return self._judge.settings.ask_closing and self._judge.can_score(self._wording.question)

    def _next_part(self, before: str = "") -> list[Request]:
        """Asks for the label of the next part, behind what stands before it and its lead-in."""
        self._stage = "labels"
        part = self._wording.parts[len(self._found)]
        text = before + self._judge.lead_in(part)
        self._tokens += tuple(self._judge.tokenizer.encode_text(text)) if text else ()
        return [self._judge.score(self._wording, len(self._found), self._tokens)]

    def _take(self, completion: Completion) -> list[Request]:
        parts = self._wording.parts
        part = parts[len(self._found)]
        chances = chances_of(part, completion.scores, self._least_mass)
        if chances is None:
            return self._end(None)
        self._found[part.name] = chances
        if len(self._found) == len(parts):
            return self._end(self._found)
        return self._next_part(f"{likeliest_spelling(part, chances)}]\n")

    def _end(self, found: Mapping[str, Mapping[str, float]] | None) -> list[Request]:
        self.result = Outcome(found, self._text, self._generated)
        return []
