"""What servers of ours say about a stream: the events whose names begin with ``sse-``.

Law: it is acted upon when its turn among the events has come, and no sooner. An event
of such a name without our mark, or without an object in it, is an event like others.
"""

from __future__ import annotations

__all__ = ("Controls",)

import json
from typing import Any, Final, Literal

import aiohttp

from ..decoder import DecodedEvent
from .connection import Connection
from .event import Gap

_GAP: Final = "sse-gap"
_NAMES: Final = frozenset(
    {"sse-busy", "sse-cursor", "sse-end", "sse-error", _GAP, "sse-hello"}
)
_MARGIN: Final = 10.0


class Controls:
    """Acts upon the control events of one stream.

    Args:
        connection: Its connection.
        stall: ``"server"`` where the server's heartbeat says what silence is.
        strict: Whether control events are events like others.

    Attributes:
        resumed: What the server has said of the present connection's beginning.
    """

    def __init__(
        self,
        connection: Connection,
        stall: float | Literal["server"] | None,
        *,
        strict: bool,
    ) -> None:
        self.resumed: str | None = None
        self._connection = connection
        self._stall = stall
        self._names = frozenset() if strict else _NAMES
        self._seen: aiohttp.ClientResponse | None = None

    def act(self) -> bool:
        """Act upon what is first; return whether an event or a gap is next then."""
        connection = self._connection
        ready = connection.ready
        while True:
            if connection.response is not self._seen:
                self._look_at_header()
            if not ready:
                return False
            told = self._told(ready[0])
            if told is None or ready[0].type == _GAP:
                return True
            self._do(told)

    def gap(self) -> Gap | None:
        """Return the gap that is next; None if an event is."""
        event = self._connection.ready[0]
        if (told := self._told(event)) is None:
            return None
        after = told.get("after")
        after = after if isinstance(after, str) else None
        return Gap(str(told.get("reason")), after, event.last_event_id)

    def _told(self, event: DecodedEvent) -> dict[str, Any] | None:
        """Return the object of a control event; None if it is another event."""
        if event.type not in self._names or not event.json:
            return None
        try:
            value = json.loads(event.data)
        except (ValueError, RecursionError):
            return None
        return value if isinstance(value, dict) else None

    def _do(self, told: dict[str, Any]) -> None:
        connection = self._connection
        match connection.take().type:
            case "sse-hello":
                self._hello(told)
            case "sse-cursor":
                pass
            case "sse-end":
                connection.end(str(told.get("reason", "finished")))
            case other:
                # Nothing comes behind it; `retry` says when to come back.
                connection.backoff.least = connection.backoff.retry
                connection.lose(other.removeprefix("sse-"))

    def _hello(self, told: dict[str, Any]) -> None:
        self._connection.is_greeted = True
        resumed, heartbeat = told.get("resumed"), told.get("heartbeat")
        self.resumed = resumed if isinstance(resumed, str) else None
        sound = isinstance(heartbeat, float | int) and 0 < heartbeat < float("inf")
        if self._stall == "server" and sound:
            assert heartbeat is not None
            self._connection.watchdog.watch(2 * heartbeat + _MARGIN)

    def _look_at_header(self) -> None:
        """Make an event of the gap that a route without control events tells."""
        connection = self._connection
        self._seen = connection.response
        if not self._names:
            return
        self.resumed = None
        if self._seen is None:
            return
        resumed = self._seen.headers.get("SSE-Resume", "")
        self.resumed = resumed.partition(";")[0].strip() or None
        if resumed.startswith("gap"):
            place = connection.place
            data = json.dumps({"reason": "unknown", "after": place or None})
            connection.ready.appendleft(DecodedEvent(_GAP, data, None, place, True))
