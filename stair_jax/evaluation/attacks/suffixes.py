"""Suffixes of a prompt as token ids that stay the same when they are sent as text."""

import functools
import random
from collections.abc import Sequence

from stair_jax.errors import UserError
from stair_jax.evaluation.target import ChatTokens, Message
from stair_jax.text.tokenizer import Tokenizer

# Between the prompt and the suffix, and tokens to begin with: the first pair that stays the same.
_GAPS = ("", " ", "\n")
_UNITS = (" !", "!", " x", "x")
_RANDOM_STARTS = 1000


class SuffixSpace:
    """Suffixes of so many tokens behind a prompt.

    A search changes token ids, but what is asked is text: the tokenizer may make other ids of it.
    A suffix counts only if the whole chat with its text has its ids at their place, and around them
    those that stand there for every other suffix.

    Attributes:
      length: n, number of tokens.
      start: [n] ids to begin with.
      before, after: ids of the chat around the suffix, up to where the answer starts.
    """

    def __init__(
        self, tokens: ChatTokens, messages: Sequence[Message], length: int, draw: random.Random
    ):
        """Looks for a suffix to begin with: the same punctuation mark n times, else random tokens.

        Args:
          tokens: of the target.
          messages: the chat, whose last turn gets the suffix.
          length: n.
          draw: for the random tokens.

        Raises:
          UserError: no suffix was found that stays the same as text.
        """
        self._tokens, self._messages, self.length = tokens, tuple(messages), length
        tokenizer = tokens.tokenizer
        self.allowed = printable_ids(tokenizer)
        alike = ([id] * length for unit in _UNITS for id in _single(tokenizer, unit))
        drawn = ([draw.choice(self.allowed) for _ in range(length)] for _ in range(_RANDOM_STARTS))
        for ids in (*alike, *(drawn if self.allowed else ())):
            for self._gap in _GAPS:
                whole = tokens.encode(self.messages(ids))
                if (at := _last(whole, ids)) is not None:
                    self.start = tuple(ids)
                    self.before, self.after = whole[:at], whole[at + length :]
                    return
        raise UserError(
            f"no suffix of {length} tokens stays the same as text with this tokenizer: try another "
            "length"
        )

    def messages(self, ids: Sequence[int]) -> tuple[Message, ...]:
        """The chat with the text of a suffix at its end."""
        *earlier, last = self._messages
        text = last["content"].rstrip() + self._gap + self._tokens.tokenizer.decode(ids)
        return (*earlier, {**last, "content": text})

    def is_kept(self, ids: Sequence[int]) -> bool:
        """Whether the text of a suffix has its ids again, in the whole chat."""
        return self._tokens.encode(self.messages(ids)) == (*self.before, *ids, *self.after)


# Tokenizers hash by identity.
@functools.lru_cache(maxsize=8)
def printable_ids(tokenizer: Tokenizer) -> tuple[int, ...]:
    """Ids of the tokens whose text is printable ASCII, and has this one id again.

    Special tokens and tags are none of them: in a user's text they are not encoded as themselves.
    """
    found = []
    for id in range(tokenizer.vocab_size):
        text = tokenizer.decode([id])
        is_printable = bool(text.strip()) and text.isascii() and text.isprintable()
        if is_printable and tokenizer.encode_text(text) == [id]:
            found.append(id)
    return tuple(found)


def _single(tokenizer: Tokenizer, text: str) -> list[int]:
    """The id of a text that is one token; none otherwise."""
    ids = tokenizer.encode_text(text)
    return ids if len(ids) == 1 else []


def _last(whole: Sequence[int], part: Sequence[int]) -> int | None:
    """Where `part` stands in `whole` for the last time."""
    part, length = tuple(part), len(part)
    places = range(len(whole) - length, -1, -1)
    return next((at for at in places if tuple(whole[at : at + length]) == part), None)
