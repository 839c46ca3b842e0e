"""What keeps the text of an answer from passing for words of the judge.

A judge's prompt holds the answer that it judges. An answer may hold what looks like a conclusion, a
heading of the judge's prompt, the end of the user's turn or a reply of the judge, and a model that
is trained with the judge's reward would learn to write it. So the answer stands between two lines
with a mark that is drawn from the random key of the request, each of its lines is quoted, and what
looks like the judge's own words in it is taken apart.
"""

import functools
import hashlib
import re
import unicodedata

from stair_jax.search.judging.replies import LABELS
from stair_jax.text import fence_prompts

QUOTE = "| "
# Formats, marks on letters and selectors of variants; a line of controls would show them.
_NO_WIDTH = re.compile(
    "[\u00ad\u0300-\u036f\u0600-\u0605\u061c\u06dd\u070f\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\ufe00-\ufe0f\ufeff\ufff9-\ufffb\U000e0000-\U000e0fff]"
)
_MARK_LENGTH = 8  # hexadecimal digits: 32 bits that an answer would have to guess

# Letters of other scripts, each in front of the Latin one that it looks like.
_PAIRS = (
    "\u0430a\u0435e\u043eo\u0441c\u0456i\u0455s\u0443y\u0440p\u0501d\u04cfl\u0578n\u057du"
    "\u0410A\u0415E\u041eO\u0421C\u0406I\u0405S\u054dU\u054fS\u03ddF"
    "\u03bfo\u03b9i\u03b1a\u03b5e\u03c5u\u03bdv\u0391A\u0395E\u0399I\u039dN\u039fO\u03dcF"
)
_LOOKALIKES = {ord(other): latin for other, latin in zip(_PAIRS[::2], _PAIRS[1::2], strict=True)}
_LOOKS_ALIKE = re.compile(f"[{_PAIRS[::2]}]")
# "Conclusion:" and the like, however it is set: what follows the word, up to a colon or bracket.
_CONCLUSION = re.compile(r"\b(conclusions?)\b[\W_]{0,12}?[:=\[][\s\[:=*_`]{0,12}", re.IGNORECASE)
# Control tokens of chat templates, as text.
_CONTROL = re.compile(
    r"<\|([^<>|]{0,40})\|>|</?((?:s|bos|eos|pad|sys|inst|think|(?:start|end)_of_turn)\b)[^<>]{0,8}>"
    r"|<</?(sys)>>|\[/?(inst)\]",
    re.IGNORECASE,
)
_WORDS = ("conclusion", "verdict", "rating", "judgment", "judgement")
_BRACKET = re.compile(r"[\[{<]")
# Labels that a judge may be asked for, unless the wording has others.
_LABELS = tuple(dict.fromkeys(label for labels in LABELS.values() for label in labels))


class _LabelPatterns:
    """What passes for a verdict with certain labels."""

    def __init__(self, labels: tuple[str, ...], announcers: tuple[str, ...]):
        names = "|".join(map(re.escape, sorted(labels, key=len, reverse=True)))
        # A number in brackets is an index or a reference, but at the end of a line.
        words = "|".join(map(re.escape, (label for label in labels if not label.isdecimal())))
        numbers = "|".join(label for label in labels if label.isdecimal())
        label = rf"(?:(?:{names})(?!\w))"
        heads = "|".join(("conclusions?", "verdict", "rating", "judge?ment", *announcers))
        self.announced = re.compile(
            rf"\b({heads})\b(?:\s{{1,8}}is\b)?[\W_]{{0,12}}(?={label})", re.IGNORECASE
        )
        self._words = (*_WORDS, *announcers)
        ending = rf"(?<!\w)[\[{{<]\s{{0,8}}({numbers or '(?!)'})\s{{0,8}}[\]}}>](?=[\W_]{{0,40}}$)"
        self.bracketed = re.compile(
            rf"[\[{{<]\s{{0,8}}({words or '(?!)'})\s{{0,8}}[\]}}>]|{ending}",
            re.IGNORECASE | re.MULTILINE,
        )
        alone = rf"[\W_]{{0,40}}{label}(?:\s?/\s?\d)?[\W_]{{0,40}}"
        self.alone = re.compile(alone, re.IGNORECASE)
        self._some_alone = re.compile(rf"^{alone}$", re.IGNORECASE | re.MULTILINE)

    def may_be_in(self, seen: str) -> bool:
        """Whether a text might hold what is to be neutralised; it is asked line by line then."""
        small = seen.lower()
        has_brackets = _BRACKET.search(seen) is not None
        return (
            any(word in small for word in self._words)
            or (has_brackets and bool(_CONTROL.search(seen) or self.bracketed.search(seen)))
            or self._some_alone.search(seen) is not None
        )


