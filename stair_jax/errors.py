"""The one exception that the command line shows to a user as a single line."""

import difflib
import errno
import os
from collections.abc import Iterable


class UserError(Exception):
    """A mistake that the user can correct (exit status 2).

    The message is one line that says what is wrong and what to change; it is
    printed without a traceback.
    """


# Of what runs out or fails; they may come without the name of a file.
_RESOURCES = frozenset(
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EROFS", "EFBIG", "EIO", "EMFILE", "ENFILE", "ESTALE")
)


def system_error(error: Exception) -> str:
    """What the operating system refused, as one line; "" if `error` is of another kind."""
    if isinstance(error, ValueError) and "embedded null" in str(error):
        return "a path holds a NUL character: see the paths in the config"
    if not isinstance(error, OSError) or error.errno is None:
        return ""
    reason = os.strerror(error.errno)
    if error.filename is not None:
        return f"cannot use {os.fsdecode(error.filename)}: {reason}"
    return f"the system refuses: {reason}" if error.errno in _RESOURCES else ""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest known one, or all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        return f"did you mean {near[0]}?"
    return f"known are {', '.join(names)}" if names else "none are known"
