"""What a stream says beside its events: the control events of one route.

Law: everything here is the contract's wire format, in one place. A route without
control events gets comments, ``retry`` and silence only.
"""

from __future__ import annotations

__all__ = (
    "RETRY_LATER",
    "EndReason",
    "Refusal",
    "Resumed",
    "RouteScript",
    "busy",
    "refuses",
    "spread",
)

import random
from typing import Final, Literal

from aiohttp import web

from ..cursor import has_our_format
from ..streams.ending import Ending
from ..streams.reader import GapReason
from ..wire import COMMENT, control, retry_line
from .connection import Connection, Script
from .link import CloseReason
from .tally import Tally

RETRY_LATER: Final = 30_000
"""Milliseconds after which a client may try again what has failed, or was refused."""

Resumed = Literal["fresh", "continued", "gap"]
EndReason = Literal["finished", "replaced", "disconnected", "gone"]


def spread(value: float, share: float = 0.25) -> float:
    """Return *value* moved by at most *share* of it, at random.

    So that a fleet of clients that lost their connections together does not come back
    together.
    """
    return value * random.uniform(1 - share, 1 + share)  # noqa: S311 -- not a secret


Refusal = Literal["limit", "shutdown", "store"]
"""Why a client is refused softly: it is one too many, or nothing can be had now."""


def busy(reason: Refusal, *, control_events: bool) -> bytes:
    """Return the whole body of a soft refusal, which a browser survives."""
    retry = retry_line(spread(RETRY_LATER))
    if not control_events:
        return retry + b"\n"
    return retry + control("sse-busy", {"reason": reason})


class RouteScript(Script):
    """The control events of one route: what is told to one connection is that one's.

    Args:
        retry: The client's reconnection time, in ms, before it is spread.
        heartbeat: Seconds between heartbeats, as the client is told.
        control_events: Whether any are sent.
        disconnect_slow: Whether a client that was overtaken is sent away.
        tally: Where what is told is counted.
    """

    def __init__(
        self,
        *,
        retry: int,
        heartbeat: float,
        control_events: bool,
        disconnect_slow: bool = False,
        tally: Tally | None = None,
    ) -> None:
        self.tally = tally if tally is not None else Tally()
        self._retry = retry
        self._heartbeat = heartbeat
        self._control_events = control_events
        self._disconnect_slow = disconnect_slow

    def hello(self, place: str, resumed: Resumed) -> bytes:
        """Return the first block of a stream."""
        retry = retry_line(spread(self._retry))
        if not self._control_events:
            return retry + b"\n"
        data = {"heartbeat": self._heartbeat, "resumed": resumed}
        return retry + control("sse-hello", data, id=place)

    def gap_block(self, reason: GapReason, after: str | None, place: str) -> bytes:
        """Return the block that tells a gap, if any is told; the headers else do."""
        self.tally.gaps[reason] += 1
        if not self._control_events:
            return b""
        known = after if after is not None and has_our_format(after) else None
        return control("sse-gap", {"reason": reason, "after": known}, id=place)

    def end_block(self, reason: EndReason, place: str) -> bytes:
        """Return the block that ends a stream for good."""
        if not self._control_events:
            return b""
        return control("sse-end", {"reason": reason}, id=f"{place}.end")

    # -- in the course of a stream ---------------------------------------------------

    def gap(
        self, connection: Connection, reason: GapReason, after: str, place: str
    ) -> bytes | None:
        """See `Script.gap`."""
        slow = reason == "slow"
        if not self._control_events or (self._disconnect_slow and slow):
            self.tally.disconnected += slow
            return None
        connection.said = place
        return self.gap_block(reason, after, place)

    def ending(
        self, connection: Connection, ending: Ending
    ) -> tuple[CloseReason, bytes]:
        """See `Script.ending`."""
        feed = connection.feed
        assert feed is not None
        place = feed.cursor(feed.delivered)
        if ending.kind == "finished":
            return "finished", self.end_block("finished", place)
        if ending.kind == "reconnect":
            return "reconnect", retry_line(ending.after * 1000) + b"\n"
        if ending.kind == "stopped":
            return "disconnected", self.end_block("disconnected", place)
        block = self.failure(ending.ref)
        refused = ending.refused or (refuses(ending) and feed.silent)
        if self._control_events and refused:
            block += self.end_block("disconnected", place)
        return "error", block

    def replaced(self, connection: Connection) -> bytes:
        """See `Script.replaced`."""
        feed = connection.feed
        if feed is None:
            return b""
        return self.end_block("replaced", feed.cursor(feed.place_of(connection)))

    def farewell(self, connection: Connection) -> bytes:
        """See `Script.farewell`."""
        return retry_line(spread(self._retry)) + b"\n"

    def heartbeat(self, connection: Connection) -> bytes:
        """See `Script.heartbeat`: the place, where it has moved without an event."""
        feed = connection.feed
        if feed is None or not self._control_events:
            return COMMENT
        place = feed.place_of(connection)
        if place <= max(feed.told(connection), connection.announced):
            return COMMENT
        connection.announced = place
        return self.place_block(feed.cursor(place))

    def place_block(self, place: str) -> bytes:
        """Return the block that moves the client's place without an event."""
        return control("sse-cursor", {}, id=place) if self._control_events else COMMENT

    def part(self, connection: Connection) -> bytes:
        """Return the ``id`` line of an event of a snapshot: what was said before it."""
        if not self._control_events:
            # Nothing would tell the client that it has the whole by now.
            return b""
        return b"id: %b\n" % connection.said.encode()

    def disconnected(self, connection: Connection) -> bytes:
        """See `Script.disconnected`."""
        feed = connection.feed
        if feed is not None:
            place = feed.cursor(feed.place_of(connection))
        elif connection.said:
            # It is being sent a snapshot, behind a hello or a gap.
            place = connection.said
        else:
            return retry_line(RETRY_LATER) + b"\n"
        return self.end_block("disconnected", place)

    def failure(self, ref: str) -> bytes:
        """Return the last block of a connection whose events cannot be had now."""
        block = retry_line(RETRY_LATER)
        if not self._control_events:
            return block + b"\n"
        return block + control("sse-error", {"ref": ref})


def refuses(ending: Ending) -> bool:
    """Return whether a run ended with a 4xx: coming back would not help."""
    error = ending.error
    return isinstance(error, web.HTTPException) and 400 <= error.status < 500
