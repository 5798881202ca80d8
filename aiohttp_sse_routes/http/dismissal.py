"""Ending others' connections: a user that was revoked, a room that was closed.

Law: those here are ended at once; those of other workers by an entry of the log that
all workers follow, in a channel that no user can name. What is asked for is data: no
worker runs anything of another's.
"""

from __future__ import annotations

__all__ = ("CHANNEL", "Dismissal", "Dismissals", "Run", "owner_text")

import logging
from collections.abc import Callable, Iterable
from secrets import token_hex
from typing import Any, Final, Protocol

import msgspec

from ..errors import EventError
from ..logs.entry import Bounds, Draft, Entry
from ..logs.store import Store
from ..serialize import to_json
from .connection import Connection

_logger = logging.getLogger("aiohttp_sse_routes")

CHANNEL: Final = "\x01sse:dismissals"


class Dismissal(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whom to end; all that is given must hold.

    Attributes:
        owner: What the route's ``owner`` returned, as JSON.
        channel: A channel that the connection follows.
        route: The route's name, else its handler's.
        reconnect: Whether they may come back.
        by: The worker that asked.
    """

    owner: str | None = None
    channel: str | None = None
    route: str | None = None
    reconnect: bool = False
    by: str = ""

    def means(self, route: str, owner: str | None, channels: Iterable[str]) -> bool:
        """Return whether a connection of that kind is meant."""
        return (
            (self.route is None or self.route == route)
            and (self.owner is None or self.owner == owner)
            and (self.channel is None or self.channel in channels)
        )


class Run(Protocol):
    """What a run that waits for its client is known by."""

    route: str
    owner: str | None


class Dismissals:
    """The dismissals of one application, on all its workers.

    Args:
        store: What the workers share.
        connections: Returns those that are open.
        dismiss: Ends one.
        forget: Ends the runs that wait for their clients, of those that are meant.
    """

    def __init__(
        self,
        store: Store,
        connections: Callable[[], Iterable[Connection]],
        dismiss: Callable[[Connection, bool], None],
        forget: Callable[[Dismissal], None],
    ) -> None:
        self._store = store
        self._connections = connections
        self._dismiss = dismiss
        self._forget = forget
        self._id = token_hex(8)

    async def send(self, dismissal: Dismissal) -> None:
        """Do what *dismissal* says here, then everywhere.

        Raises:
            StoreUnavailable: it was done here, and could not be told to the others.
        """
        self._apply(dismissal)
        if self._store.shared:
            dismissal = msgspec.structs.replace(dismissal, by=self._id)
            draft = Draft(msgspec.json.encode(dismissal))
            await self._store.append(CHANNEL, [draft], bounds=Bounds(max_events=100))

    def receive(self, entry: Entry) -> None:
        """Do what another worker says."""
        try:
            dismissal = msgspec.json.decode(entry.lines, type=Dismissal)
        except msgspec.DecodeError as exc:
            # Of a newer version of this package, in a rolling deploy.
            _logger.warning("a dismissal of another worker is not understood: %s", exc)
            return
        if dismissal.by != self._id:
            self._apply(dismissal)

    def _apply(self, dismissal: Dismissal) -> None:
        for connection in tuple(self._connections()):
            if dismissal.means(connection.route, connection.owner, connection.channels):
                self._dismiss(connection, dismissal.reconnect)
        if not dismissal.reconnect and dismissal.channel is None:
            self._forget(dismissal)


def owner_text(owner: Any) -> str | None:
    """Return an owner as text that is the same on each worker; None if it has none."""
    if owner is None:
        return None
    try:
        return to_json(owner).decode()
    except EventError:
        return None
