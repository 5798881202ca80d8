"""Where a reader of channels begins: at what it brought, or as one that is new.

Law: a cursor is a place and authorises nothing; only the channels that are asked for
are looked at. What cannot be a place in this log is told as a gap, never an error.
"""

from __future__ import annotations

__all__ = ("Start", "begin")

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final, Literal, NamedTuple

from ..cursor import Cursor
from ..errors import StoreError, StoreUnavailable
from ..logs.entry import Lineage
from .broker import Broker
from .fetches import Fetched
from .following import Following, Keeping
from .reader import GapReason

_PATIENCE: Final = 5.0
"""Seconds that a worker waits to come as far as the one that a client was at."""


class Start(NamedTuple):
    """Where a reader begins.

    Attributes:
        place: The place.
        gap: Why something is missing before it; None if nothing is.
        following: What it follows.
        resumed: What it is told.
        lineage: The log's generations at that moment.
        missed: What is gone behind a place that is known, by channel.
        head: The number of the newest entry when it was looked for.
    """

    place: int
    gap: GapReason | None
    following: Following
    resumed: Literal["fresh", "continued", "gap"]
    lineage: Lineage
    missed: Mapping[str, int]
    head: int = 0

    def anew(self, broker: Broker) -> Start:
        """Return the same for a reader that goes on from now."""
        following, place = self.following, broker.head
        return self._replace(
            place=place,
            following=Following(
                broker, following.names, place, keeping=following.keeping
            ),
        )


async def begin(
    broker: Broker,
    names: Sequence[str],
    *,
    brought: bool,
    cursor: Cursor | None,
    history: int = 0,
    keeping: Keeping = "gap",
) -> Start:
    """Return where a reader of *names* begins.

    Args:
        broker: Whose log.
        names: The channels.
        brought: Whether it comes from anywhere.
        cursor: The place that it brought, if it is one.
        history: How many past events one that is new gets.
        keeping: What it is given of what it was too slow for.

    Raises:
        StoreUnavailable: the log was not reached yet, or this worker is behind the one
            that the reader comes from, and cannot follow.
    """
    if not broker.ready:
        raise StoreUnavailable("the store was not reached yet: try again later")
    broker.store.refresh()
    while True:
        lineage, head = broker.lineage, broker.head
        found = await _place(broker, names, cursor) if brought else None
        if isinstance(found, int):
            assert cursor is not None
            start = await _continued(broker, names, found, cursor, keeping)
        else:
            start = await _from_now(broker, names, found, history, keeping)
        if broker.lineage is lineage:
            return start._replace(head=head)
        # The log has become another one while the store was asked.


async def _from_now(
    broker: Broker,
    names: Sequence[str],
    gap: GapReason | None,
    history: int,
    keeping: Keeping,
) -> Start:
    """Return where a reader begins to whom no place means anything."""
    place, forgiven, page = await _new(broker, names, history)
    following = Following(
        broker, names, place, forgiven=forgiven, keeping=keeping, page=page
    )
    told: Literal["gap", "fresh"] = "gap" if gap else "fresh"
    return Start(place, gap, following, told, broker.lineage, {})


async def _place(
    broker: Broker, names: Sequence[str], cursor: Cursor | None
) -> int | GapReason:
    """Return the number that *cursor* means, or why it means none."""
    lineage = broker.lineage
    if cursor is None or cursor.kind not in ("l", "h"):
        return "unknown"
    place = lineage.place(cursor)
    if place is None:
        await _ask_for_newer(broker)
        return "reset"
    if cursor.log != lineage.generation and any(
        lineage.lost.get(name, 0) > place for name in names
    ):
        return "reset"
    if place > broker.head and not await _comes(broker, place):
        return "unknown"
    return place


async def _ask_for_newer(broker: Broker) -> None:
    """Let the store notice that the log has begun anew, as another worker knows."""
    if broker.store.complete:
        return
    try:
        await broker.store.head()
    except StoreError as exc:
        raise StoreUnavailable("where the client was cannot be found now") from exc


async def _comes(broker: Broker, place: int) -> bool:
    """Wait until the log here has come to *place*; False if it is in no log."""
    if broker.store.complete:
        return False
    try:
        if place > await broker.store.head():
            return False
        async with asyncio.timeout(_PATIENCE):
            await broker.reached(place)
    except (StoreError, TimeoutError) as exc:
        raise StoreUnavailable(
            "the client was further than this worker, which cannot follow now"
        ) from exc
    return True


async def _continued(
    broker: Broker, names: Sequence[str], place: int, cursor: Cursor, keeping: Keeping
) -> Start:
    following = Following(
        broker, names, place, reason="expired", keeping=keeping, brought=str(cursor)
    )
    if cursor.kind == "h":
        following.in_hole(place)
    missed = following.missed(broker.floors(names), place)
    if missed and keeping == "conflate" and broker.conflates(following, place):
        missed = {}
    if missed and not broker.store.complete:
        page = await _page(broker, names, place)
        missed = {}
        if page is not None:
            following.page = page
            missed = following.missed(page.page.floors, place)
    lineage = broker.lineage
    if missed or cursor.kind == "h":
        return Start(place, "expired", following, "gap", lineage, missed)
    return Start(place, None, following, "continued", lineage, missed)


async def _new(
    broker: Broker, names: Sequence[str], history: int
) -> tuple[int, Mapping[str, int], Fetched | None]:
    """Return where one that is new begins, what it does not miss, and a first page."""
    head = broker.head
    if history == 0:
        return head, {}, None
    place, floors = broker.newest(names, history), broker.floors(names)
    # Where there are more than are asked for, none that is older is one of them.
    enough = broker.newest(names, history + 1) < place
    oldest = max(floors.values())
    if broker.store.complete or oldest == 0 or (enough and oldest <= place):
        return place, floors, None
    try:
        place = await broker.store.newest(names, history, head)
        page = await broker.fetches.read(names, place, head)
    except StoreError:
        # What is here is better than nothing, and it is not a gap: nobody was there.
        return broker.newest(names, history), broker.floors(names), None
    return place, page.page.floors, page


async def _page(broker: Broker, names: Sequence[str], place: int) -> Fetched | None:
    try:
        return await broker.fetches.read(names, place, broker.delivered)
    except StoreError:
        # It will be read when the store is back; what is lost is told then.
        return None
