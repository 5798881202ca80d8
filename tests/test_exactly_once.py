"""Each event once and in order, over any number of cuts.

The TCP connection is cut after every byte of the response, at every turn of the loop
on the delivery path, and at random for many seeds; what the client collected over all
its connections is the sequence, and no gap is told where nothing is lost.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from aiohttp_sse_routes import ServerSentEvent, SharedRun, SSERouteTableDef
from aiohttp_sse_routes.decoder import DecodedEvent, Decoder
from aiohttp_sse_routes.http.hub import HUB_KEY
from aiohttp_sse_routes.testing import SettableClock

from .helpers import RawClient, Served, app_of

Serve = Callable[..., Awaitable[Served]]

SEED = int(os.environ.get("SSE_SEED", "0")) or random.SystemRandom().randrange(1 << 32)
SEEDS = int(os.environ.get("SSE_SEEDS", "150"))


class Reconnecting:
    """A client that is cut, and comes back until the stream has ended."""

    def __init__(self, served: Served, path: str) -> None:
        self.served = served
        self.path = path
        self.events: list[str] = []
        self.gaps: list[str] = []
        self.last_event_id = ""
        self.ended = False
        self.connections = 0
        self._decoder = Decoder()

    async def connect(self) -> RawClient:
        """Open a connection, with the last event ID."""
        self.connections += 1
        self._decoder = Decoder(self.last_event_id)
        self._is_live = False
        client = await RawClient.connect(self.served)
        headers = []
        if self.last_event_id:
            headers.append(f"Last-Event-ID: {self.last_event_id}")
        await client.get(self.path, *headers)
        return client

    async def read(self, client: RawClient, limit: int | None = None) -> None:
        """Read *limit* bytes of the connection, or all; take the events in them."""
        body = Dechunker()
        left = 1 << 60 if limit is None else limit
        while left and not self.ended:
            try:
                data = await client.read(min(left, 65536))
            except ConnectionError:
                return
            if not data:
                return
            left -= len(data)
            text = body.feed(data)
            if body.status == 204:
                self.ended = True
            for event in self._decoder.feed(text):
                self._take(event)
            self.last_event_id = self._decoder.last_event_id

    def _take(self, event: DecodedEvent) -> None:
        if event.type == "sse-end":
            self.ended = True
        elif event.type == "sse-gap":
            self.gaps.append(event.data)
        elif not event.type.startswith("sse-"):
            # What is replayed is the beginning of a connection.
            assert not (event.replayed and self._is_live)
            self._is_live = not event.replayed
            self.events.append(event.data)

    async def finish(self) -> None:
        """Come back until the end."""
        while not self.ended:
            assert self.connections < 10_000
            client = await self.connect()
            await self.read(client)
            client.close()


class Dechunker:
    """The body in the bytes of one HTTP response, however they are cut."""

    def __init__(self) -> None:
        self._data = b""
        self.status = 0

    def feed(self, data: bytes) -> bytes:
        """Return what *data* adds to the body."""
        self._data += data
        if not self.status:
            head, mark, rest = self._data.partition(b"\r\n\r\n")
            if not mark:
                return b""
            self.status = int(head.split()[1])
            self._data = rest
        out = b""
        while True:
            size, mark, rest = self._data.partition(b"\r\n")
            if not mark or len(rest) < int(size, 16) + 2:
                # What has come of the next chunk waits for the rest: an event in it
                # that was whole is lost with the connection, and so is replayed.
                return out
            length = int(size, 16)
            out += rest[:length]
            self._data = rest[length + 2 :]


COUNT = 12


def table_of(pause: Callable[[int], bool], size: int = 1) -> SSERouteTableDef:
    """Return a private and a shared route that yield the same sequence."""
    table = SSERouteTableDef()

    async def numbers() -> AsyncIterator[Any]:
        for number in range(COUNT):
            if pause(number):
                await asyncio.sleep(0)
            if number % 3 == 2:
                yield ServerSentEvent(f"{number}" * size, event="third")
            else:
                yield f"{number}" * size

    @table.sse_route("/private")
    async def private(request: web.Request) -> AsyncIterator[Any]:
        async for item in numbers():
            yield item

    @table.sse_route("/shared", shared=True, history=COUNT)
    async def shared(run: SharedRun) -> AsyncIterator[Any]:
        async for item in numbers():
            yield item

    return table


def expected(size: int = 1) -> list[str]:
    """Return the sequence that `table_of` yields."""
    return [f"{number}" * size for number in range(COUNT)]


@pytest.mark.parametrize("path", ["/private", "/shared"])
async def test_cut_after_every_byte(
    serve: Serve, clock: SettableClock, path: str
) -> None:
    """A cut after any byte of the response loses, repeats and reorders nothing."""
    served = await serve(app_of(table_of(lambda n: n % 2 == 0), clock=clock))
    whole = Reconnecting(served, path)
    client = await whole.connect()
    await whole.read(client)
    client.close()
    length = len(client.received)
    assert expected() == whole.events
    for position in range(length):
        cut = Reconnecting(served, path)
        client = await cut.connect()
        await cut.read(client, position)
        if position % 2:
            client.reset()
        else:
            client.close()
        await cut.finish()
        assert expected() == cut.events, f"cut after byte {position}"
        assert not cut.gaps, f"cut after byte {position}"


@pytest.mark.parametrize("path", ["/private", "/shared"])
@pytest.mark.parametrize("side", ["client", "server"])
async def test_cut_at_every_turn_of_the_loop(
    serve: Serve, clock: SettableClock, path: str, side: str
) -> None:
    """A cut at any await of the delivery path loses, repeats and reorders nothing."""
    served = await serve(app_of(table_of(lambda n: True), clock=clock))
    turns = 0
    while True:
        cut = Reconnecting(served, path)
        client = await cut.connect()
        reading = asyncio.create_task(cut.read(client))
        for _ in range(turns):
            await asyncio.sleep(0)
        finished_first = reading.done()
        if side == "server":
            hub = served.app[HUB_KEY]
            hub.cut_all()
            await reading
            client.close()
        else:
            reading.cancel()
            await asyncio.wait({reading})
            client.reset()
        await cut.finish()
        assert expected() == cut.events, f"cut at turn {turns}"
        assert not cut.gaps, f"cut at turn {turns}"
        if finished_first:
            break
        turns += 1
    assert turns > 5


@pytest.mark.parametrize("path", ["/private", "/shared"])
async def test_many_cuts_at_random(
    serve: Serve, clock: SettableClock, path: str
) -> None:
    """Any number of cuts at random places loses, repeats and reorders nothing."""
    print(f"SSE_SEED={SEED}")  # noqa: T201 -- to run it again
    for number in range(SEEDS):
        rng = random.Random(f"{SEED} {number}")
        size = rng.choice([1, 1, 40, 3000])
        pauses = [rng.random() < 0.5 for _ in range(COUNT)]
        table = table_of(pauses.__getitem__, size)
        served = await serve(app_of(table, clock=clock))
        cut = Reconnecting(served, path)
        for _ in range(rng.randrange(1, 12)):
            if cut.ended:
                break
            client = await cut.connect()
            await cut.read(client, rng.randrange(0, 1200 + size * COUNT))
            rng.choice([client.close, client.reset])()
        await cut.finish()
        assert expected(size) == cut.events, f"SSE_SEED={SEED}, number {number}"
        assert not cut.gaps, f"SSE_SEED={SEED}, number {number}"
        await served.close()
