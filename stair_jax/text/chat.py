"""Chat templates: prompts as token ids, rendered by the template of the checkpoint.

The template is rendered once with placeholders and cut at its control tokens. A user's text is then
encoded by a tokenizer without control tokens and put between them: a tag or a forged header in a
prompt can never become a control token.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stair_jax.errors import UserError
from stair_jax.text.chat_settings import ChatSettings
from stair_jax.text.endings import generation_fields, stored_stop_ids, template_end
from stair_jax.text.rendering import SYSTEM, USER, render, split_control
from stair_jax.text.thoughts import close_thoughts
from stair_jax.text.tokenizer import Tokenizer, add_tags, load_huggingface

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SHIPPED = Path(__file__).parent / "templates"  # chat templates that come with the package
_MARK = re.compile(r"<\|[^<>|\s]+\|>")
# What a template might change of a text: letters, marks of HTML and Jinja, quotes, line breaks.
_TEXTS = (
    "The quick brown fox, JUMPS over 1 lazy dog?",
    '<b>&amp; "it\'s" {{ x }} {% y %} [z] \\n\n\n# \u00e9 \u65e5\u672c',
)


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
      chat_template: what replaces the checkpoint's template: the name of one that comes with the
        package (`SHIPPED`), or the path of a Jinja file; "": nothing.
      template_values: variables of the template, merged into those of the folder.

    Raises:
      UserError: a file is missing or damaged, or the chat template cannot render a prompt. A
        checkpoint without a template is accepted here; `encode_prompt` then raises.
    """
    hf = load_huggingface(folder)
    if chat_template:
        hf.chat_template = _read_template(chat_template)
    saved = ChatSettings.load(folder)
    chat = ChatSettings(
        saved.system if system is None else system,
        {**saved.template_values, **(template_values or {})},
    )
    stop_ids = stored_stop_ids(folder, hf)
    has_template = bool(hf.chat_template or chat_template)
    try:
        if has_template:
            close_thoughts(hf, chat)
        if chat_template in _shipped():
            _check_marks(hf, chat)
        end = template_end(hf, chat, {hf.eos_token_id, *stop_ids})
        add_tags(hf, stop_ids if end is None else [*stop_ids, end])
        tokenizer = Tokenizer(hf, stop_ids, chat, generation_fields(folder))
        if has_template:
            user_turn(tokenizer)
    except UserError as error:
        raise UserError(f"{chat_template or folder}: {error}") from error
    return tokenizer


def _read_template(name: str) -> str:
    shipped = _shipped()
    path = SHIPPED / f"{name}.jinja" if name in shipped else Path(name).expanduser()
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise UserError(
            f"cannot read the chat template {path}: {reason}; name a file, or one of the package: "
            f"{', '.join(shipped)}"
        ) from error


def _shipped() -> list[str]:
    """Names of the templates that come with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.jinja"))


def _check_marks(hf: "PreTrainedTokenizerFast", chat: ChatSettings) -> None:
    """Checks that the tokenizer knows each mark `<|...|>` that a template writes."""
    texts = [piece for piece in split_control(hf, render(hf, chat)) if isinstance(piece, str)]
    if unknown := _MARK.search("".join(texts)):
        raise UserError(
            f"the template writes {unknown.group()}, which is no token of this checkpoint: leave "
            "model.chat_template empty, or name another template"
        )


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
    rendered = _checked(tokenizer)
    system = (tokenizer.chat.system or "").strip()
    pieces = list(split_control(tokenizer.hf, rendered))
    places = [i for i, piece in enumerate(pieces) if isinstance(piece, str) and USER in piece]
    if len(places) != 1:
        raise UserError("the tokenizer splits a user's text at control tokens of its own")
    place = places[0]
    lead, trail = (side.replace(SYSTEM, system) for side in str(pieces[place]).split(USER))
    before, after = (
        _encode_pieces(tokenizer, part, system) for part in (pieces[:place], pieces[place + 1 :])
    )
    return UserTurn(before, lead, trail, after)


def _encode_pieces(
    tokenizer: Tokenizer, pieces: Sequence[int | str], system: str
) -> tuple[int, ...]:
    """Token ids of parts of a template, with the system's text in the place of its placeholder."""
    ids: list[int] = []
    for piece in pieces:
        if isinstance(piece, int):
            ids.append(piece)
        else:
            ids += tokenizer.encode_text(piece.replace(SYSTEM, system))
    return tuple(ids)


def _checked(tokenizer: Tokenizer) -> str:
    """The rendered template, with placeholders for the texts of system and user.

    Templates may drop, repeat, move or change a text, or write something else because of what it
    says; cutting the template at a placeholder would then go wrong.
    """
    hf, chat = tokenizer.hf, tokenizer.chat
    rendered = render(hf, chat)
    if rendered.count(USER) != 1:
        raise UserError(
            "the chat template of the tokenizer must contain the user's text exactly once"
        )
    before, _, behind = rendered.partition(USER)
    if rendered.count(SYSTEM) != (chat.system is not None) or SYSTEM in behind:
        raise UserError(
            "the chat template of the tokenizer must contain the system's text exactly once: "
            "leave system unset, or put its text, before the user's, into a template of your own"
        )
    system = (chat.system or "").strip()
    before, behind = before.replace(SYSTEM, system), behind.replace(SYSTEM, system)
    for text in _TEXTS:
        if render(hf, chat, text, system) != before + text + behind:
            raise UserError(
                "the chat template of the tokenizer must contain the user's text as it is, and "
                f"write the same around any text, also where system is empty: not so for {text!r}"
            )
    return rendered


def encode_answer(tokenizer: Tokenizer, answer: str) -> list[int]:
    """Token ids of a whole answer, followed by the token that closes it (`Tokenizer.end_id`)."""
    return [*tokenizer.encode_answer(answer), tokenizer.end_id]