@functools.lru_cache(maxsize=64)
def _patterns(labels: tuple[str, ...], announcers: tuple[str, ...]) -> _LabelPatterns:
    return _LabelPatterns(labels, announcers)


def mark_of(key: tuple[int, int]) -> str:
    """The mark of a judgement, from the random key of its request."""
    return hashlib.sha256(repr(("fence", *key)).encode()).hexdigest()[:_MARK_LENGTH]


def fenced(
    answer: str,
    mark: str,
    labels: tuple[str, ...] = _LABELS,
    announcers: tuple[str, ...] = (),
) -> str:
    """An answer between two lines with a mark, quoted and neutralised."""
    opening, closing = fence_prompts.FENCE_OPEN, fence_prompts.FENCE_CLOSE
    inside = quoted(answer, labels, announcers)
    return f"{opening}{mark} ===\n{inside}\n{closing}{mark} ==="


def quoted(text: str, labels: tuple[str, ...] = _LABELS, announcers: tuple[str, ...] = ()) -> str:
    """A neutralised text with `QUOTE` at the start of each line."""
    lines = neutralize(text, labels, announcers).splitlines()
    return "\n".join(QUOTE + line for line in lines or [""])


def neutralize(
    text: str, labels: tuple[str, ...] = _LABELS, announcers: tuple[str, ...] = ()
) -> str:
    """A text in which nothing looks like a conclusion, a verdict or a control token.

    Only the lines that hold such words are changed. They are looked for as a reader would see them:
    also where the letters are of other widths or scripts, or hold characters of no width. A label
    that is all of the text is an answer, and stays. Takes time linear in the text.

    Args:
      text: of an answer, or of a prompt.
      labels: that the judge may reply.
      announcers: words in small letters that it may write before a label, beside "conclusion" and
        the like.
    """
    patterns = _patterns(labels, announcers)
    if not patterns.may_be_in(_as_seen(text)):  # nearly always, and much quicker
        return text
    lines = text.splitlines(keepends=True)
    others = sum(not line.isspace() for line in lines) > 1
    return "".join(_neutralize_line(line, patterns, others) for line in lines)


def _neutralize_line(line: str, patterns: _LabelPatterns, has_others: bool) -> str:
    seen = _as_seen(line)
    changed = _CONTROL.sub(_name_of_control, seen)
    changed = _CONCLUSION.sub(r"\1 (quoted) ", changed)
    changed = patterns.announced.sub(r"\1 (quoted) ", changed)
    changed = patterns.bracketed.sub(lambda found: f"(quoted) {found[1] or found[2]}", changed)
    if has_others and patterns.alone.fullmatch(changed):
        changed = f"(quoted) {changed.lstrip()}"
    return line if changed == seen else changed


def _name_of_control(match: re.Match[str]) -> str:
    return f"({next((name for name in match.groups() if name), '')})"


def _as_seen(text: str) -> str:
    """A text without characters of no width, its letters in one width and of one script."""
    if text.isascii():
        return text
    plain = _NO_WIDTH.sub("", unicodedata.normalize("NFKC", text))
    return plain.translate(_LOOKALIKES) if _LOOKS_ALIKE.search(plain) else plain
