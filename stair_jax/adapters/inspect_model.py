"""Our engine as a model of inspect-ai: `inspect eval task.py --model stair_jax/MODEL`.

MODEL is a Hugging Face folder, a stage of a run, a hub id, or "pocket". `-M` gives arguments:
`prm`, `kind`, and the fields of `AnswerSettings`, such as `-M method=best_of_n -M prm=runs/a/prm`.
"""

import time
from collections import Counter
from typing import Any

from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    GenerateConfig,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    StopReason,
)
from inspect_ai.tool import ToolChoice, ToolInfo

from stair_jax.adapters.inspect_config import Asking, read_config
from stair_jax.adapters.inspect_errors import shown_by_inspect
from stair_jax.adapters.inspect_messages import DETAILS, content_of, messages_of
from stair_jax.data.questions import Message, Question, with_system
from stair_jax.data.records import KINDS
from stair_jax.decoding.task import GatherTask, Task
from stair_jax.inference.answers import Answered
from stair_jax.run.answer_models import AnswerSettings, find_files
from stair_jax.run.answering import Answerer, load_answerer
from stair_jax.run.answering_thread import AnsweringThread
from stair_jax.settings import build, require
from stair_jax.storage import fingerprint
from stair_jax.text import steps

_SIDE_BY_SIDE = 64
_ID_LENGTH = 16  # hexadecimal digits of a hash


