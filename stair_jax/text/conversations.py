"""Chats of several turns as token ids: those of transformers, but what users write stays text.

The template is rendered with the texts themselves, so that it may strip them or change earlier
turns as it likes. What people wrote is marked by characters that occur in no text; the marked parts
are taken out before control tokens are looked for, and encoded as plain text in their places.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from stair_jax.errors import UserError
from stair_jax.text.plain import valid_unicode
from stair_jax.text.rendering import apply_template, split_control
from stair_jax.text.steps import TAGS
from stair_jax.text.tokenizer import Tokenizer

Message = Mapping[str, str]  # "role" and "content"

ROLES = ("system", "user", "assistant")
_CHANGED = (
    "the chat template of the tokenizer takes the text of a turn apart, or writes something else "
    "because of what it says, so that it cannot be told from control tokens: name another template "
    "in model.chat_template"
)
# Private use: the rest of the block that holds the placeholders of `rendering`, and two planes.
_PRIVATE = (range(0xE010, 0xF900), range(0xF0000, 0xFFFFE), range(0x100000, 0x10FFFE))


def encode_chat(
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    add_generation_prompt: bool = True,
    continue_final_message: bool = False,
    tags_are_text: bool = False,
) -> list[int]:
    """Token ids of a chat of any number of turns.

    Equal to those of transformers' `apply_chat_template` with the template values of the tokenizer
    (`ChatSettings`), for texts without control tokens. In those of the system and of the user, tags
    and control tokens stay plain text, as in `encode_prompt`; in the assistant's, tags and other
    added tokens that are not special (such as `</think>`) become tokens, as in what a model says.

    Args:
      tokenizer: with a chat template. Its own system turn comes first where the chat has none.
      messages: {"role": "system", "user" or "assistant", "content": text}, at least one. The texts
        are passed to the template as they are (`encode_prompt` strips its own).
      add_generation_prompt: whether the header of an answer follows; not if the last is continued.
      continue_final_message: whether the last turn is left open, so that what is sampled goes on
        in it.
      tags_are_text: whether tags in the assistant's texts stay text too: for a model that wrote
        them so, as one that was not trained on the tags does.

    Raises:
      UserError: there is no chat template; it refuses these turns, or those of a system; it writes
        something else because of what a turn says; or these are no messages.
    """
    turns = _checked(tokenizer, messages)
    marks = _Marks([str(tokenizer.hf.chat_template), *(text for _, text in turns)])
    masked = [*_special(tokenizer), *(TAGS if tags_are_text else ())]
    marked = [(role, _marked(role, text, masked, marks)) for role, text in turns]
    if continue_final_message:
        marked[-1] = (marked[-1][0], marked[-1][1] + marks.end + " ")
        turns[-1] = (turns[-1][0], turns[-1][1] + marks.end + " ")
    is_open = add_generation_prompt and not continue_final_message
    rendered, expected = _render(tokenizer, [marked, turns], is_open)
    if marks.removed(rendered) != expected and not _any_control(tokenizer, turns, masked):
        raise UserError(_CHANGED)
    if continue_final_message:
        rendered = _up_to(rendered, marks.end)
    ids: list[int] = []
    for piece in split_control(tokenizer.hf, marks.taken_out(rendered)):
        if isinstance(piece, int):
            ids.append(piece)
        else:
            ids += tokenizer.encode_text(marks.put_back(piece))
    return ids


class _Marks:
    """Characters that occur in none of the texts, and what some of them stand for.

    Attributes:
      end: marks the end of a turn that is continued.
    """

    def __init__(self, texts: Iterable[str]):
        """Characters that are not in `texts`."""
        used = set().union(*map(set, texts))
        self._free = (chr(code) for part in _PRIVATE for code in part if chr(code) not in used)
        self._open, self._close, self.end = (next(self._free) for _ in range(3))
        self._region = re.compile(f"{self._open}([^{self._open}]*?){self._close}")
        self._stands_for: dict[str, str] = {}
        self._masks: dict[str, str] = {}

    def around(self, text: str) -> str:
        """`text` with marks around it, but not around the white space at its ends."""
        core = text.strip()
        if not core:
            return text
        before, _, after = text.partition(core)
        return before + self._open + core + self._close + after

    def mask(self, text: str) -> str:
        """A character in place of `text`, always the same one."""
        if text not in self._masks:
            self._masks[text] = self._new(text)
        return self._masks[text]

    def taken_out(self, rendered: str) -> str:
        """A rendered template with a character in place of each text that is marked.

        Raises:
          UserError: the template has taken a marked text apart.
        """
        found = self._region.sub(lambda match: self._new(match.group(1)), rendered)
        if self._open in found or self._close in found:
            raise UserError(_CHANGED)
        return found

    def put_back(self, piece: str) -> str:
        """The texts in place of the characters that stand for them."""
        return "".join(self._stands_for.get(character, character) for character in piece)

    def removed(self, rendered: str) -> str:
        """A rendered template as it would be without marks."""
        return re.sub(f"[{self._open}{self._close}]", "", self.put_back(rendered))

    def _new(self, text: str) -> str:
        character = next(self._free)
        self._stands_for[character] = text
        return character


def _checked(tokenizer: Tokenizer, messages: Sequence[Message]) -> list[tuple[str, str]]:
    """(role, text) of each turn, with the system turn of the tokenizer where there is none."""
    if not messages:
        raise UserError("a chat needs at least one turn")
    turns = []
    for message in messages:
        role, text = message.get("role"), message.get("content")
        if role not in ROLES:
            raise UserError(f"a turn has the role {role!r}: use {', '.join(ROLES)}")
        if not isinstance(text, str):
            raise UserError(f"the content of a turn must be text, not {str(text)[:60]!r}")
        turns.append((role, valid_unicode(text)))
    if tokenizer.chat.system is not None and "system" not in dict(turns):
        turns.insert(0, ("system", valid_unicode(tokenizer.chat.system.strip())))
    return turns


def _marked(role: str, text: str, masked: Sequence[str], marks: _Marks) -> str:
    """A turn's text with marks around all that people wrote, or in it for what a model did."""
    if role != "assistant":
        return marks.around(text)
    pattern = "|".join(map(re.escape, sorted(masked, key=len, reverse=True)))
    return re.sub(pattern, lambda match: marks.mask(match.group()), text) if masked else text


