"""Names of models, methods and benchmarks as names of files that every system takes."""

import re

from stair_jax.storage import fingerprint

_LONGEST = 100  # characters of a file's name, of the 255 bytes that there are
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


def slug(name: str) -> str:
    """A name as a file has it; names that differ stay so."""
    safe = _UNSAFE.sub("_", name).strip(".")[:_LONGEST] or "_"
    return safe if safe == name else f"{safe}.{fingerprint(name)[:6]}"
