r"""Whether an answer is the right one: numbers, letters of multiple choice, and text.

The reference says which it is: a number (also "... #### 1,234" as in GSM8K, "3/4", "12.5%",
"\boxed{7}"), a letter from A to J ("B", "(B)"), or else text. A list holds references that are
equally right. Of an answer counts what it announces as its result ("\boxed{...}", "#### ...", "the
answer is ..."), the last time that it does, or else what it says last.
"""

import re
import unicodedata
from collections import deque
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

_MOST_DIGITS = 300
_DIGITS = rf"(?:\d{{1,3}}(?:,\d{{3}})+(?![\d,])|\d{{1,{_MOST_DIGITS}}}(?!\d))"
_NUMBER = re.compile(
    r"(?<![\w.])(?P<sign>[-\u2212]?) ?[$\u20ac\u00a3\u00a5]? ?(?P<inner>[-\u2212]?)"
    rf"(?:(?P<mixed>{_DIGITS}) )?"
    rf"(?P<whole>{_DIGITS}(?:\.\d{{1,{_MOST_DIGITS}}}(?!\d))?|\.\d{{1,{_MOST_DIGITS}}}(?!\d))"
    rf"(?: ?/ ?(?P<below>{_DIGITS}))?(?P<percent> ?%)?"
)
_LATEX = (
    (re.compile(r"\\[dt]?frac ?\{([^{}]{1,100})\} ?\{([^{}]{1,100})\}"), r"\1/\2"),
    (re.compile(r"\\(?:text|mathrm|mathbf|textbf) ?\{([^{}]{0,100})\}"), r"\1"),
    (re.compile(r"\\[,!; ]|\{,\}|\\left|\\right|\\[()\[\]]"), ""),
    (re.compile(r"\\([$%])"), r"\1"),
)
_BOXED = re.compile(r"\\boxed ?\{([^{}]{0,200})\}")
_MARKED = re.compile(r"####[ \t]*([^\n]*)")
_ANNOUNCED = re.compile(
    r"\b(?:answer|result|solution)(?: (?:is|was|will be|equals)|:)(?: that)?:?[ \t*_]*\n?"
    r"([^\n]{1,2000})",
    re.IGNORECASE,
)
_CHOICE = re.compile(r"(?<![A-Za-z'])\(?([A-J])\)?(?![A-Za-z'])")
_ONLY_CHOICE = re.compile(r"[\s(\[*_]*([A-J])[\s)\]*_.:]*")
_LEADING_CHOICE = re.compile(r"[\s*_]*(?:\(([A-J])\)|([A-J])[).:])[*_]*\s")
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def is_right(answer: str, reference: Any) -> bool:
    """Whether a final answer agrees with the reference, or with one of a list of them.

    Takes time linear in the answer.

    Args:
      answer: text of the output block.
      reference: text, a number, a truth value, or a list of these.
    """
    if isinstance(reference, list | tuple):
        return any(is_right(answer, one) for one in reference)
    wanted = _plain(_result_of(str(reference)))
    plain = _plain(answer)
    if values := _values(wanted):
        return bool(values & _number_said(plain))
    if match := _ONLY_CHOICE.fullmatch(wanted):
        return _choice_said(plain) == match[1]
    return _says(plain, wanted)


def is_checkable(reference: str) -> bool:
    """Whether a reference is a number or a letter, so that an answer is either it or wrong.

    Of a text, other words may be right.
    """
    wanted = _plain(_result_of(reference))
    return bool(_values(wanted)) or _ONLY_CHOICE.fullmatch(wanted) is not None


def says_text(answer: str, reference: str) -> bool:
    """Whether an answer gives a text as its result, even one that looks like a number or a letter.

    Case, punctuation, articles and spaces do not count.
    """
    return _says(_plain(answer), _plain(reference))


def _result_of(reference: str) -> str:
    """The result at the end of a reference, which may be a whole solution."""
    found = _BOXED.findall(reference) or _MARKED.findall(reference)
    return found[-1] if found else reference


def _plain(text: str) -> str:
    """A text without the mark-up of LaTeX, but for boxes."""
    for pattern, by in _LATEX:
        text = pattern.sub(by, text)
    return unicodedata.normalize("NFC", text)


def announced(text: str) -> str | None:
    """What the answer announces as its result, last; None: nothing, "": boxes that disagree."""
    if boxes := _BOXED.findall(text):
        return boxes[-1] if len({_normal(box) for box in boxes}) == 1 else ""
    found = _MARKED.findall(text) or _ANNOUNCED.findall(text)
    return found[-1] if found else None


def _values(text: str) -> set[Fraction]:
    """What a text that is a number may stand for: 12.5% also for 0.125; empty: it is none."""
    match = _NUMBER.fullmatch(text.strip().rstrip("."))
    return set() if match is None else _values_of(match)


def _values_of(match: re.Match[str]) -> set[Fraction]:
    parts = [match["mixed"] or "0", match["whole"], match["below"] or "1"]
    mixed, whole, below = (part.replace(",", "") for part in parts)
    if max(map(len, (mixed, whole, below))) > 2 * _MOST_DIGITS or not Fraction(below):
        return set()
    value = Fraction(mixed) + Fraction(whole) / Fraction(below)
    if match["sign"] or match["inner"]:
        value = -value
    return {value, value / 100} if match["percent"] else {value}


def _number_said(text: str) -> set[Fraction]:
    """The number that an answer gives as its result; empty: none."""
    said = announced(text)
    if said is not None:
        equation = said.rpartition("=")[2]
        for part in (equation, said):
            if match := _NUMBER.search(part):
                return _values_of(match)
        if said == "" or _BOXED.search(text):
            return set()
    numbers = deque(_NUMBER.finditer(text), maxlen=1)
    return _values_of(numbers.pop()) if numbers else set()


def _choice_said(text: str) -> str | None:
    said = announced(text)
    if said is not None:
        match = _CHOICE.search(said)
        return match[1] if match else None
    lines = [line for line in text.splitlines() if line.strip()]
    for line in (lines[-1], lines[0]) if lines else ():
        if match := _ONLY_CHOICE.fullmatch(line):
            return match[1]
    if match := _LEADING_CHOICE.match(text + " "):
        return match[1] or match[2]
    return None


def _texts_said(text: str) -> Iterable[str]:
    """What an answer may mean as its result: all of it, its last line, what it announces."""
    yield text
    said = announced(text)
    if said is not None:
        yield said
    elif lines := text.strip().splitlines():
        yield lines[-1]


def _says(plain: str, wanted: str) -> bool:
    """Whether one of the texts that an answer may mean is the wanted one."""
    if normal := _normal(wanted):
        return normal in map(_normal, _texts_said(plain))
    # of an article or of punctuation alone nothing is left, as of an empty answer
    bare = wanted.strip().casefold()
    return bool(bare) and bare in (text.strip(" .\n").casefold() for text in _texts_said(plain))


def _normal(text: str) -> str:
    """A text without case, punctuation, articles, and more than single spaces."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    letters = "".join(c if c.isalnum() else " " for c in folded if unicodedata.category(c) != "Mn")
    return " ".join(_ARTICLES.sub(" ", letters).split())
