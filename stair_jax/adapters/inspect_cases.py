"""Cases of our benchmarks as samples of inspect-ai, and what came of them as our answers."""

import random
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from inspect_ai.dataset import Sample
from inspect_ai.model import (
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageUser,
    ContentReasoning,
    ModelOutput,
)

from stair_jax.adapters.inspect_model import DETAILS
from stair_jax.data.questions import Message
from stair_jax.errors import UserError
from stair_jax.evaluation.asking import AskedSet
from stair_jax.evaluation.attacks.attack import Transform
from stair_jax.evaluation.benchmark import text_of
from stair_jax.evaluation.case import Answer, Case
from stair_jax.evaluation.target import Asked
from stair_jax.storage import plain
from stair_jax.text import steps

CASE, BENCHMARK, ATTACK = "case", "benchmark", "attack"  # keys of a sample's metadata

_TURNS = {"system": ChatMessageSystem, "user": ChatMessageUser, "assistant": ChatMessageAssistant}
_FINISH = {"max_tokens": "length", "model_length": "length", "content_filter": "content_filter"}
_OF_ANSWERS = ("text", "method", "finish", "tokens", "generated_tokens", "steps", "score")


def samples_of(asked: AskedSet, seed: int) -> Iterator[Sample]:
    """The samples of a benchmark under an attack, in the order of its cases.

    Those of several chats to a case have the case's id, "/" and a number. A case that a stored
    attack has no prompt for has no sample.

    Args:
      asked: with an attack that makes its prompts at once.
      seed: of the attack, as that of a run.

    Raises:
      UserError: log-likelihoods are asked for, or the attack needs more than a prompt.
    """
    if asked.is_scored:
        raise UserError(
            f"{asked.benchmark.NAME} compares log-likelihoods of given answers, which models of "
            "inspect do not have: use stair-jax evaluate, or lm-eval"
        )
    for case in asked.cases:
        chats = _chats(asked, case, seed)
        for number, chat in enumerate(chats):
            id = case.id if len(chats) == 1 else f"{case.id}/{number}"
            yield _sample(asked, case, chat, id)


def case_of(metadata: Mapping[str, Any]) -> Case:
    """The case of a sample, by its metadata."""
    row = dict(metadata[CASE])
    row |= {"choices": tuple(row["choices"]), "history": tuple(row["history"])}
    return Case(**row)


def answer_of(case: Case, output: ModelOutput, metadata: Mapping[str, Any]) -> Answer:
    """The output of any model as our answer.

    Args:
      case: that was asked.
      output: its first choice counts.
      metadata: of the sample.
    """
    known = Answer(metadata[BENCHMARK], case.id, metadata[ATTACK], model=output.model)
    if output.error or not output.choices:
        return Answer(**vars(known) | {"finish": "missing"})
    choice = output.choices[0]
    details = (output.metadata or {}).get(DETAILS)
    own = details[0] if details else {}
    text = own.get("text", output.completion)
    written = output.usage.output_tokens if output.usage else 0
    values: dict[str, Any] = {
        "text": text,
        "reasoning": text.rpartition(steps.OUTPUT_OPEN)[0].strip() or _reasoning(choice.message),
        "final": steps.final_answer(text),
        "finish": _FINISH.get(choice.stop_reason, "stop"),
        "prompt_tokens": output.usage.input_tokens if output.usage else 0,
        "tokens": written,
        "generated_tokens": written,
        "well_formed": steps.is_well_formed(text),
    }
    return Answer(**vars(known) | values | {name: own[name] for name in _OF_ANSWERS if name in own})


def chat_of(messages: tuple[Message, ...]) -> list[ChatMessage]:
    """Our messages as those of inspect."""
    return [_TURNS[message["role"]](content=message["content"]) for message in messages]


def _chats(asked: AskedSet, case: Case, seed: int) -> list[Asked]:
    attack = asked.attack
    if not isinstance(attack, Transform):
        raise UserError(
            f"the attack {attack.name} goes on from what the model says, which a task of inspect "
            "cannot: use stair-jax evaluate"
        )
    chats = list(attack.apply(case, random.Random(f"{seed}/{attack.name}/{case.id}")))
    for chat in chats:
        if chat.prefill or chat.temperature is not None or chat.top_p is not None:
            raise UserError(
                f"the attack {attack.name} changes more than the prompt, which a task of inspect "
                "cannot: use stair-jax evaluate"
            )
    return chats


def _sample(asked: AskedSet, case: Case, chat: Asked, id: str) -> Sample:
    messages = tuple(dict(message) for message in chat.messages)
    is_single = len(messages) == 1
    return Sample(
        input=messages[0]["content"] if is_single else chat_of(messages),
        target=text_of(case.reference),
        id=id,
        metadata={
            CASE: plain(asdict(case)),
            BENCHMARK: asked.benchmark.NAME,
            ATTACK: asked.attack.name,
        },
    )


def _reasoning(message: ChatMessageAssistant) -> str:
    if isinstance(message.content, str):
        return ""
    thoughts = (part.reasoning for part in message.content if isinstance(part, ContentReasoning))
    return "\n\n".join(thoughts)
