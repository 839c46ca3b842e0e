"""Inspect's settings of one generation as ours; what we cannot do is said, never dropped."""

from dataclasses import dataclass, replace
from typing import Any

from inspect_ai.model import GenerateConfig

from stair_jax.errors import UserError
from stair_jax.inference.answers import is_search
from stair_jax.monitoring import say
from stair_jax.run.answer_models import AnswerSettings
from stair_jax.settings import require

_HEEDED = frozenset(
    ("temperature", "top_p", "top_k", "max_tokens", "seed", "stop_seqs", "num_choices")
)
# Inspect itself sees to these.
_OF_INSPECT = frozenset(
    (
        "max_retries",
        "timeout",
        "attempt_timeout",
        "max_connections",
        "adaptive_connections",
        "system_message",
        "max_tool_output",
        "reasoning_history",
        "cache",
        "fail_on_refusal",
    )
)
# Hints to services: without them an answer is still the one that was asked for.
_HINTS = frozenset(
    (
        "stream_idle_timeout",
        "parallel_tool_calls",
        "internal_tools",
        "cache_prompt",
        "verbosity",
        "effort",
        "reasoning_effort",
        "reasoning_mode",
        "reasoning_tokens",
        "reasoning_summary",
        "extra_headers",
        "batch",
    )
)
_WITHOUT_EFFECT = {"frequency_penalty": 0, "presence_penalty": 0, "best_of": 1, "logprobs": False}

_said: set[str] = set()


@dataclass(frozen=True)
class Asking:
    """How one chat is answered.

    Attributes:
      settings: of the answer.
      stop_seqs: texts that end it, and are no part of it.
      num_choices: answers to the chat.
    """

    settings: AnswerSettings
    stop_seqs: tuple[str, ...] = ()
    num_choices: int = 1


def read_config(config: GenerateConfig, settings: AnswerSettings) -> Asking:
    """How a chat is answered, by the settings of the model and what inspect asks for.

    A greedy answer with a temperature is sampled from the whole distribution, unless `top_p` or
    `top_k` are given too.

    Args:
      config: of the generation; fields that are None are those of the model.
      settings: of the model.

    Raises:
      UserError: a field is set that would change the answer and that we do not have.
    """
    values = {name: value for name, value in config if value is not None}
    _check(values)
    sampling = {name: values[name] for name in ("temperature", "top_p", "top_k") if name in values}
    if settings.method == "greedy" and values.get("temperature"):
        settings = replace(settings, method="sample")
        sampling = {"top_p": 1.0, "top_k": 0} | sampling
    elif settings.method == "greedy" and sampling.keys() & {"top_p", "top_k"}:
        _say_once("top_p and top_k change nothing about greedy answers: set temperature too")
    changed: dict[str, Any] = sampling
    if "max_tokens" in values:
        changed["max_answer_tokens"] = values["max_tokens"]
        changed["max_step_tokens"] = min(settings.max_step_tokens, values["max_tokens"])
    if "seed" in values:
        changed["seed"] = values["seed"]
    stops = tuple(filter(None, values.get("stop_seqs", ())))
    require(
        not stops or not is_search(settings.method),
        f"stop_seqs would cut what {settings.method} has chosen: use method greedy or sample",
    )
    return Asking(replace(settings, **changed), stops, values.get("num_choices", 1))


def _check(values: dict[str, Any]) -> None:
    """Raises a UserError, or says once, what we do not have."""
    left = values.keys() - _HEEDED - _OF_INSPECT
    left = {name for name in left if _WITHOUT_EFFECT.get(name) != values[name]}
    if wrong := sorted(left - _HINTS):
        raise UserError(
            f"stair_jax models have no {', '.join(wrong)}: leave it out of the generation settings"
        )
    for name in sorted(left):
        _say_once(f"stair_jax models know no {name}: it has no effect")


def _say_once(line: str) -> None:
    if line not in _said:
        _said.add(line)
        say(f"inspect: {line}")
