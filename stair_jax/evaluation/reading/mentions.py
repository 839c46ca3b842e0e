"""Whether an answer mentions an item of information: a name, a date, an amount, a phrase."""

import re
import unicodedata

_MONTHS = "January February March April May June July August September October November December"
_DATE = re.compile(rf"({_MONTHS.replace(' ', '|')}) (\d{{1,2}})(?:st|nd|rd|th)?", re.IGNORECASE)
_THOUSANDS = re.compile(r"(\d+) ?k", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?]\s|[\n;]")
_FILLERS = {"a", "an", "the", "to", "of", "in", "at", "on", "for"}


def mentions_name(text: str, name: str) -> bool:
    """Whether a text holds a name as a whole word, in its own case ("Will" is no "will")."""
    return re.search(rf"(?<!\w){re.escape(_plain(name))}(?!\w)", _plain(text)) is not None


def mentions(text: str, item: str) -> bool:
    """Whether a text mentions an item, in any case.

    A date ("August 15th") is mentioned by month and day in either order, with the month in full or
    by its first three letters; thousands ("10K") by any writing of the number; anything else by a
    sentence or line that has all words of the item, whatever their order and endings.
    """
    plain = _plain(text)
    if date := _DATE.fullmatch(item.strip()):
        month, day = rf"{date[1][:3]}(?:{date[1][3:]})?\.?", rf"0?{int(date[2])}(?:st|nd|rd|th)?"
        either = rf"\b(?:{month} (?:the )?{day}|{day} (?:of )?{month})(?!\w)"
        return re.search(either, plain, re.IGNORECASE) is not None
    if amount := _THOUSANDS.fullmatch(item.strip()):
        number = rf"(?<![\d.,]){amount[1]}(?: ?k|,?000| thousand)(?![\w,]*\d)(?!\w)"
        return re.search(number, plain, re.IGNORECASE) is not None
    stems = [_stem(word) for word in re.findall(r"\w+", _plain(item)) if word not in _FILLERS]
    patterns = [re.compile(rf"\b{re.escape(stem)}", re.IGNORECASE) for stem in stems]
    return bool(patterns) and any(
        all(pattern.search(part) for pattern in patterns) for part in _SENTENCE_END.split(plain)
    )


def _plain(text: str) -> str:
    """A text in compatible characters, with single spaces within its lines."""
    lines = unicodedata.normalize("NFKC", text).splitlines()
    return "\n".join(" ".join(line.split()) for line in lines)


def _stem(word: str) -> str:
    """What the forms of a word begin with: "mov" of "move", "concern" of "concerns"."""
    return re.sub("(?:e|s|es)$", "", word) if len(word) > 3 else word
