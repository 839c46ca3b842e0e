"""The one exception that the command line shows to a user as a single line."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake that the user can correct (exit status 2).

    The message is one line that says what is wrong and what to change; it is
    printed without a traceback.
    """


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest known one, or all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        return f"did you mean {near[0]}?"
    return f"known are {', '.join(names)}" if names else "none are known"
