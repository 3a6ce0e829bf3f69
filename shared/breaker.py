"""A small circuit breaker: a dependency that keeps failing is left alone for a while, then probed by one call.

Pure: the time comes with each question.
"""

from __future__ import annotations


class Breaker:
    """Opens after `threshold` failures in a row, for a rest that every failed probe doubles."""

    def __init__(self, *, threshold: int = 5, rest_s: float = 0.5, max_rest_s: float = 5.0) -> None:
        self._threshold = threshold
        self._first_rest_s = rest_s
        self._max_rest_s = max_rest_s
        self._rest_s = rest_s
        self._failures = 0
        self._probing = False
        self._rests_until_s = 0.0

    @property
    def closed(self) -> bool:
        """Whether the dependency is taken to be well."""
        return self._failures < self._threshold

    def rests_for_s(self, now_s: float) -> float:
        """How long it is until the next probe may go out."""
        return 0.0 if self.closed else max(0.0, self._rests_until_s - now_s)

    def allows(self, now_s: float) -> bool:
        """Whether a call may go out now. Once the rest is over, one call probes while the others go on resting."""
        if self.closed:
            return True
        if now_s < self._rests_until_s:
            return False
        self._probing = True
        self._rests_until_s = now_s + self._rest_s
        return True

    def succeeded(self) -> None:
        """Closes the breaker."""
        self._failures = 0
        self._probing = False
        self._rest_s = self._first_rest_s

    def failed(self, now_s: float) -> None:
        """Counts a failure. Those of calls that were under way when the breaker opened do not lengthen the rest."""
        self._failures += 1
        if self._probing:
            self._probing = False
            self._rest_s = min(self._max_rest_s, self._rest_s * 2)
            self._rests_until_s = now_s + self._rest_s
        elif self._failures == self._threshold:
            self._rests_until_s = now_s + self._rest_s
