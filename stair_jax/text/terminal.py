"""Text from outside, made safe to print on a terminal."""

import re

# Control characters (C0 without tab and line feed, DEL, C1), among them those that begin the escape
# sequences of terminals; and the embeddings, overrides and isolates of the bidirectional algorithm
# (Unicode UAX 9), with which a line can look like another one. Lone surrogates cannot be printed.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    r"""The text with control characters written as escapes such as `\x1b`.

    Also right for pieces of a text: each character is looked at by itself.
    """
    return _UNSAFE.sub(_escape, text)


def printable_json(line: str) -> str:
    r"""A line of JSON with the same characters as escapes of JSON (`\u001b`): the same value."""
    return _UNSAFE.sub(lambda match: f"\\u{ord(match.group()):04x}", line)


def _escape(match: "re.Match[str]") -> str:
    code = ord(match.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
