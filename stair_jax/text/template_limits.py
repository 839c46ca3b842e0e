"""Chat templates rendered under limits of time, memory and size.

A template is a program of the checkpoint. Its sandbox keeps it from files, but not from loops
without end or texts of gigabytes, so it runs in a process of its own (`template_process.py`), which
is kept between renderings (`template_worker.py`).
"""

import json
import signal
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from stair_jax.text.template_worker import TemplateWorker, WorkerError

if TYPE_CHECKING:  # half a second: only where a tokenizer is loaded
    from transformers import PreTrainedTokenizerFast

# Far above what templates need: a few ms, a few MB and about the characters of their turns.
SECONDS = 2  # of the processor
MEGABYTES = 512
CHARACTERS = 1_000_000
_WAITING = 120.0  # seconds, for a machine that is busy
_TIME_SIGNALS = (signal.SIGXCPU, signal.SIGKILL)  # at the soft and at the hard limit
_ERRORS = {
    "memory": f"it takes more than {MEGABYTES} MB of memory",
    "time": f"it takes more than {SECONDS} s of computing",
    "size": f"it writes more than {CHARACTERS:,} characters",
    "crash": "it crashes the interpreter",
}


class TemplateError(Exception):
    """A template fails or exceeds a limit; the message says which, in one line."""


def render_within_limits(
    hf: "PreTrainedTokenizerFast",
    turns: Sequence[Mapping[str, str]],
    add_generation_prompt: bool,
    values: Mapping[str, Any],
    template: str | None = None,
) -> str:
    """As `hf.apply_chat_template` with `tokenize=False`, in a process with limits.

    Args:
      hf: the tokenizer whose template it is.
      turns: of a chat, each with "role" and "content".
      add_generation_prompt: whether the header of an answer follows them.
      values: variables of the template beside the turns and the special tokens.
      template: that is rendered; None: the tokenizer's own.

    Raises:
      TemplateError: the template fails or exceeds a limit.
      ValueError: the tokenizer has several templates, and none is the default.
    """
    return render_all_within_limits(hf, [turns], add_generation_prompt, values, template)[0]


def render_all_within_limits(
    hf: "PreTrainedTokenizerFast",
    chats: Iterable[Sequence[Mapping[str, str]]],
    add_generation_prompt: bool,
    values: Mapping[str, Any],
    template: str | None = None,
) -> tuple[str, ...]:
    """As `render_within_limits` for several chats, in one process whose limits are those of one."""
    common = {
        "tools": None,
        "documents": None,
        "add_generation_prompt": add_generation_prompt,
        **{name: str(token) for name, token in hf.special_tokens_map.items()},
        **values,
    }
    variables = [
        json.dumps({"messages": [dict(turn) for turn in turns], **common}) for turns in chats
    ]
    return _render(template or hf.get_chat_template(), tuple(variables))


_worker = TemplateWorker()


# A run loads the same tokenizer several times.
@lru_cache(maxsize=256)
def _render(template: str, variables: tuple[str, ...]) -> tuple[str, ...]:
    limits = {"seconds": SECONDS, "megabytes": MEGABYTES, "characters": CHARACTERS}
    request = {"template": template, "variables": variables, **limits}
    try:
        answer = _worker.ask(request, _WAITING)
    except WorkerError as error:
        # Killed: by the limit of time or, where memory is lacking in C code, by a crash.
        is_slow = error.signal is None or error.signal in _TIME_SIGNALS
        raise TemplateError(_ERRORS["time" if is_slow else "crash"]) from error
    if "texts" in answer:
        return tuple(map(str, answer["texts"]))
    reason = str(answer["error"])
    raise TemplateError(_ERRORS.get(reason, " ".join(reason.split())))
