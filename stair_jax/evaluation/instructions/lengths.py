"""Checks of lengths: words, sentences, paragraphs."""

import re

from stair_jax.evaluation.instructions.relations import holds

_SENTENCE_END = re.compile(r"[.!?\u2026]+[\"')\]*_\u201d\u2019]*(?=\s|$)")
_ABBREVIATION = re.compile(
    r"(?:^|[\s(\"'])(?:mr|mrs|ms|dr|prof|st|jr|sr|vs|no|fig|etc|e\.g|i\.e|[a-z]|(?:[a-z]\.)+[a-z])$",
    re.IGNORECASE,
)
_LONGEST_WORD = 20  # characters before a mark that are looked at
_PARAGRAPH_MARK = re.compile(r"\s?\*\*\*\s?")


def has_words(response: str, *, num_words: int, relation: str) -> bool:
    """So many runs of letters, digits and "_"."""
    return holds(len(re.findall(r"\w+", response)), relation, num_words)


def has_sentences(response: str, *, num_sentences: int, relation: str) -> bool:
    """So many sentences, see `count_sentences`."""
    return holds(count_sentences(response), relation, num_sentences)


def has_paragraphs(response: str, *, num_paragraphs: int) -> bool:
    """So many paragraphs, with "***" between each two of them."""
    parts = _PARAGRAPH_MARK.split(response)
    if parts and not parts[0].strip():
        parts = parts[1:]
    if parts and not parts[-1].strip():
        parts = parts[:-1]
    return len(parts) == num_paragraphs and all(part.strip() for part in parts)


def has_paragraph_beginning(
    response: str, *, num_paragraphs: int, nth_paragraph: int, first_word: str
) -> bool:
    """So many paragraphs with blank lines between, of which one begins with the word."""
    paragraphs = [part.strip() for part in response.split("\n\n") if part.strip()]
    if len(paragraphs) != num_paragraphs or not 1 <= nth_paragraph <= num_paragraphs:
        return False
    first = paragraphs[nth_paragraph - 1].split()[0]
    return first.strip("\"'*_.,!?:;()").casefold() == first_word.casefold()


def count_sentences(text: str) -> int:
    """Number of sentences: pieces with a letter or digit, each up to a mark or the line's end.

    Marks are ".", "!" and "?" before a space; not behind initials and usual abbreviations. The
    authors count with a trained splitter, which can differ by a few sentences.
    """
    count = 0
    for line in text.splitlines():
        start = 0
        for match in _SENTENCE_END.finditer(line):
            last = line[max(start, match.start() - _LONGEST_WORD) : match.start()]
            is_short = match.group() == "." and _ABBREVIATION.search(last)
            if is_short and match.end() < len(line):
                continue
            count += _has_text(line[start : match.start()])
            start = match.end()
        count += _has_text(line[start:])
    return count


def _has_text(piece: str) -> bool:
    """Whether it is more than marks and the number of a list."""
    return any(map(str.isalpha, piece)) or (
        any(map(str.isdigit, piece)) and not re.fullmatch(r"\s*\d+\s*", piece)
    )
