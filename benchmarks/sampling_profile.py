"""Where the host's time goes, by samples of the main thread's stack: no call is instrumented."""

import signal
from collections import Counter
from types import FrameType
from typing import Any


class SamplingProfile:
    """Looks at the main thread every two milliseconds, and prints the functions seen most.

    By a timer's signal, not from another thread: that would see the main thread where it gives the
    interpreter's lock away, and hardly anywhere else. For the main thread alone.
    """

    def __init__(self, shown: int, interval: float = 0.002):
        """`shown` functions are printed at the end; with 0, nothing is sampled."""
        self._shown, self._interval = shown, interval
        self._own: Counter[str] = Counter()
        self._within: Counter[str] = Counter()
        self._handler: Any = None

    def __enter__(self) -> "SamplingProfile":
        """Starts to sample."""
        if self._shown:
            self._handler = signal.signal(signal.SIGALRM, self._sample)
            signal.siginterrupt(signal.SIGALRM, False)  # system calls of others go on
            signal.setitimer(signal.ITIMER_REAL, self._interval, self._interval)
        return self

    def __exit__(self, *exception: object) -> None:
        """Prints shares of the samples: of a function itself, and with what it calls."""
        if not self._shown:
            return
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._handler)
        samples = self._own.total()
        for title, counts in (("itself", self._own), ("with what it calls", self._within)):
            print(f"share of {samples} samples, {title}:", flush=True)
            for name, count in counts.most_common(self._shown):
                print(f"  {count / max(samples, 1):6.1%}  {name}", flush=True)

    def _sample(self, number: int, frame: FrameType | None) -> None:
        names = []
        while frame is not None:
            code = frame.f_code
            names.append(f"{'/'.join(code.co_filename.split('/')[-2:])}:{code.co_qualname}")
            frame = frame.f_back
        self._own[names[0]] += 1
        self._within.update(set(names))
