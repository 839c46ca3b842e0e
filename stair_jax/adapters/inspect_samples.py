"""Our graded answers as samples of inspect-ai's logs."""

from collections.abc import Sequence
from typing import Any

from inspect_ai.log import EvalSample
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    Content,
    ContentReasoning,
    ContentText,
    ModelOutput,
    ModelUsage,
    StopReason,
)

from stair_jax.adapters.inspect_messages import chat_of, content_of
from stair_jax.adapters.inspect_results import Grade
from stair_jax.adapters.inspect_scores import score_of
from stair_jax.evaluation.benchmark import text_of
from stair_jax.evaluation.case import Answer, Case
from stair_jax.storage import fingerprint, plain
from stair_jax.text import steps

OWN = "stair_jax"  # our provider of models, and who grades where no judge does

_REASONS: dict[str, StopReason] = {
    "stop": "stop",
    "length": "max_tokens",
    "too_long": "model_length",
    "content_filter": "content_filter",
}
_ID_LENGTH = 22


def eval_sample(answer: Answer, case: Case | None, grades: Sequence[Grade]) -> EvalSample:
    """An answer as a sample; several answers to a case are its epochs.

    Args:
      answer: the answer.
      case: that was asked; None: its row is not there, and the prompt is empty unless an attack
        made it.
      grades: of the answer.
    """
    asked = answer.asked.get("messages") or (case.messages if case else ())
    name = fingerprint(
        [answer.model, answer.method, answer.benchmark, answer.attack, answer.case, answer.sample]
    )[:_ID_LENGTH]
    messages = chat_of(asked)
    output = _output(answer, f"{name}-answer")
    for number, message in enumerate(messages):
        message.id = f"{name}-{number}"  # else a random one
    is_single = len(messages) == 1
    usage = output.usage or ModelUsage()
    return EvalSample(
        id=answer.case,
        epoch=answer.sample + 1,
        uuid=name,
        input=messages[0].text if is_single else messages,
        choices=list(case.choices) or None if case else None,
        target=text_of(case.reference) if case else "",
        messages=[*messages, *_said(output)],
        output=output,
        scores={
            grade.judge or OWN: score_of(answer, grade.scores, grade.verdict) for grade in grades
        }
        or None,
        metadata=_metadata(answer, case),
        model_usage={f"{OWN}/{answer.model}": usage},
    )


def _said(output: ModelOutput) -> list[ChatMessage]:
    return [output.choices[0].message] if output.choices else []


def _output(answer: Answer, id: str) -> ModelOutput:
    message = ChatMessageAssistant(
        id=id, content=_content(answer), source="generate", model=answer.model
    )
    reason = _REASONS.get(answer.finish, "unknown")
    return ModelOutput(
        model=answer.model,
        choices=[ChatCompletionChoice(message=message, stop_reason=reason)],
        usage=ModelUsage(
            input_tokens=answer.prompt_tokens,
            output_tokens=answer.generated_tokens,
            total_tokens=answer.prompt_tokens + answer.generated_tokens,
        ),
    )


def _content(answer: Answer) -> str | list[Content]:
    if answer.reasoning and not steps.TAG_PATTERN.search(answer.text):  # told by an endpoint
        return [ContentReasoning(reasoning=answer.reasoning), ContentText(text=answer.text)]
    return content_of(answer.text)


def _metadata(answer: Answer, case: Case | None) -> dict[str, Any]:
    """What inspect has no field for."""
    row = answer.to_dict()
    left_out = {"final", "reasoning", "benchmark", "case", "sample", "model", "prompt_tokens"}
    found = {name: value for name, value in row.items() if name not in left_out}
    found |= {"finish": answer.finish, "cut": answer.is_cut}
    if case is not None:
        found |= {"prompt": case.prompt, "group": case.group, "columns": plain(case.columns)}
    return found
