"""Reading what an attacker replies: JSON objects of known fields, and nothing else.

A reply is text of a model: it is parsed as JSON, strictly, and never evaluated.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from stair_jax.text.plain import valid_unicode

_LONGEST = 2**17  # characters; what is longer is no reply to our questions
_FENCED = re.compile(r"```(?:json)?[ \t]*\n(.*?)```", re.DOTALL | re.IGNORECASE)


def read_object(text: str, fields: Mapping[str, type]) -> dict[str, Any] | None:
    """The fields of a JSON object; None: there is none that has all of them.

    The object is all of the text, or all of a fenced block in it, the first that can be read. Line
    ends inside of texts, which models write, are allowed; keys that come twice are not.

    Args:
      text: of the reply.
      fields: str, int or bool by name. Texts must not be empty; further fields are ignored.
    """
    if len(text) > _LONGEST:
        return None
    for candidate in (text, *_FENCED.findall(text)):
        values = _loads(candidate)
        if isinstance(values, dict) and all(
            _fits(values.get(name), kind) for name, kind in fields.items()
        ):
            return {name: _plain(values[name]) for name in fields}
    return None


def read_text(text: str, field: str) -> str | None:
    """The text in a field of a JSON object, see `read_object`."""
    found = read_object(text, {field: str})
    return found[field].strip() if found else None


def _loads(text: str) -> Any:
    """A JSON value; None where there is none."""
    try:
        return json.loads(
            text.strip(), strict=False, parse_constant=_refused, object_pairs_hook=_unique
        )
    except (ValueError, RecursionError):
        return None


def _refused(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _unique(items: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(items)
    if len(made) < len(items):
        raise ValueError("a key comes twice")
    return made


def _fits(value: Any, kind: type) -> bool:
    is_blank = isinstance(value, str) and not value.strip()
    return type(value) is kind and not is_blank


def _plain(value: Any) -> Any:
    return valid_unicode(value) if isinstance(value, str) else value
