"""The shared token of a run: how its processes prove to each other that they have it.

Both sides draw a nonce, and sign both nonces together with what they say (HMAC-SHA256, RFC 2104).
So the token itself never travels, and what was heard on the network is of no use later. Without a
token the key is empty: then anyone who speaks the protocol can join.
"""

import hashlib
import hmac
import json
import os
import re
import secrets
from typing import Any

from stair_jax.errors import UserError

VARIABLE = "STAIR_TOKEN"  # environment variable that holds the token
_SHORTEST = 16  # characters
_NONCE, _PROOF = re.compile(r"[0-9a-f]{32}"), re.compile(r"[0-9a-f]{64}")


def read_token() -> str:
    """The token of the environment; empty: none is set.

    Raises:
      UserError: it can be guessed.
    """
    token = os.environ.get(VARIABLE, "")
    if 0 < len(token) < _SHORTEST:
        raise UserError(
            f"{VARIABLE} has {len(token)} characters: it must have at least {_SHORTEST}, such as "
            "those that `openssl rand -hex 16` prints, the same for all processes of the run"
        )
    return token


def draw_nonce() -> str:
    """A random text that was never used before."""
    return secrets.token_hex(16)


def is_nonce(text: str) -> bool:
    """Whether a text has the form of a nonce."""
    return _NONCE.fullmatch(text) is not None


def sign(token: str, *said: Any) -> str:
    """The proof that whoever says this (values of JSON) has the token."""
    key = token.encode(errors="surrogateescape")
    return hmac.new(key, json.dumps(said).encode(), hashlib.sha256).hexdigest()


def is_proof(text: str, token: str, *said: Any) -> bool:
    """Whether a text is what `sign` gives."""
    # compare_digest takes no text beyond ASCII.
    return _PROOF.fullmatch(text) is not None and hmac.compare_digest(text, sign(token, *said))
