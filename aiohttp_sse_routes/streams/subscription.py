"""A subscription: a handler's own way to follow channels, as an async iterator.

Law: a reader like a connection: a place in the log and a bounded number of events that
wait to be taken. A hole raises `ReplayGap` where it is, and iterating again goes on
behind it.
"""

from __future__ import annotations

__all__ = ("Subscription",)

import asyncio
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

import msgspec

from ..cursor import parse
from ..decoder import DecodedEvent, Decoder
from ..errors import ReplayGap
from ..event import ServerSentEvent
from ..logs.entry import Lineage
from ..wire import unframe
from .broker import Broker
from .ending import Ending
from .following import Following
from .reader import GapReason, Reader
from .resumption import begin

_NO_LIMIT: Final = 1 << 62

_loads = msgspec.json.Decoder().decode


class Subscription(Reader):
    """An async iterator of `ServerSentEvent` with their cursors as ids.

    Args:
        broker: Whose channels.
        names: Their names.
        after: The cursor to begin behind; None for now.
    """

    def __init__(self, broker: Broker, names: Sequence[str], after: str | None) -> None:
        super().__init__()
        self._broker = broker
        self._names = names
        if after is not None and not isinstance(after, str):
            raise TypeError(f"subscribe(after={after!r}) must be a cursor, a str")
        self._after = after or None
        self._asked = False
        self._lineage: Lineage | None = None
        self._following: Following | None = None
        if self._after is None and broker.ready:
            self._follow(Following(broker, names, broker.head), broker.head)
        self._closed = False
        self._items: deque[ServerSentEvent | ReplayGap] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._decoder = Decoder(max_event_bytes=_NO_LIMIT)
        self.send = self._take

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ServerSentEvent:
        """Return the next event.

        Raises:
            ReplayGap: events are lost here; the next call goes on behind the hole.
            StopAsyncIteration: the subscription was closed, or the application ends.
            RuntimeError: another task waits for it already.
        """
        if self._asked:
            raise RuntimeError(
                "another task iterates this subscription: call subscribe() for each"
            )
        self._asked = True
        try:
            while not self._items and not self._closed:
                await self._more()
        finally:
            self._asked = False
        if not self._items:
            raise StopAsyncIteration
        item = self._items.popleft()
        if isinstance(item, ReplayGap):
            raise item
        return item

    async def _more(self) -> None:
        """Follow until something has come; who only holds this holds no reader."""
        broker, following = self._broker, self._following
        await broker.known()
        if broker.ended:
            self.close()
            return
        if following is None or self._lineage is not broker.lineage:
            following = await self._find(following)
            if self._items or self._closed or broker.ended:
                return
        self.blocked = False
        self._waiter = asyncio.get_running_loop().create_future()
        broker.join(self, following, self.place)
        try:
            if not self._items:
                await self._waiter
        finally:
            self._waiter = None
            if self.feed is not None:
                self.feed.leave(self)
            # Attached, it was taken along; from now on the log may change without it.
            self._follow(following, self.place)

    async def _find(self, before: Following | None) -> Following:
        """Find the place to begin at; a gap before it is the next item."""
        if before is not None and before.due is not None:
            # It was found in the log as it was before.
            reason, lost_after = before.due
            before.due = None
            self._put(ReplayGap(reason, lost_after, self._broker.cursor(self.place)))
        after = self._after
        start = await begin(
            self._broker, self._names, brought=after is not None, cursor=parse(after)
        )
        self._follow(start.following, start.place)
        if start.gap in ("unknown", "reset"):
            self._put(ReplayGap(start.gap, after, self._broker.cursor(start.place)))
        return start.following

    def _follow(self, following: Following, place: int) -> None:
        self._following, self.place = following, place
        self._lineage = self._broker.lineage
        self._after = self._broker.cursor(place)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        way: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the subscription: what waits is dropped, an iteration stops."""
        self.close()

    def close(self) -> None:
        """See `aclose`."""
        self._closed = True
        self._items.clear()
        self._wake()

    # -- as a reader -----------------------------------------------------------------

    def on_gap(self, reason: GapReason, after: str, place: str) -> bool:
        """See `Reader.on_gap`."""
        self._put(ReplayGap(reason, after, place))
        return True

    def on_ending(self, ending: Ending) -> None:
        """See `Reader.on_ending`: channels have no end, but the application has."""
        self.close()

    def _take(self, chunk: bytes) -> None:
        for event in self._decoder.feed(unframe(chunk)):
            self._put(_event_of(event))
        # Enough to be going on with: a reader is a place, and need not hold more.
        self.paused()

    def _put(self, item: ServerSentEvent | ReplayGap) -> None:
        self._items.append(item)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _event_of(event: DecodedEvent) -> ServerSentEvent:
    data = _loads(event.data) if event.json else event.data
    name = None if event.type == "message" else event.type
    return ServerSentEvent.at(event.last_event_id, ServerSentEvent(data, event=name))
