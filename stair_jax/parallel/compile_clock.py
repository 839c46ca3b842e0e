"""Seconds that this process has spent compiling, so that rates of steps can leave them out."""

import functools
import threading
from collections.abc import Callable

import jax

# Of functions as a whole: what they call in turn is a part of them, and has no event of its own.
_EVENTS = frozenset(
    f"/jax/core/compile/{part}_duration"
    for part in ("jaxpr_trace", "jaxpr_to_mlir_module", "backend_compile")
)


def compile_seconds() -> float:
    """Seconds of tracing, lowering and compiling since the first call, over all threads.

    A program that comes from JAX's cache on the disk counts with the time of loading it.
    """
    return _counter()()


@functools.cache
def _counter() -> Callable[[], float]:
    """Starts to count; JAX calls the listener in the thread that compiles."""
    total, lock = [0.0], threading.Lock()

    def listen(event: str, duration_secs: float, **_: str | int) -> None:
        if event in _EVENTS:
            with lock:
                total[0] += duration_secs

    jax.monitoring.register_event_duration_secs_listener(listen)
    return lambda: total[0]
