"""Codes that a prompt or its answer is written in, and how an answer is read back.

A model that is asked to answer in a code may answer in plain text: a refusal, most often. An answer
is therefore decoded only where it reads as the code, so that no judge is shown a refusal in code.
"""

import base64
import binascii
import codecs
import re

_RUN = re.compile(r"[A-Za-z0-9+/]{16,}={0,2}")  # longer than nearly all words
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")
_WORD = re.compile(r"[a-z']+")
# The most frequent words of English texts.
_FREQUENT = frozenset(
    (
        *("the", "of", "and", "to", "a", "in", "is", "it", "you", "that", "was", "for", "on"),
        *("are", "with", "as", "i", "they", "be", "at", "this", "have", "from", "or", "by"),
        *("but", "not", "what", "all", "when", "your", "can", "an", "which", "how", "if"),
        *("will", "do", "no", "yes", "sure", "sorry", "cannot", "can't", "i'm"),
    )
)
_VOWELS = re.compile("[aeiou]", re.IGNORECASE)
_LEET = str.maketrans("aeilostAEILOST", "43110574311057")


def rot13(text: str) -> str:
    """Each Latin letter exchanged for the one 13 places on; its own inverse."""
    return codecs.encode(text, "rot13")


def read_rot13(answer: str) -> str:
    """An answer in plain text, whether it is in rot13 or not.

    It is taken for rot13 unless it has more of the frequent English words than its decoded form.
    """
    decoded = rot13(answer)
    return decoded if _english(decoded) >= _english(answer) else answer


def _english(text: str) -> int:
    return sum(word in _FREQUENT for word in _WORD.findall(text.lower()))


def to_base64(text: str) -> str:
    """The UTF-8 bytes of a text in Base64."""
    return base64.b64encode(text.encode("utf-8", "replace")).decode("ascii")


def read_base64(answer: str) -> str:
    """An answer in plain text, whether it is in Base64, holds runs of it, or none.

    Code that was cut off at the limit of tokens is read up to there. What is not the Base64 of a
    text in UTF-8 stays as it is.
    """
    packed = "".join(answer.split("\n")).strip()
    if _RUN.fullmatch(packed):
        text = _read_run(packed)
        return answer if text == packed else text
    if len(packed) % 4 == 0 and _BASE64.fullmatch(packed):
        try:
            return base64.b64decode(packed, validate=True).decode("utf-8")
        except (binascii.Error, UnicodeDecodeError):
            return answer
    return _RUN.sub(lambda match: _read_run(match.group()), answer)


def _read_run(run: str) -> str:
    """The text of a run of Base64, perhaps cut; the run itself where it is none."""
    digits = run.rstrip("=")
    digits = digits[: len(digits) - (len(digits) % 4 == 1)]  # one digit alone is no byte
    try:
        data = base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True)
        # A character that was cut is left out.
        return codecs.getincrementaldecoder("utf-8")().decode(data, final=False)
    except (binascii.Error, UnicodeDecodeError):
        return run


def disemvowel(text: str) -> str:
    """A text without its vowels; `y` stays."""
    return _VOWELS.sub("", text)


def leetspeak(text: str) -> str:
    """Digits in place of the letters that they look like: a 4, e 3, i and l 1, o 0, s 5, t 7."""
    return text.translate(_LEET)
