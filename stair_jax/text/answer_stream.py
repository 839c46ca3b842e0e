"""An answer as it is sampled: token ids as text, and the text as titles, steps and final answer."""

from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from stair_jax.text.steps import (
    FINAL_PREFIX,
    OUTPUT_OPEN,
    REASONING_OPEN,
    TAG_PATTERN,
    TAGS,
    TITLE_PREFIX,
)
from stair_jax.text.tokenizer import Tokenizer

_CONTEXT = 32  # ids that are decoded with those that come
_UNFINISHED = "\ufffd"  # what bytes are decoded to that are no character yet
PartKind = Literal["title", "step", "final", "outside", "end"]


class Part(NamedTuple):
    """A piece of an answer.

    Attributes:
      kind: "title": the whole title of a step that begins, "" if it has none; "step": text of that
        step; "final": text of the final answer; "outside": text outside of all blocks; "end": the
        block is closed.
      text: the piece; the pieces of a block, joined, have no white space around them.
    """

    kind: PartKind
    text: str


class TokenText:
    """Token ids, as they come, as pieces of text: joined, these are the text of all ids.

    The last ids alone are decoded anew with each piece, so that its cost does not grow with the
    length of the answer.
    """

    def __init__(self, tokenizer: Tokenizer):
        """Nothing has come."""
        self._tokenizer = tokenizer
        self._ids: list[int] = []  # the last ones: what stands before them has its text
        self._given = 0  # characters of these

    def add(self, ids: Iterable[int]) -> str:
        """The text that became known by further ids: without a character that is incomplete."""
        self._ids += ids
        whole = self._tokenizer.decode(self._ids)
        known = whole.rstrip(_UNFINISHED)
        new = self._new(known)
        if len(self._ids) > 2 * _CONTEXT and known == whole:
            self._forget(whole)
        return new

    def end(self) -> str:
        """The rest."""
        return self._new(self._tokenizer.decode(self._ids))

    def _new(self, text: str) -> str:
        new = text[self._given :]
        self._given = max(self._given, len(text))
        return new

    def _forget(self, whole: str) -> None:
        """Keeps the last ids alone, unless their text depends on those before them."""
        rest = self._ids[-_CONTEXT:]
        text = self._tokenizer.decode(rest)
        if text.strip() and whole.endswith(text):
            self._ids, self._given = rest, len(text)


class AnswerParts:
    """The text of an answer, as it comes, as parts: what `steps.parse_tolerant` reads of a whole.

    White space around the text of a block is left out.
    """

    def __init__(self) -> None:
        """The beginning of an answer."""
        self._kind: PartKind = "outside"
        self._is_head = False  # of a block: what stands before its text is not read yet
        self._pending = ""  # text that may be the beginning of a tag
        self._held = ""  # the head, or white space that something may follow
        self._is_begun = False  # whether text of the block was given

    def add(self, text: str) -> list[Part]:
        """The parts that became known by further text."""
        return list(self._read(text, is_last=False))

    def end(self) -> list[Part]:
        """What is left at the end of the answer."""
        return list(self._read("", is_last=True))

    def _read(self, text: str, is_last: bool) -> Iterator[Part]:
        self._pending += text
        while tag := TAG_PATTERN.search(self._pending):
            yield from self._text(self._pending[: tag.start()], is_closed=True)
            self._pending = self._pending[tag.end() :]
            yield from self._open(tag.group())
        length = 0 if is_last else _held_back(self._pending)
        known = self._pending[: len(self._pending) - length]
        self._pending = self._pending[len(known) :]
        yield from self._text(known, is_last)
        if is_last:
            yield from self._open("")

    def _open(self, tag: str) -> Iterator[Part]:
        """Closes the block that is open; begins the one that a tag opens."""
        if self._kind != "outside":
            yield Part("end", "")
        kinds: dict[str, PartKind] = {REASONING_OPEN: "step", OUTPUT_OPEN: "final"}
        self._kind = kinds.get(tag, "outside")
        self._is_head = self._kind != "outside"
        self._held, self._is_begun = "", False

    def _text(self, text: str, is_closed: bool) -> Iterator[Part]:
        if self._is_head:
            head = (self._held + text).lstrip()
            if is_closed and not head:
                return
            prefix = TITLE_PREFIX if self._kind == "step" else FINAL_PREFIX
            is_prefixed = head.startswith(prefix)
            is_line = "\n" in head or self._kind == "final"
            if not is_closed and (prefix.startswith(head) or (is_prefixed and not is_line)):
                self._held = head
                return
            self._is_head, self._held = False, ""
            text = head.removeprefix(prefix)
            if self._kind == "step":
                title, _, text = text.partition("\n") if is_prefixed else ("", "", text)
                yield Part("title", title.strip())
        text = self._held + text
        text = text if self._is_begun else text.lstrip()
        shown = text.rstrip()
        self._held = text[len(shown) :]
        if shown:
            self._is_begun = True
            yield Part(self._kind, shown)


def _held_back(text: str) -> int:
    """Length of the end of a text that may be the beginning of a tag."""
    start = text.rfind("<")
    end = text[start:] if start >= 0 else ""
    return len(end) if end and any(tag.startswith(end) for tag in TAGS) else 0
