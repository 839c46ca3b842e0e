"""Chat templates: prompts as token ids, rendered by the template of the checkpoint.

The template is rendered once with placeholders and cut at its control tokens. A user's text is then
encoded by a tokenizer without control tokens and put between them: a tag or a forged header in a
prompt can never become a control token.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from stair_jax.errors import UserError
from stair_jax.text.chat_settings import ChatSettings
from stair_jax.text.template_limits import render_within_limits
from stair_jax.text.tokenizer import (
    Tokenizer,
    add_tags,
    generation_fields,
    generation_stop_ids,
    load_huggingface,
)

_SYSTEM = "\ue000system text\ue000"  # private-use characters, which no template contains
_USER = "\ue000user text\ue000"


@dataclass(frozen=True)
class UserTurn:
    """What the chat template puts around the user's text.

    Attributes:
      before: token ids up to and including the last control token before the text.
      lead: template text between that token and the user's text.
      trail: template text after the user's text, up to the next control token.
      after: token ids from that control token on, up to where the answer starts.

    Lead, user text and trail are tokenised as one string, as transformers does: tokens may span
    their boundaries.
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
    """The tokenizer of a checkpoint, prepared for a run: tags, padding token, chat settings.

    Args:
      folder: a Hugging Face folder.
      system: text of a system turn (`ChatSettings.system`); None keeps that of the folder.
      chat_template: path of a Jinja file that replaces the checkpoint's template; "": none.
      template_values: variables of the template, merged into those of the folder.

    Raises:
      UserError: a file is missing or damaged, or the chat template cannot render a prompt. A
        checkpoint without a template is accepted here; `encode_prompt` then raises.
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
    """Token ids of a single user turn, up to where the answer starts.

    Equal to those of transformers' `apply_chat_template` with the generation prompt, with two
    exceptions. White space around the prompt is always stripped. And control tokens come from the
    template only: a tag or `<|eot_id|>` inside a prompt or system text stays plain text.

    Raises:
      UserError: the tokenizer has no chat template, or one that does not contain the user's text.
    """
    turn = user_turn(tokenizer)
    text = tokenizer.encode_text(turn.lead + prompt.strip() + turn.trail)
    return [*turn.before, *text, *turn.after]


# Tokenizers hash by identity.
@lru_cache(maxsize=8)
def user_turn(tokenizer: Tokenizer) -> UserTurn:
    """What the template of a tokenizer puts around the user's text.

    Raises:
      UserError: as `encode_prompt`.
    """
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
    """The rendered template, with placeholders for the texts of system and user."""
    if not tokenizer.hf.chat_template:
        raise UserError(
            "the tokenizer has no chat template: add chat_template.jinja to the folder of its "
            "checkpoint, or start from a checkpoint that was tuned for chat"
        )
    turns = [{"role": "user", "content": _USER}]
    if tokenizer.chat.system is not None:
        turns.insert(0, {"role": "system", "content": _SYSTEM})
    try:
        rendered = render_within_limits(tokenizer.hf, turns, True, tokenizer.chat.values)
    except Exception as error:  # a template is a program and may raise anything
        reason = " ".join(str(error).split())
        raise UserError(f"the chat template of the tokenizer fails: {reason}") from error
    # Templates may drop, repeat or escape a text; splitting at it would then go wrong.
    if rendered.count(_USER) != 1:
        raise UserError(
            "the chat template of the tokenizer must contain the user's text exactly once"
        )
    if rendered.count(_SYSTEM) != (tokenizer.chat.system is not None):
        raise UserError(
            "the chat template of the tokenizer must contain the system's text exactly once: "
            "leave system unset, or put its text into a template of your own"
        )
    return rendered


def _split_control(tokenizer: Tokenizer, rendered: str) -> Iterator[int | str]:
    """Splits a rendered template at its control tokens: yields token ids and the texts between."""
    control = set(tokenizer.hf.added_tokens_decoder)
    control.discard(tokenizer.hf.unk_token_id)  # a small vocabulary may encode placeholders as UNK
    encoded = tokenizer.hf.backend_tokenizer.encode(rendered, add_special_tokens=False)
    position = 0
    # By offsets, which include the white space that some added tokens strip around them.
    for token, (start, end) in zip(encoded.ids, encoded.offsets, strict=True):
        if token in control:
            if rendered[position:start]:
                yield rendered[position:start]
            yield token
            position = end
    if rendered[position:]:
        yield rendered[position:]


def encode_answer(tokenizer: Tokenizer, answer: str) -> list[int]:
    """Token ids of a whole answer, followed by the end-of-sequence token."""
    return [*tokenizer.encode_answer(answer), tokenizer.eos_id]
