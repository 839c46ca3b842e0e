"""Thoughts of reasoning models: what a template opens, and what stands before an answer.

Templates such as those of the distillations of DeepSeek-R1 open a thought: their generation prompt
ends in "<think>" and a line break. A structured answer behind it would stand inside of the thought,
whose end then never comes. So what the template opens is closed at once, in the form in which
Qwen3's template writes an empty thought. This becomes a part of the template, which is saved with
the tokenizer: training, search and whoever serves the export see the same prompt.
"""

import re
from typing import TYPE_CHECKING

from stair_jax.errors import UserError
from stair_jax.text.chat_settings import ChatSettings
from stair_jax.text.rendering import USER, render, render_answer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_BEGIN, _END = "<think>", "</think>"
_OPEN = re.compile(r"<([A-Za-z][\w-]*)>(\s*)\Z")


def opened(hf: "PreTrainedTokenizerFast", chat: ChatSettings) -> str:
    """What closes the thought that the generation prompt opens; "" if it opens none.

    A mark that also stands open before the text of an assistant's turn belongs to the turn itself.

    Raises:
      UserError: as `rendering.render`.
    """
    tail = render(hf, chat).rpartition(USER)[2]
    mark = _OPEN.search(tail)
    if mark is None:
        return ""
    around = render_answer(hf, chat)
    if around is not None and around[0].rstrip().endswith(f"<{mark.group(1)}>"):
        return ""
    breaks = "\n" * max(0, 2 - mark.group(2).count("\n"))
    return f"{breaks}</{mark.group(1)}>\n\n"


def close_thoughts(hf: "PreTrainedTokenizerFast", chat: ChatSettings) -> str:
    """Lets a tokenizer's template close the thought that its generation prompt opens, in place.

    Returns:
      what is closed with, "" if nothing had to be.

    Raises:
      UserError: as `rendering.render`; or the template cannot be extended.
    """
    closing = opened(hf, chat)
    if not closing:
        return ""
    before = render(hf, chat)
    # Jinja leaves out one line break at the end of a template, but not in the middle of one.
    template = hf.get_chat_template().removesuffix("\n").removesuffix("\r")
    addition = "{{ " + repr(closing) + " if add_generation_prompt else '' }}"
    hf.chat_template = template + addition
    if render(hf, chat) != before + closing:
        raise UserError(
            "the chat template of the tokenizer opens a thought that cannot be closed: name one "
            "without it in model.chat_template"
        )
    return closing


def split_thought(text: str) -> tuple[str, str]:
    """(the thought that an answer begins with, what follows it); "" and the text if it has none.

    A thought that is never closed leaves no answer.
    """
    begun = text.lstrip()
    if not begun.startswith(_BEGIN):
        return "", text
    thought, _, rest = begun.removeprefix(_BEGIN).partition(_END)
    return thought.strip(), rest.lstrip()
