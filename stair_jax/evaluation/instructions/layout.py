"""Checks of the form: lists, sections, titles, JSON, placeholders, postscripts."""

import json
import re

_FENCE = re.compile(r"```(?:json)?\s*\n?(.*?)\n?\s*```", re.DOTALL | re.IGNORECASE)
_ANSWERS = ("my answer is yes.", "my answer is no.", "my answer is maybe.")


def has_bullets(response: str, *, num_bullets: int) -> bool:
    """Exactly so many lines begin with "* " or "-"."""
    return len(re.findall(r"^[ \t]*(?:\*[^*\n]|-)", response, re.MULTILINE)) == num_bullets


def has_highlights(response: str, *, num_highlights: int) -> bool:
    """At least so many parts of lines are marked by *...* or **...**."""
    marked = re.findall(r"\*\*([^\n*]+)\*\*|(?<!\*)\*([^\n*]+)\*(?!\*)", response)
    return sum(bool("".join(texts).strip()) for texts in marked) >= num_highlights


def has_sections(response: str, *, section_spliter: str, num_sections: int) -> bool:
    """At least so many sections begin with the word and a number, such as "Section 1"."""
    starts = re.findall(rf"(?<!\w){re.escape(section_spliter.strip())}\s?\d+", response)
    return len(starts) >= num_sections


def is_json(response: str) -> bool:
    """All of the response is JSON, in a fence of Markdown or not."""
    text = response.strip()
    fenced = _FENCE.fullmatch(text)
    try:
        json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError):
        return False
    return True


def has_title(response: str) -> bool:
    """There is a title in double angular brackets, such as <<Spring>>."""
    return any(title.strip("<> \t\r") for title in re.findall(r"<<[^<>\n]+>>", response))


def has_placeholders(response: str, *, num_placeholders: int) -> bool:
    """At least so many placeholders in square brackets, such as [address]."""
    return len(re.findall(r"\[[^\[\]\n]*\]", response)) >= num_placeholders


def has_postscript(response: str, *, postscript_marker: str) -> bool:
    """There is a postscript behind the marker, in any case, with or without spaces in it."""
    letters = [re.escape(letter) for letter in postscript_marker.lower() if not letter.isspace()]
    return re.search(r"\s?".join(letters) + r".*\w", response.lower(), re.DOTALL) is not None


def is_constrained(response: str) -> bool:
    """It says that its answer is yes, no or maybe, in the sentence that was asked for."""
    return any(answer in response.lower() for answer in _ANSWERS)
