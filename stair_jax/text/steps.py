"""Grammar of the paper's structured chain of thought: reasoning blocks, then one output block.

    <|Reasoning_step|>Title: ...
    ...
    <|/Reasoning_step|>

    <|Output|>Final Answer: ...<|/Output|>

The four tags are single tokens, so that the end of a step is one stop token.

Parsing is strict (`parse`) where training data is made and formats are counted, and tolerant
(`parse_tolerant`, `final_answer`) where a judge or user reads whatever a model has written.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

REASONING_OPEN = "<|Reasoning_step|>"
REASONING_CLOSE = "<|/Reasoning_step|>"
OUTPUT_OPEN = "<|Output|>"
OUTPUT_CLOSE = "<|/Output|>"
TAGS = (REASONING_OPEN, REASONING_CLOSE, OUTPUT_OPEN, OUTPUT_CLOSE)

CLOSING_TAGS = (REASONING_CLOSE, OUTPUT_CLOSE)

FINAL_PREFIX = "Final Answer:"
TITLE_PREFIX = "Title:"
TAG_PATTERN = re.compile("|".join(re.escape(tag) for tag in TAGS))
_LONGEST_TAG = max(map(len, TAGS))
_NOT_SPACE = re.compile(r"\S")


class FormatError(ValueError):
    """A structured answer violates the grammar; the message says where."""


class ClosingTags(Protocol):
    """The part of `tokenizer.Tags` that `split_steps` needs."""

    @property
    def reasoning_close(self) -> int: ...

    @property
    def output_close(self) -> int: ...


@dataclass(frozen=True)
class Answer:
    """A parsed answer."""

    steps: tuple[tuple[str, str], ...]  # (title, text) of each reasoning step
    final: str  # the final answer, without its prefix


def format_step(title: str, text: str) -> str:
    """A reasoning block with its tags."""
    return f"{REASONING_OPEN}{TITLE_PREFIX} {title}\n{text}\n{REASONING_CLOSE}"


def format_output(final: str) -> str:
    """The output block with its tags."""
    return f"{OUTPUT_OPEN}{FINAL_PREFIX} {final}{OUTPUT_CLOSE}"


def format_answer(steps: Sequence[tuple[str, str]], final: str) -> str:
    """A whole structured answer, with a blank line between blocks; `steps` are (title, text)."""
    return "\n\n".join([*(format_step(title, text) for title, text in steps), format_output(final)])


def parse(text: str) -> Answer:
    """Parses a structured answer strictly.

    Raises:
      FormatError: the text is anything but one or more reasoning blocks with title and text,
        followed by one output block; only white space may stand between them.
    """
    steps: list[tuple[str, str]] = []
    final: str | None = None
    position = 0
    while opening := _NOT_SPACE.search(text, position):
        position = opening.start()
        if final is not None:
            raise FormatError(f"text after the output block at character {position}")
        if text.startswith(REASONING_OPEN, position):
            body, position = _block(text, position, REASONING_OPEN, REASONING_CLOSE)
            title, content = _split_title(body)
            if not title:
                raise FormatError("a reasoning block has no title")
            if not content:
                raise FormatError("a reasoning block has no text")
            steps.append((title, content))
        elif text.startswith(OUTPUT_OPEN, position):
            body, position = _block(text, position, OUTPUT_OPEN, OUTPUT_CLOSE)
            final = _without_prefix(body)
            if not body.strip().startswith(FINAL_PREFIX) or not final:
                raise FormatError(f"the output block does not hold '{FINAL_PREFIX} ...'")
        else:
            raise FormatError(f"text outside of a block at character {position}")
    if not steps:
        raise FormatError("no reasoning block")
    if final is None:
        raise FormatError("no output block")
    return Answer(tuple(steps), final)


def _block(text: str, start: int, opening: str, closing: str) -> tuple[str, int]:
    """(body of the block at `start`, position after its closing tag)."""
    tag = TAG_PATTERN.search(text, start + len(opening))
    if tag is None or tag.group() != closing:
        found = "the end" if tag is None else tag.group()
        raise FormatError(f"{opening} at character {start} is followed by {found}, not {closing}")
    return text[start + len(opening) : tag.start()], tag.end()


def _split_title(body: str) -> tuple[str, str]:
    """(title, text) of a reasoning block; the title is "" if there is none."""
    first, _, rest = body.strip().partition("\n")
    if not first.startswith(TITLE_PREFIX):
        return "", body.strip()
    return first.removeprefix(TITLE_PREFIX).strip(), rest.strip()


def _without_prefix(body: str) -> str:
    """The body of an output block without "Final Answer:"."""
    return body.strip().removeprefix(FINAL_PREFIX).strip()


def is_well_formed(text: str) -> bool:
    """Whether `parse` accepts `text`."""
    try:
        parse(text)
    except FormatError:
        return False
    return True


def has_one_output(text: str) -> bool:
    """Whether an answer has one output block, closed or not, and nothing but white space behind it.

    `final_answer` reads the last block. Of an answer with two of them, or with text behind its
    block, a judge would therefore not see all that the user sees.
    """
    before, opening, rest = text.partition(OUTPUT_OPEN)
    body, _, behind = rest.partition(OUTPUT_CLOSE)
    is_one = bool(opening) and OUTPUT_CLOSE not in before and OUTPUT_OPEN not in body
    return is_one and not behind.strip()


def breaks_output(text: str) -> bool:
    """Whether output tags stand in an answer otherwise than as one block at its end.

    False for an answer without such tags, e.g. a plain one.
    """
    return (OUTPUT_OPEN in text or OUTPUT_CLOSE in text) and not has_one_output(text)


def parse_tolerant(text: str) -> Answer:
    """Reads as much as possible of an answer, however malformed; never raises.

    A step is the text after an opening reasoning tag or before a closing one, up to the next tag of
    any kind. So blocks without one of their tags, without a title (then "") or without the blank
    line between them are read; text outside of all blocks is not. `final` is `final_answer(text)`.
    The result equals that of `parse` if `parse` accepts the text.
    """
    return Answer(_tolerant_steps(text), final_answer(text))


def _tolerant_steps(text: str) -> tuple[tuple[str, str], ...]:
    bodies = TAG_PATTERN.split(text)
    tags = ["", *TAG_PATTERN.findall(text), ""]
    found = []
    for body, before, after in zip(bodies, tags[:-1], tags[1:], strict=True):
        closes = after == REASONING_CLOSE and before != OUTPUT_OPEN
        if body.strip() and (before == REASONING_OPEN or closes):
            found.append(_split_title(body))
    return tuple(found)


def ends_block(text: str) -> bool:
    """Whether a text ends with a closing tag, where a sampled step or answer ends."""
    return text.rstrip().endswith(CLOSING_TAGS)


def final_answer(text: str) -> str:
    """The part of an answer that the user sees, read tolerantly; "" if there is none.

    The last output block (closed or not) if there is one, else the text after the last reasoning
    block. In an answer without tags, the text after the last "Final Answer:", else the whole text.
    The result never contains a tag.
    """
    return _without_prefix(output_text(text))


def output_text(text: str) -> str:
    """As `final_answer`, but with the "Final Answer:" that an output block begins with."""
    if OUTPUT_OPEN in text:
        body = text.rsplit(OUTPUT_OPEN, 1)[1].split(OUTPUT_CLOSE, 1)[0]
    elif REASONING_OPEN in text or REASONING_CLOSE in text:
        close = text.rfind(REASONING_CLOSE)
        is_outside = close > text.rfind(REASONING_OPEN)
        body = text[close + len(REASONING_CLOSE) :] if is_outside else ""
    else:
        body = text.rsplit(FINAL_PREFIX, 1)[-1]
    return without_tags(body).strip()


def reasoning_text(text: str) -> str:
    """The part of an answer before its final answer, tags included; "" if there are no blocks.

    What stands before the last output block; of an answer without one, all up to the end of its
    last reasoning block, or all of it where that block is open.
    """
    before, opening, _ = text.rpartition(OUTPUT_OPEN)
    if opening:
        return before.strip()
    close = text.rfind(REASONING_CLOSE)
    if text.rfind(REASONING_OPEN) > close:
        return text.strip()
    return text[: close + len(REASONING_CLOSE)].strip() if close >= 0 else ""


def without_tags(text: str) -> str:
    """Removes all tags from `text`, also those that only form when others are removed.

    In linear time: each character is appended, and a tag that it completes is dropped at once.
    """
    if not TAG_PATTERN.search(text):
        return text
    kept: list[str] = []
    for character in text:
        kept.append(character)
        if character == ">":
            end = "".join(kept[-_LONGEST_TAG:])
            made = next((tag for tag in TAGS if end.endswith(tag)), "")
            del kept[len(kept) - len(made) :]
    return "".join(kept)


def split_steps(ids: Iterable[int], tags: ClosingTags) -> list[list[int]]:
    """Splits the token ids of an answer after each closing tag; an unclosed rest comes last."""
    pieces: list[list[int]] = [[]]
    for token in ids:
        pieces[-1].append(token)
        if token in (tags.reasoning_close, tags.output_close):
            pieces.append([])
    return [piece for piece in pieces if piece]
