"""What an engine sends to its device programs, and other functions in the place of one."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from stair_jax.decoding.engine import Engine


@contextmanager
def wrapped_program(engine: Engine, name: str, wrapper: Callable[..., Any]) -> Iterator[None]:
    """Within, a call of a device program is one of `wrapper`.

    Args:
        engine: the engine.
        name: a field of `Programs`.
        wrapper: is given the program and its arguments, and returns what the program would.
    """
    plain = engine.device.programs
    wrapped = partial(wrapper, getattr(plain, name))
    engine.device.programs = plain._replace(**{name: wrapped})
    try:
        yield
    finally:
        engine.device.programs = plain


@contextmanager
def noted_prefills(engine: Engine) -> Iterator[list[tuple[np.ndarray, ...]]]:
    """Gives the arrays of each prefill call within, as `pack_prefill` returns them."""
    calls: list[tuple[np.ndarray, ...]] = []

    def noted(program: Any, *arguments: Any) -> Any:
        calls.append(tuple(np.asarray(array) for array in arguments[4:]))
        return program(*arguments)

    with wrapped_program(engine, "prefill", noted):
        yield calls
