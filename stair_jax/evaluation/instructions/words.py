"""Checks of words and letters: keywords, their frequency, upper and lower case, commas."""

import re

from stair_jax.evaluation.instructions.relations import holds

_WORD = re.compile(r"\w+(?:['\u2019-]\w+)*")


def has_keywords(response: str, *, keywords: list[str]) -> bool:
    """Each keyword occurs, in any case, also inside of longer words."""
    return all(keyword.casefold() in response.casefold() for keyword in keywords)


def has_keyword_often(response: str, *, keyword: str, frequency: int, relation: str) -> bool:
    """The keyword occurs so many times, in any case, also inside of longer words."""
    return holds(response.casefold().count(keyword.casefold()), relation, frequency)


def has_no_forbidden_words(response: str, *, forbidden_words: list[str]) -> bool:
    """None of the words occurs as a whole word, in any case."""
    return not any(
        re.search(rf"\b{re.escape(word)}\b", response, re.IGNORECASE) for word in forbidden_words
    )


def has_letter_often(response: str, *, letter: str, let_frequency: int, let_relation: str) -> bool:
    """The letter (or other character) occurs so many times, in any case."""
    return holds(response.lower().count(letter.lower()), let_relation, let_frequency)


def has_capital_words(response: str, *, capital_frequency: int, capital_relation: str) -> bool:
    """So many words are in capital letters throughout; "I" and "A" are such words."""
    capitals = sum(word.isupper() for word in _WORD.findall(response))
    return holds(capitals, capital_relation, capital_frequency)


def is_upper_case(response: str) -> bool:
    """There are letters, and all are capitals; whether it is English is not checked."""
    return response.isupper()


def is_lower_case(response: str) -> bool:
    """There are letters, and none is a capital; whether it is English is not checked."""
    return response.islower()


def has_no_comma(response: str) -> bool:
    """There is no comma."""
    return "," not in response
