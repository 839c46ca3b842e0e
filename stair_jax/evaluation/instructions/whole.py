"""Checks of the response as a whole: how it begins and ends, whether it is two, its language."""

import unicodedata

# Languages that are told by their script alone, by ISO 639-1 code.
SCRIPTS = {
    "bn": "BENGALI",
    "el": "GREEK",
    "gu": "GUJARATI",
    "he": "HEBREW",
    "hy": "ARMENIAN",
    "ka": "GEORGIAN",
    "kn": "KANNADA",
    "ko": "HANGUL",
    "ml": "MALAYALAM",
    "pa": "GURMUKHI",
    "ta": "TAMIL",
    "te": "TELUGU",
    "th": "THAI",
}


def is_two_responses(response: str) -> bool:
    """Two different responses, with six asterisks between them."""
    parts = [part.strip() for part in response.split("******")]
    inner = [part for number, part in enumerate(parts) if part or 0 < number < len(parts) - 1]
    return len(inner) == 2 and all(inner) and inner[0] != inner[1]


def repeats_prompt(response: str, *, prompt_to_repeat: str) -> bool:
    """It begins with the request, in any case."""
    return response.strip().lower().startswith(prompt_to_repeat.strip().lower())


def ends_with(response: str, *, end_phrase: str) -> bool:
    """It ends with the phrase, in any case; a last quotation mark does not count."""
    return response.strip().strip('"').lower().endswith(end_phrase.strip().strip('"').lower())


def is_quoted(response: str) -> bool:
    """Double quotation marks are around all of it."""
    text = response.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


def is_in_language(response: str, *, language: str) -> bool:
    """More than half of its letters are of the language's script, one of `SCRIPTS`."""
    letters = [letter for letter in response if letter.isalpha()]
    names = (unicodedata.name(letter, "") for letter in letters)
    return 2 * sum(name.startswith(SCRIPTS[language]) for name in names) > len(letters)
