"""The state that a new client of channels is sent before what changes it.

Law: the place is taken first, the snapshot is sent, and then the client is told the
place, from which it goes on with nothing between. Until then its id, which each event
of the snapshot repeats, says that it has a part of the state only: who comes back with
that is sent the whole anew.
"""

from __future__ import annotations

__all__ = ("Snapshots", "unready")

import contextvars
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from ..cursor import Cursor
from ..errors import ConfigurationError, EventError
from ..logs.entry import Lineage
from ..streams.broker import Broker
from ..streams.ending import Ending
from ..streams.following import Following
from ..streams.producer import Producer
from ..streams.reader import GapReason
from ..wire import Body, retry_line
from .answers import log_failure
from .connection import Connection
from .script import RouteScript

_BURST: Final = 64
"""Events of a snapshot after which the loop gets a turn."""


class Snapshots:
    """The snapshots of one connection, one after another.

    Args:
        snapshot: The handler's.
        connection: Where to.
        broker: Whose channels.
        script: What to say beside.
        encode: Makes the body of what is yielded.
        keep: Told of each producer that is started.
        name: The handler's.

    Attributes:
        producer: What runs the present one, or has run the last.
    """

    def __init__(
        self,
        snapshot: Callable[[], AsyncIterator[Any]],
        connection: Connection,
        *,
        broker: Broker,
        script: RouteScript,
        encode: Callable[[Any], Body],
        keep: Callable[[Producer], None],
        name: str,
    ) -> None:
        self.producer: Producer | None = None
        self._snapshot = snapshot
        self._connection = connection
        self._broker = broker
        self._script = script
        self._encode = encode
        self._keep = keep
        self._name = name
        self._count = 0
        # A later one begins where a gap is found, which may be on another's way.
        self._context = contextvars.copy_context()

    def run(self, following: Following, place: int) -> None:
        """Send a snapshot, then let the connection follow from *place*."""
        connection, lineage = self._connection, self._broker.lineage
        context = self._context.copy()

        def ended(ending: Ending) -> None:
            connection.on_resume = None
            if connection.closed is None:
                self._ended(ending, lineage, following, place)

        try:
            iterator = context.run(self._begun)
        except Exception as exc:  # noqa: BLE001 -- the handler's, as one in its course
            ended(Ending("failed", exc))
            return
        producer = self.producer = Producer(
            iterator,
            emit=self._emit,
            has_room=lambda: not connection.blocked,
            can_wait=lambda: False,
            on_end=ended,
            name=f"{self._name} snapshot",
            context=context,
        )
        connection.on_resume = producer.wake
        self._keep(producer)

    def _begun(self) -> AsyncIterator[Any]:
        states: Any = self._snapshot()
        begin = getattr(states, "__aiter__", None)
        if begin is None:
            raise ConfigurationError(
                f"{self._name}: Channels(snapshot=...) returned "
                f"{type(states).__name__}: it must be an async generator function"
            )
        iterator: AsyncIterator[Any] = begin()
        return iterator

    def renew(self, reason: GapReason, after: str) -> bool:
        """Tell a gap and send the state anew; see `Connection.on_hole`."""
        connection, broker = self._connection, self._broker
        place = broker.head
        at = unready(broker.cursor(place))
        block = self._script.gap(connection, reason, after, at)
        if block is None:
            connection.end("gap", connection.farewell())
            return False
        broker.leave(connection)
        connection.past = 0
        connection.write(block)
        self.run(Following(broker, connection.channels, place), place)
        return False

    def stop(self) -> None:
        """End what is under way."""
        if self.producer is not None:
            self.producer.stop()

    def _emit(self, item: Any) -> bool:
        if item is None:
            return True
        body = self._encode(item)
        if body.id is not None:
            raise EventError(
                f"{self._name}: events of a snapshot get their ids here, leave out "
                f"id={body.id!r}"
            )
        part = self._script.part(self._connection) if body.carries_id else b""
        self._connection.write(part + body.lines)
        self._connection.events += 1
        self._count += 1
        return self._connection.blocked or self._count % _BURST == 0

    def _ended(
        self, ending: Ending, then: Lineage, following: Following, place: int
    ) -> None:
        connection = self._connection
        if ending.kind == "finished":
            self._go_on(then, following, place)
        elif ending.kind == "failed":
            log_failure(f"{self._name} snapshot", ending)
            connection.end("error", self._script.failure(ending.ref))
        elif ending.kind == "reconnect":
            connection.end("reconnect", retry_line(ending.after * 1000) + b"\n")
        else:
            connection.end("disconnected", connection.farewell())

    def _go_on(self, then: Lineage, following: Following, place: int) -> None:
        connection, broker = self._connection, self._broker
        now = broker.lineage
        if now is not then and now.place(Cursor("l", then.generation, place)) is None:
            self.renew("reset", unready(then.cursor(place)))
            return
        connection.write(self._script.place_block(broker.cursor(place)))
        connection.announced = place
        broker.join(connection, following, place)


def unready(place: str) -> str:
    """Return the id of *place* for a client that has a part of a snapshot."""
    return place.replace(".l.", ".s.", 1)
