"""Prompts as token ids, by the chat template of the checkpoint."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from stair_jax.errors import UserError
from stair_jax.text.chat_settings import ChatSettings
from stair_jax.text.tokenizer import (
    Tokenizer,
    add_tags,
    generation_fields,
    generation_stop_ids,
    load_huggingface,
)

_SYSTEM = "\ue000system text\ue000"  # private-use characters: no template holds them
_USER = "\ue000user text\ue000"


@dataclass(frozen=True)
class UserTurn:
    """What stands around the text of a user.

    Attributes:
      before: token ids, up to the last control token in front of the text.
      lead: the template's text that follows it.
      trail: the template's text after the user's.
      after: token ids, from the next control token on.

    The text between two control tokens is tokenised as one, as transformers does it.
    """

    before: tuple[int, ...]
    lead: str
    trail: str
    after: tuple[int, ...]


def prepare_tokenizer(
    folder: Path,
    system: str | None = None,
    chat_template: str = "",
    template_values: Mapping[str, Any] | None = None,
) -> Tokenizer:
    """The tokenizer of a checkpoint with what a run needs: tags, a padding token, chat settings.

    Args:
      folder: a Hugging Face folder.
      system: text of a system turn (`ChatSettings.system`); None keeps what the folder says.
      chat_template: path of a jinja file that replaces the checkpoint's template, if not empty.
      template_values: variables of the template, beside those that the folder says.

    Raises:
      UserError: a file is missing or damaged, or the chat template does not render a prompt. A
        checkpoint without a template is let through: `encode_prompt` asks for it.
    """
    hf = load_huggingface(folder)
    stop_ids = generation_stop_ids(folder)
    add_tags(hf, stop_ids)
    if chat_template:
        hf.chat_template = _read_template(Path(chat_template).expanduser())
    saved = ChatSettings.load(folder)
    chat = ChatSettings(
        saved.system if system is None else system,
        {**saved.template_values, **(template_values or {})},
    )
    tokenizer = Tokenizer(hf, stop_ids, chat, generation_fields(folder))
    if hf.chat_template or chat_template:
        try:
            user_turn(tokenizer)
        except UserError as error:
            raise UserError(f"{chat_template or folder}: {error}") from error
    return tokenizer


def _read_template(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise UserError(f"cannot read the chat template {path}: {reason}") from error


def encode_prompt(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """Token ids of one user turn, up to where the answer starts, by `tokenizer.chat`.

    They are those of transformers' `apply_chat_template`, with two exceptions. Space around the
    prompt is left out whether or not the template does so. And only the template has control
    tokens: a tag or `<|eot_id|>` inside a prompt, or a system turn, stays text.

    Raises:
      UserError: the tokenizer has no chat template, or one that does not hold the user's text.
    """
    turn = user_turn(tokenizer)
    text = tokenizer.encode_text(turn.lead + prompt.strip() + turn.trail)
    return [*turn.before, *text, *turn.after]


@lru_cache(maxsize=8)
def user_turn(tokenizer: Tokenizer) -> UserTurn:
    """What the template puts around the text of a user."""
    rendered = _render(tokenizer)
    system = (tokenizer.chat.system or "").strip()
    before: list[int] = []
    after: list[int] = []
    ids, lead, trail = before, "", ""
    for part in _split_control(tokenizer, rendered):
        if isinstance(part, int):
            ids.append(part)
        elif _USER in part:
            lead, trail = (side.replace(_SYSTEM, system) for side in part.split(_USER))
            ids = after
        else:
            ids += tokenizer.encode_text(part.replace(_SYSTEM, system))
    return UserTurn(tuple(before), lead, trail, tuple(after))


def _render(tokenizer: Tokenizer) -> str:
    """The template's text, with placeholders for the system's and the user's."""
    if not tokenizer.hf.chat_template:
        raise UserError(
            "the tokenizer has no chat template: add chat_template.jinja to the folder of its "
            "checkpoint, or start from a checkpoint that was tuned for chat"
        )
    turns = [{"role": "user", "content": _USER}]
    if tokenizer.chat.system is not None:
        turns.insert(0, {"role": "system", "content": _SYSTEM})
    try:
        rendered = str(
            tokenizer.hf.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=True, **tokenizer.chat.values
            )
        )
    except Exception as error:  # a template is a program: it may fail in any way
        reason = " ".join(str(error).split())
        raise UserError(f"the chat template of the tokenizer fails: {reason}") from error
    if rendered.count(_USER) != 1:
        raise UserError("the chat template of the tokenizer does not hold the user's text once")
    if rendered.count(_SYSTEM) != (tokenizer.chat.system is not None):
        raise UserError(
            "the chat template of the tokenizer does not hold the system's text once: "
            "leave system unset, or put its text into a template of your own"
        )
    return rendered


def _split_control(tokenizer: Tokenizer, rendered: str) -> Iterator[int | str]:
    """Cuts a rendered template at its control tokens."""
    control = set(tokenizer.hf.added_tokens_decoder)
    control.discard(tokenizer.hf.unk_token_id)  # what a placeholder may be to a small vocabulary
    encoded = tokenizer.hf.backend_tokenizer.encode(rendered, add_special_tokens=False)
    position = 0
    for token, (start, end) in zip(encoded.ids, encoded.offsets, strict=True):
        if token in control:
            if rendered[position:start]:
                yield rendered[position:start]
            yield token
            position = end
    if rendered[position:]:
        yield rendered[position:]


def encode_answer(tokenizer: Tokenizer, answer: str) -> list[int]:
    """Token ids of a whole answer, closed by the end-of-sequence token."""
    return [*tokenizer.encode_answer(answer), tokenizer.eos_id]
