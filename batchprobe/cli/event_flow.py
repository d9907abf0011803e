# SPDX-License-Identifier: Apache-2.0
"""Events on their way from a session to a sink."""

from __future__ import annotations

from itertools import islice

from batchprobe.session import Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from batchprobe.output.base import Sink

__all__ = ["EventFlow"]

# Events come without a wakeup (bpf/events.h).
_SECONDS = 0.05
# Then it is time to look whether the run is over.
_AT_ONCE = 1000


class EventFlow:
    """Hands events on, up to the limit of the action."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._limit = session.action.limit
        self._passed = 0
        self.wait = _SECONDS
        """Seconds until the next look."""

    @property
    def is_over(self) -> bool:
        """Whether there were as many events as were asked for."""
        return self._limit is not None and self._passed >= self._limit

    def pass_some(self, sink: Sink) -> None:
        """Hand some events on; `wait` is 0 if there may be more."""
        passed = self._pass(sink, _AT_ONCE)
        self.wait = 0.0 if passed == _AT_ONCE else _SECONDS

    def pass_all(self, sink: Sink) -> None:
        """Hand on what is left."""
        self._pass(sink, None)

    def _pass(self, sink: Sink, most: int | None) -> int:
        if self._limit is not None:
            # CPUs that reach the limit together may pass it by some.
            left = self._limit - self._passed
            most = left if most is None else min(left, most)
        before = self._passed
        for event in islice(self._session.events(), most):
            sink.event(event)
            self._passed += 1
        sink.events_over()
        return self._passed - before