class StairJaxAPI(ModelAPI):
    """A model whose chats are answered side by side, by any of our methods."""

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig | None = None,
        prm: str = "",
        kind: str = "helpfulness",
        **settings: Any,
    ):
        """Checks what can be checked of the model; its weights are read for the first chat.

        Args:
          model_name: of a model, see `model_folders.find_model`.
          base_url: none: the model runs here.
          api_key: none is needed.
          config: what inspect asks of all generations.
          prm: the reward model that guides a search.
          kind: of prompts, for self-reward: "safety" or "helpfulness".
          **settings: fields of `AnswerSettings`.

        Raises:
          PrerequisiteError: the model cannot be read, or an argument cannot be.
        """
        config = config or GenerateConfig()
        super().__init__(model_name, base_url, api_key, [], config)
        with shown_by_inspect():
            require(base_url is None, "stair_jax models run here: leave base_url out")
            require(kind in KINDS, f"kind is {kind!r}: use {' or '.join(KINDS)}")
            self._settings = build(AnswerSettings, settings, "model_args")
            read_config(config, self._settings)
            files, folder = find_files(model_name, prm, self._settings)
        self._kind, self._tokenizer = kind, files.tokenizer
        self._connections = config.max_connections or _SIDE_BY_SIDE
        self._thread = AnsweringThread(
            lambda: load_answerer(files, folder, self._settings, self._connections)
        )
        # How often each chat was asked, so that its samples differ.
        self._asked: Counter[str] = Counter()

    async def generate(
        self,
        input: list[ChatMessage],
        tools: list[ToolInfo],
        tool_choice: ToolChoice,
        config: GenerateConfig,
    ) -> ModelOutput:
        """The answer to a chat, in a batch with those that are asked meanwhile.

        The first ask of a chat has its own random key, the second another one, and so on: epochs
        differ, and the same evaluation in a new process gives the same answers.

        Raises:
          UserError: the chat or the settings hold what our models do not know.
        """
        require(not tools, "stair_jax models call no tools: choose a task or solver without them")
        asking = read_config(config, self._settings)
        chat = with_system(messages_of(input), self._settings.system)
        names = [self._name(chat) for _ in range(asking.num_choices)]
        start = time.monotonic()
        answers = await self._thread.ask(lambda answerer: self._task(answerer, chat, names, asking))
        seconds = time.monotonic() - start
        return ModelOutput(
            model=self.model_name,
            choices=[self._choice(answered, asking) for answered in answers],
            usage=self._usage(answers),
            time=seconds,
            metadata={DETAILS: [_details(answered, asking) for answered in answers]},
        )

    def close(self) -> None:
        """Ends the thread that answers."""
        self._thread.close()

    def max_connections(self) -> int:
        """Chats that are answered side by side, where inspect is not told."""
        return self._connections

    def connection_key(self) -> str:
        """Each model has a batch of its own."""
        return self.model_name

    def max_tokens(self) -> int | None:
        """Most tokens of an answer."""
        return self._settings.max_answer_tokens

    def collapse_user_messages(self) -> bool:
        """Templates of chats want turns by turns."""
        return True

    def collapse_assistant_messages(self) -> bool:
        """As those of the user."""
        return True

    def collapse_system_messages(self) -> bool:
        """As those of the user."""
        return True

    async def count_text_tokens(self, text: str) -> int:
        """Number of tokens of a text, by the model's own tokenizer."""
        return len(self._tokenizer.encode_text(text))

    async def tokenize(self, text: str) -> list[int]:
        """Token ids of a text."""
        return list(self._tokenizer.encode_text(text))

    def _name(self, chat: tuple[Message, ...]) -> str:
        """What the random keys of an answer are drawn from."""
        name = fingerprint(chat)[:_ID_LENGTH]
        self._asked[name] += 1
        count = self._asked[name]
        return name if count == 1 else f"{name}-{count}"

    def _task(
        self, answerer: Answerer, chat: tuple[Message, ...], names: list[str], asking: Asking
    ) -> Task[list[Answered]]:
        questions = [Question(name, chat, self._kind) for name in names]
        tokens = answerer.encode(questions[0])
        return GatherTask(answerer.task(one, tokens, asking.settings) for one in questions)

    def _choice(self, answered: Answered, asking: Asking) -> ChatCompletionChoice:
        text, was_stopped = _until(answered.text, asking.stop_seqs)
        reason: StopReason = "stop"
        if answered.finish == "too_long":
            reason = "model_length"
        elif answered.finish == "length" and not was_stopped:
            is_full = len(answered.tokens) >= asking.settings.max_answer_tokens
            reason = "max_tokens" if is_full else "model_length"
        message = ChatMessageAssistant(
            content=content_of(text), model=self.model_name, source="generate"
        )
        return ChatCompletionChoice(message=message, stop_reason=reason)

    def _usage(self, answers: list[Answered]) -> ModelUsage:
        """Tokens of the prompt once, and all that were sampled, those of a search included."""
        read = answers[0].prompt_tokens
        written = sum(answered.generated_tokens for answered in answers)
        return ModelUsage(
            input_tokens=read,
            output_tokens=written,
            total_tokens=read + written,
            reasoning_tokens=sum(self._reasoning_tokens(answered) for answered in answers),
        )

    def _reasoning_tokens(self, answered: Answered) -> int:
        """Tokens up to the end of the last step, or all where a step is open."""
        tags, tokens = self._tokenizer.tags, answered.tokens
        if tags.output_open in tokens:
            return tokens.index(tags.output_open)
        return len(tokens) if tags.reasoning_open in tokens else 0


def _until(text: str, stops: tuple[str, ...]) -> tuple[str, bool]:
    """(a text up to the first of the stop texts in it, whether there is one)."""
    places = [place for place in (text.find(stop) for stop in stops) if place >= 0]
    return (text[: min(places)], True) if places else (text, False)


def _details(answered: Answered, asking: Asking) -> dict[str, Any]:
    """What inspect has no field for."""
    text, _ = _until(answered.text, asking.stop_seqs)
    return {
        "text": text,
        "method": asking.settings.method,
        "finish": answered.finish,
        "tokens": len(answered.tokens),
        "generated_tokens": answered.generated_tokens,
        "steps": len(steps.parse_tolerant(text).steps),
        "score": answered.score,
        "well_formed": steps.is_well_formed(text),
    }
