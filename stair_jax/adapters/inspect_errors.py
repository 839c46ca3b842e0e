"""Our one-line errors where inspect-ai shows them as one line, too."""

from collections.abc import Iterator
from contextlib import contextmanager

from inspect_ai._util.error import PrerequisiteError  # inspect has no public name for it

from stair_jax.errors import UserError


@contextmanager
def shown_by_inspect() -> Iterator[None]:
    """Raises a UserError as a PrerequisiteError, which inspect prints without a traceback."""
    try:
        yield
    except UserError as error:
        raise PrerequisiteError(str(error)) from error
