"""How many calls may be under way: additive increase, multiplicative decrease (AIMD).

The rate that an endpoint allows is not known beforehand, changes, and is shared with others. So
the limit of concurrent calls rises by one after some successes, and falls to three quarters at the
first refusal (HTTP 429) of a burst, as in TCP congestion control (Chiu and Jain 1989; RFC 5681).
"""

_START = 8  # calls at once before anything is known
_WINDOW = 25  # successes before the limit rises by one
_FIRST_WINDOW = 5  # the same before the first refusal, as in TCP's slow start
_PATIENT_WINDOW = 100  # the same just below the limit that was refused last
_DECREASE = 0.75
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0  # seconds, where the endpoint does not say how long


class Throttle:
    """Counts calls under way and says when another may start. Knows no clock: times are arguments.

    Attributes:
      in_flight: calls under way.
      refused: calls that were refused for the rate.
      paused_until: time before which no call may start.
    """

    def __init__(self, most: int):
        """A throttle with at most `most` calls at once."""
        self._most = most
        self._limit = float(min(_START, most))
        self._ceiling = 0  # the limit that was refused last; 0: none
        self._successes = 0  # since the limit changed
        self._burst = 0  # number of the burst of refusals that was last
        self._pauses = 0  # bursts in a row without a success
        self.in_flight = 0
        self.refused = 0
        self.paused_until = 0.0

    @property
    def limit(self) -> int:
        """Calls that may be under way at once."""
        return int(self._limit)

    def may_start(self, now: float) -> bool:
        """Whether a call may start at the time `now` in seconds."""
        return self.in_flight < self.limit and now >= self.paused_until

    def start(self) -> int:
        """Counts a call that starts; returns its ticket, to be given back when it ends."""
        self.in_flight += 1
        return self._burst

    def succeed(self) -> None:
        """A call ended with a reply."""
        self.in_flight -= 1
        self._pauses = 0
        self._successes += 1
        if self._successes >= self._window() and self._limit < self._most:
            if self.limit >= self._ceiling:
                self._ceiling = 0  # it holds now: the endpoint allows more than it did
            self._limit = min(self._limit + 1, self._most)
            self._successes = 0

    def fail(self) -> None:
        """A call ended without a reply, for reasons other than the rate."""
        self.in_flight -= 1

    def refuse(self, ticket: int, now: float, wait: float | None, jitter: float) -> None:
        """A call was refused for the rate.

        Args:
          ticket: of `start`. Calls that started before the last decrease belong to its burst.
          now: time in seconds.
          wait: seconds after which the endpoint wants to be asked again; None: it does not say.
          jitter: factor on the pause, where the endpoint says nothing.
        """
        self.in_flight -= 1
        self.refused += 1
        if ticket == self._burst:
            self._burst += 1
            self._ceiling = self.limit
            self._limit = max(1.0, self._limit * _DECREASE)
            self._successes = 0
            pause = min(_FIRST_PAUSE * 2.0**self._pauses, _LONGEST_PAUSE) * jitter
            self._pauses = min(self._pauses + 1, 16)
            self.paused_until = max(self.paused_until, now + (pause if wait is None else wait))
        elif wait is not None:
            self.paused_until = max(self.paused_until, now + wait)

    def _window(self) -> int:
        """Successes before the limit rises."""
        if not self._burst:
            return _FIRST_WINDOW
        return _PATIENT_WINDOW if self.limit == self._ceiling - 1 else _WINDOW