def _special(tokenizer: Tokenizer) -> Iterator[str]:
    """Contents of the special tokens but for the tags, which a checkpoint may declare special."""
    hf = tokenizer.hf
    ids = set(hf.all_special_ids)
    for token, added in hf.added_tokens_decoder.items():
        if (added.special or token in ids) and added.content not in TAGS and added.content:
            yield added.content


def _any_control(
    tokenizer: Tokenizer, turns: Sequence[tuple[str, str]], masked: Sequence[str]
) -> bool:
    """Whether a text that is marked has the form of a control token, at which a template looks."""
    added = [token.content for token in tokenizer.hf.added_tokens_decoder.values()]
    return any(
        content in text
        for role, text in turns
        for content in (masked if role == "assistant" else added)
    )


def _render(
    tokenizer: Tokenizer, chats: Sequence[Sequence[tuple[str, str]]], add_generation_prompt: bool
) -> tuple[str, ...]:
    """What the template makes of chats with the same roles."""
    hf, chat = tokenizer.hf, tokenizer.chat
    as_messages = [[{"role": role, "content": text} for role, text in each] for each in chats]
    try:
        return apply_template(hf, chat, as_messages, add_generation_prompt)
    except UserError as error:
        others = [turn for turn in as_messages[0] if turn["role"] != "system"]
        if not others or len(others) == len(as_messages[0]):
            raise
        try:
            apply_template(hf, chat, [others], add_generation_prompt)
        except UserError:
            raise error from None
        raise UserError(
            f"{error}; it takes the same turns without the system's: leave that out, or put its "
            "text into the user's turn"
        ) from error


def _up_to(rendered: str, end: str) -> str:
    """A rendered template up to the mark that ends it, as transformers cuts it."""
    if end not in rendered:
        raise UserError(
            "the chat template of the tokenizer does not write the end of the last turn, which "
            "can therefore not be continued"
        )
    text, _, behind = rendered.rpartition(end)
    # Where the template strips the space behind the mark, it strips white space before it too.
    return text if behind.startswith(" ") else text.rstrip()
