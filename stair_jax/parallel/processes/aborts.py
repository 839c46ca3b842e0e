"""An abort of this process waits some seconds, so that the watchdog can say why it happens.

When process 0 dies, JAX's coordination client notices it at the same moment as `watchdog.py`, and
aborts the process (SIGABRT, with a stack trace). In jaxlib 0.10.2 to 0.12.0 nothing turns that off:
`jax_enable_recoverability` concerns the service alone, and a `missed_heartbeat_callback` in Python
ends in std::bad_cast. So the thread that aborts is made to sleep, and the watchdog, where it is
about to act, ends the process first, with its line and its exit status.
"""

import ctypes
import signal


def delay_aborts() -> None:
    """Makes each `abort()` of this process wait some seconds before it takes effect.

    The handler is the C library's own `sleep`: called with the number of the signal, 6, it sleeps
    as many seconds in the thread that aborts, without a need for Python's lock; then `abort` goes
    on. POSIX lists `sleep` among the functions that handlers may call.
    """
    libc = ctypes.CDLL(None)
    libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
    libc.signal.restype = ctypes.c_void_p
    libc.signal(signal.SIGABRT, ctypes.cast(libc.sleep, ctypes.c_void_p))
