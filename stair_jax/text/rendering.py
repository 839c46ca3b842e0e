"""Chat templates as text: one exchange rendered, with placeholders for what people write in it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from stair_jax.errors import UserError
from stair_jax.text.chat_settings import ChatSettings
from stair_jax.text.template_limits import render_all_within_limits

if TYPE_CHECKING:  # half a second: only where a tokenizer is loaded
    from transformers import PreTrainedTokenizerFast

# Private-use characters alone: no template contains them, and no added token is a part of them.
SYSTEM = "\ue000\ue001\ue000"
USER = "\ue000\ue002\ue000"
ANSWER = "\ue000\ue003\ue000"


def render(
    hf: "PreTrainedTokenizerFast",
    chat: ChatSettings,
    user: str = USER,
    system: str = SYSTEM,
    answer: str | None = None,
) -> str:
    """What the chat template makes of one exchange.

    Args:
      hf: the tokenizer whose template it is.
      chat: says whether there is a system turn, and the values that the template is given.
      user: text of the user's turn.
      system: text of the system turn, if there is one.
      answer: text of the assistant's turn; None: the generation prompt stands in its place.

    Raises:
      UserError: there is no template, or it fails.
    """
    turns = [{"role": "user", "content": user}]
    if chat.system is not None:
        turns.insert(0, {"role": "system", "content": system})
    if answer is not None:
        turns.append({"role": "assistant", "content": answer})
    return apply_template(hf, chat, [turns], add_generation_prompt=answer is None)[0]


def encode_by_template(
    hf: "PreTrainedTokenizerFast", chat: ChatSettings, chats: list[list[dict[str, str]]]
) -> list[list[int]]:
    """Token ids of transformers' own `apply_chat_template`, up to where the answer starts.

    Raises:
      UserError: there is no template, or it fails.
    """
    # Within limits, which transformers lacks.
    apply_template(hf, chat, chats, add_generation_prompt=True)
    options: dict[str, Any] = {
        "chat_template": chat.with_fixed_clock(hf.get_chat_template()),
        "add_generation_prompt": True,
        "return_dict": False,
        **chat.values,
    }
    encoded: list[Any] = [hf.apply_chat_template(turns, **options) for turns in chats]
    return [list(ids) for ids in encoded]


def apply_template(
    hf: "PreTrainedTokenizerFast",
    chat: ChatSettings,
    chats: list[list[dict[str, str]]],
    add_generation_prompt: bool,
) -> tuple[str, ...]:
    """What the template makes of chats, with the values of `chat` and a clock that stands still.

    Raises:
      UserError: there is no template, or it fails.
    """
    if not hf.chat_template:
        raise UserError(
            "the tokenizer has no chat template: add chat_template.jinja to the folder of its "
            "checkpoint, or start from a checkpoint that was tuned for chat"
        )
    try:
        template = chat.with_fixed_clock(hf.get_chat_template())
        return render_all_within_limits(hf, chats, add_generation_prompt, chat.values, template)
    except Exception as error:  # a template is a program and may raise anything
        reason = " ".join(str(error).split())
        raise UserError(f"the chat template of the tokenizer fails: {reason}") from error


def render_answer(hf: "PreTrainedTokenizerFast", chat: ChatSettings) -> tuple[str, str] | None:
    """What the template puts before and behind an assistant's turn, which is the last one.

    None if it has no place for such a turn, or does not write its text once and as it is.
    """
    try:
        rendered = render(hf, chat, answer=ANSWER)
    except UserError:
        return None
    before, found, behind = rendered.partition(ANSWER)
    return (before, behind) if found and ANSWER not in behind else None


def split_control(hf: "PreTrainedTokenizerFast", rendered: str) -> Iterator[int | str]:
    """Splits a rendered template at its control tokens: yields token ids and the texts between.

    A token is a control token only where its own content stands in the text. The same id elsewhere
    is text, e.g. where it also stands for characters that the vocabulary lacks.
    """
    added = hf.added_tokens_decoder
    encoded = hf.backend_tokenizer.encode(rendered, add_special_tokens=False)
    position = 0
    # By offsets, which include the white space that some added tokens strip around them.
    for token, (start, end) in zip(encoded.ids, encoded.offsets, strict=True):
        if token in added and rendered[start:end].strip() == added[token].content.strip():
            if rendered[position:start]:
                yield rendered[position:start]
            yield token
            position = end
    if rendered[position:]:
        yield rendered[position:]
