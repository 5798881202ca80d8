"""The state that a new client of channels is sent before what changes it.

Law: the place is taken first, the snapshot is sent without ids, and then the client is
told the place, from which it goes on with nothing between. Until then its id says that
it has a part of the state only: who comes back with that is sent the whole anew.
"""

from __future__ import annotations

__all__ = ("Snapshots", "unready")

from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from ..cursor import Cursor
from ..errors import EventError
from ..logs.entry import Lineage
from ..streams.broker import Broker
from ..streams.ending import Ending
from ..streams.following import Following
from ..streams.producer import Producer
from ..streams.reader import GapReason
from ..wire import Body
from .connection import Connection
from .script import RouteScript
from .visit import log_failure

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
        self.producers: list[Producer] = []
        self._snapshot = snapshot
        self._connection = connection
        self._broker = broker
        self._script = script
        self._encode = encode
        self._keep = keep
        self._name = name
        self._count = 0

    def run(self, following: Following, place: int) -> None:
        """Send a snapshot, then let the connection follow from *place*."""
        connection, lineage = self._connection, self._broker.lineage

        def ended(ending: Ending) -> None:
            connection.on_resume = None
            if connection.closed is None:
                self._ended(ending, lineage, following, place)

        producer = Producer(
            self._snapshot(),
            emit=self._emit,
            has_room=lambda: not connection.blocked,
            can_wait=lambda: False,
            on_end=ended,
            name=f"{self._name} snapshot",
        )
        self.producers.append(producer)
        connection.on_resume = producer.wake
        self._keep(producer)

    def renew(self, reason: GapReason, after: str) -> bool:
        """Tell a gap and send the state anew; see `Connection.on_hole`."""
        connection, broker = self._connection, self._broker
        names = connection.channels
        place = broker.head
        at = unready(broker.cursor(place))
        connection.feed = None
        broker.leave(connection)
        connection.write(self._script.gap_block(reason, after, at))
        self.run(Following(broker, names, place), place)
        return False

    def stop(self) -> None:
        """End what is under way."""
        for producer in self.producers:
            producer.stop()

    def _emit(self, item: Any) -> bool:
        if item is None:
            return True
        body = self._encode(item)
        if body.id is not None:
            raise EventError(
                f"{self._name}: events of a snapshot carry no id, leave out "
                f"id={body.id!r}"
            )
        self._connection.write(body.lines)
        self._count += 1
        return self._connection.blocked or self._count % _BURST == 0

    def _ended(
        self, ending: Ending, then: Lineage, following: Following, place: int
    ) -> None:
        connection, broker = self._connection, self._broker
        if ending.kind != "finished":
            if ending.kind == "failed":
                log_failure(f"{self._name} snapshot", ending)
            block = self._script.failure(ending.ref)
            connection.end("error" if ending.kind == "failed" else "reconnect", block)
            return
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
