"""Applications and readers of channels, as the tests of channels share them.

Law: what is published is known here as a list, and what a reader was given is held
against it: each event once, in order, or a gap that says so and is one.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from aiohttp import web

from aiohttp_sse_routes import Channels, SSERouteTableDef
from aiohttp_sse_routes.cursor import parse
from aiohttp_sse_routes.streams.broker import Broker
from aiohttp_sse_routes.streams.ending import Ending
from aiohttp_sse_routes.streams.reader import GapReason, Reader
from aiohttp_sse_routes.wire import unframe

from .helpers import Served
from .lifecycle import hub_of
from .rawhttp import blocks_of

SEED = int(os.environ.get("SSE_SEED", "0")) or random.SystemRandom().randrange(1 << 32)


class Published(NamedTuple):
    """An event that was published.

    Attributes:
        seq: Its number.
        channel: Where to.
        data: What.
        key: Its key; None for none.
    """

    seq: int
    channel: str
    data: str
    key: str | None = None


class Gap(NamedTuple):
    """A gap that a reader was told.

    Attributes:
        reason: Why.
        after: The number it says it begins behind; None if it does not say.
        place: The number it says the reader goes on from.
    """

    reason: str
    after: int | None
    place: int


class Sink(Reader):
    """A reader that keeps what it is written, and pauses as it is told.

    Args:
        room: Writes after which it is paused; None for never.
    """

    def __init__(self, room: int | None = None) -> None:
        super().__init__()
        self.room = room
        self.chunks: list[bytes] = []
        self.story: list[tuple[int, str] | Gap] = []
        self.ends: list[Ending] = []
        self.nbytes = 0
        self.last_id = ""
        self.send: Callable[[bytes], object] = self.take

    def take(self, chunk: bytes) -> None:
        """Keep *chunk*."""
        self.nbytes += len(chunk)
        self.chunks.append(unframe(chunk))
        for block in blocks_of(self.chunks[-1]):
            self.story.append((seq_of(block["id"]), block["data"].rstrip("x")))
            self.last_id = block["id"]
        if self.room is not None:
            self.room -= 1
            if self.room <= 0:
                self.paused()

    def on_gap(self, reason: GapReason, after: str, place: str) -> bool:
        self.story.append(Gap(reason, seq_of(after), seq_of(place)))
        self.last_id = place
        return True

    def on_ending(self, ending: Ending) -> None:
        self.ends.append(ending)

    @property
    def data(self) -> list[str]:
        """The data of the events it was given."""
        return [item[1] for item in self.story if not isinstance(item, Gap)]

    @property
    def gaps(self) -> list[Gap]:
        """The gaps it was told."""
        return [item for item in self.story if isinstance(item, Gap)]


def table_of_rooms(path: str = "/rooms/{names}", **options: Any) -> SSERouteTableDef:
    """Return a route that follows the channels its path names, joined by ``+``."""
    table = SSERouteTableDef()

    @table.sse_route(path, **{"name": "rooms", **options})
    async def rooms(request: web.Request) -> Channels:
        names = request.match_info["names"].split("+")
        return Channels(*names, history=int(request.query.get("history", 0)))

    return table


def broker_of(served: Served) -> Broker:
    """Return the broker of *served*."""
    return hub_of(served).broker


def seq_of(cursor: str | None) -> int:
    """Return the number of a place."""
    place = parse(cursor)
    assert place is not None, cursor
    return place.seq


def check_story(
    story: Sequence[Published | Gap],
    log: Sequence[Published],
    channels: Sequence[str],
    start: int,
    through: int,
    *,
    conflated: bool = False,
) -> None:
    """Check what a reader was given, from *start* on, against all that there was.

    Args:
        story: Events and gaps, in the order in which they came.
        log: All that was published, in order.
        channels: What the reader followed.
        start: The number behind which it began.
        through: The number through which it has come.
        conflated: Whether an event may stand for older ones of its key.
    """
    wanted = {e.seq: e for e in log if e.channel in channels and e.seq > start}
    place = start
    given: set[int] = set()
    for item in story:
        if isinstance(item, Gap):
            assert item.place >= place, f"{item} at {place}"
            missing = _missing(wanted, given, item.after or 0, item.place)
            assert missing, f"{item} is none"
            for event in missing:
                given.add(event.seq)
            place = item.place
        else:
            assert item.seq > place, f"{item} at {place}"
            assert wanted.get(item.seq) == item, f"{item} was never published"
            given.add(item.seq)
            place = item.seq
    missing = _missing(wanted, given, start, through)
    if conflated:
        newest = {(e.channel, e.key): e.seq for e in log if e.seq in given}
        missing = [
            e
            for e in missing
            if e.key is None or newest.get((e.channel, e.key), 0) < e.seq
        ]
    assert not missing, f"lost without a word: {missing[:5]} of {len(missing)}"


def _missing(
    wanted: Mapping[int, Published], given: set[int], after: int, through: int
) -> list[Published]:
    return [
        event
        for seq, event in wanted.items()
        if after < seq <= through and seq not in given
    ]
