"""The checkable instructions by their ids, and whether a response follows one."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from stair_jax.data.numbers import read_whole
from stair_jax.evaluation.instructions import layout, lengths, whole, words
from stair_jax.evaluation.instructions.relations import RELATIONS

CHECKS: Mapping[str, Callable[..., bool]] = {
    "keywords:existence": words.has_keywords,
    "keywords:frequency": words.has_keyword_often,
    "keywords:forbidden_words": words.has_no_forbidden_words,
    "keywords:letter_frequency": words.has_letter_often,
    "language:response_language": whole.is_in_language,
    "length_constraints:number_sentences": lengths.has_sentences,
    "length_constraints:number_paragraphs": lengths.has_paragraphs,
    "length_constraints:number_words": lengths.has_words,
    "length_constraints:nth_paragraph_first_word": lengths.has_paragraph_beginning,
    "detectable_content:number_placeholders": layout.has_placeholders,
    "detectable_content:postscript": layout.has_postscript,
    "detectable_format:number_bullet_lists": layout.has_bullets,
    "detectable_format:constrained_response": layout.is_constrained,
    "detectable_format:number_highlighted_sections": layout.has_highlights,
    "detectable_format:multiple_sections": layout.has_sections,
    "detectable_format:json_format": layout.is_json,
    "detectable_format:title": layout.has_title,
    "combination:two_responses": whole.is_two_responses,
    "combination:repeat_prompt": whole.repeats_prompt,
    "startend:end_checker": whole.ends_with,
    "startend:quotation": whole.is_quoted,
    "change_case:capital_word_frequency": words.has_capital_words,
    "change_case:english_capital": words.is_upper_case,
    "change_case:english_lowercase": words.is_lower_case,
    "punctuation:no_comma": words.has_no_comma,
}


class BadArguments(ValueError):
    """Raised for arguments that an instruction does not take; the message says which."""


def uncheckable(name: str, arguments: Mapping[str, Any]) -> str:
    """What to say of an instruction that cannot be checked here; "": it can be.

    Args:
      name: id of the instruction.
      arguments: of it, checked by `checked_arguments` where the id is known.
    """
    if name not in CHECKS:
        return name
    language = arguments.get("language", "")
    if CHECKS[name] is whole.is_in_language and language not in whole.SCRIPTS:
        return f"{name} ({language})"
    return ""


def checked_arguments(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a known instruction; those that are None, as tables have them, are left out.

    Raises:
      BadArguments: one is missing, is of another type, or is unknown.
    """
    given = {key: value for key, value in arguments.items() if value is not None}
    parameters = list(inspect.signature(CHECKS[name]).parameters.values())[1:]
    if unknown := set(given) - {parameter.name for parameter in parameters}:
        raise BadArguments(f"{name} takes no {sorted(unknown)[0]!r}")
    found = {}
    for parameter in parameters:
        value = _typed(given.get(parameter.name), parameter)
        if value is None:
            kind = inspect.formatannotation(parameter.annotation)
            raise BadArguments(f"{name} needs {parameter.name!r} as {kind}")
        found[parameter.name] = value
    return found


def follows(response: str, name: str, arguments: Mapping[str, Any]) -> bool:
    """Whether a response follows a known instruction; an empty one follows none."""
    return bool(response.strip()) and CHECKS[name](response, **arguments)


def follows_loosely(response: str, name: str, arguments: Mapping[str, Any]) -> bool:
    """Whether the response follows, or a variant of it.

    Variants are made without the first line, the last line, or both (as introductions and closing
    remarks are), each with and without the asterisks of Markdown.
    """
    lines = response.split("\n")
    variants = [lines, lines[1:], lines[:-1], lines[1:-1]]
    texts = ["\n".join(variant).strip() for variant in variants]
    texts[0] = response
    return any(
        follows(text, name, arguments) for each in texts for text in (each, each.replace("*", ""))
    )


def _typed(value: Any, parameter: inspect.Parameter) -> Any:
    """A value of the parameter's type; None: it has another one."""
    if parameter.annotation is int:
        return read_whole(value)
    if parameter.annotation is str:
        is_good = isinstance(value, str) and value != ""
        if parameter.name.endswith("relation"):
            is_good = value in RELATIONS
        return value if is_good else None
    is_good = isinstance(value, list) and all(isinstance(item, str) for item in value)
    return value if is_good and value else None
