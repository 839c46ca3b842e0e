"""A model of inspect-ai that judges: our wordings, and our reading of what it replies."""

from collections.abc import Sequence
from typing import Any

from inspect_ai.model import ChatMessageAssistant, ChatMessageUser, GenerateConfig, Model, get_model

from stair_jax.endpoints.chat import ChatCompletion, ChatFinish, ChatRequest, Usage
from stair_jax.evaluation.judges.asked import AskedJudge
from stair_jax.evaluation.judges.endpoint import EndpointJudge
from stair_jax.evaluation.judges.judge import Judge, Material, Verdict
from stair_jax.evaluation.judges.rules import RuleJudge
from stair_jax.evaluation.judges.settings import JudgeSettings

RULE, ROLE = "rule", "grader"

_FINISH: dict[str, ChatFinish] = {
    "max_tokens": "length",
    "model_length": "length",
    "content_filter": "content_filter",
}


class InspectJudge(EndpointJudge):
    """Asks a model of inspect as an endpoint is asked: in the same words, twice where need be."""

    def __init__(self, name: str, settings: JudgeSettings):
        """A judge.

        Args:
          name: of the model, or "grader": the one with this role.
          settings: how it is asked; what they say of endpoints is not used.

        Raises:
          UserError: a file of the settings cannot be used.
        """
        super().__init__(settings)
        self.name = f"inspect:{name}"
        self._model = name

    def identity(self) -> dict[str, Any]:
        """The model that is asked, and how."""
        return AskedJudge.identity(self) | {"model": self._model}

    async def ask_model(self, request: ChatRequest) -> ChatCompletion:
        """The model's reply."""
        settings = self.settings
        config = GenerateConfig(temperature=settings.temperature, max_tokens=settings.max_tokens)
        output = await self._get_model().generate(_messages(request.messages), config=config)
        if output.error or not output.choices:
            return ChatCompletion(request.id, finish="missing", model=output.model)
        usage = output.usage
        return ChatCompletion(
            request.id,
            output.completion,
            _FINISH.get(output.stop_reason, "stop"),
            Usage(usage.input_tokens, usage.output_tokens) if usage else Usage(),
            model=output.model,
        )

    def _get_model(self) -> Model:
        return get_model(role=ROLE) if self._model == ROLE else get_model(self._model)


def make_judge(name: str) -> Judge:
    """A judge by its name: "rule", "grader" (the model of this role), or a model of inspect."""
    return RuleJudge() if name == RULE else InspectJudge(name, JudgeSettings())


async def judge_answer(judge: Judge, question: str, material: Material, key: str) -> Verdict:
    """The verdict of a judge, whose requests are asked one after another.

    Args:
      judge: of `make_judge`.
      question: that it `can` answer.
      material: what it is shown.
      key: of the answer, see `Judge.task`.
    """
    task = judge.task(question, material, key)
    waiting = list(task.start())
    while not task.done:
        assert isinstance(judge, InspectJudge), "a rule asks nobody"
        waiting += task.receive(await judge.ask_model(waiting.pop(0)))
    task.close()
    return task.result


def _messages(messages: Sequence[Any]) -> list[ChatMessageUser | ChatMessageAssistant]:
    kinds = {"user": ChatMessageUser, "assistant": ChatMessageAssistant}
    return [kinds[message["role"]](content=message["content"]) for message in messages]
