"""API keys: a file of them, and whether a request brings one."""

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from pathlib import Path

from stair_jax.errors import UserError

_SHORTEST = 16  # characters: what is shorter can be guessed
_FORM = f"one key a line, each of {_SHORTEST} or more printable characters without spaces"


class Keys:
    """Keys that are known by their hashes alone."""

    def __init__(self, keys: Iterable[str]):
        """Keys as clients bring them."""
        self._hashes = [hashlib.sha256(key.encode()).digest() for key in keys]

    def find(self, headers: Mapping[str, str]) -> int | None:
        """Which of the keys the headers of a request bring; None: no known one.

        It takes the same time whichever it is, and however much of it is right.

        Args:
          headers: with `authorization: Bearer KEY`, as OpenAI's clients send it.
        """
        scheme, _, key = headers.get("authorization", "").partition(" ")
        given = hashlib.sha256(key.strip().encode()).digest()
        matches = [hmac.compare_digest(given, known) for known in self._hashes]
        if scheme.lower() != "bearer" or not any(matches):
            return None
        return matches.index(True)


def read_keys(path: str) -> Keys | None:
    """The keys of a file; None where there is none.

    Empty lines and those that begin with # are left out.

    Raises:
      UserError: the file cannot be read, or holds no keys.
    """
    if not path:
        return None
    try:
        lines = Path(path).expanduser().read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"--api-key-file={path} is no UTF-8 text: {_FORM}") from error
    except OSError as error:
        raise UserError(f"cannot read --api-key-file={path}: {error.strerror}") from error
    keys = []
    for number, line in enumerate(map(str.strip, lines), 1):
        if line and not line.startswith("#"):
            is_printable = line.isascii() and line.isprintable() and " " not in line
            if len(line) < _SHORTEST or not is_printable:
                raise UserError(f"--api-key-file={path}, line {number} is no key: {_FORM}")
            keys.append(line)
    if not keys:
        raise UserError(f"--api-key-file={path} has no keys: {_FORM}")
    return Keys(keys)
