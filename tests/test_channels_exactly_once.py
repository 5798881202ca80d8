"""Exactly once: channels over cuts at any place, and joins while others publish.

What is published is known by the cursors that publishing returned; what a client was
given over all its connections is held against that.
"""

from __future__ import annotations

import asyncio
import json
import random
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from aiohttp_sse_routes import SSE
from aiohttp_sse_routes.decoder import DecodedEvent, Decoder
from aiohttp_sse_routes.testing import SettableClock

from .helpers import RawClient, Served, app_of, until
from .lifecycle import hub_of
from .rooms import SEED, Gap, Published, broker_of, check_story, seq_of, table_of_rooms
from .stores import Make
from .test_exactly_once import Dechunker

Serve = Callable[..., Awaitable[Served]]

COUNT = 12


class Client:
    """A client that is cut and comes back, and keeps what it was given.

    Attributes:
        story: The numbers and the data of events, and the gaps, in order.
        hellos: What each hello said.
        start: The place of the first.
    """

    def __init__(self, served: Served, path: str) -> None:
        self.served = served
        self.path = path
        self.story: list[tuple[int, str] | Gap] = []
        self.hellos: list[str] = []
        self.start = 0
        self.last_event_id = ""
        self.connections = 0
        self.raw: RawClient | None = None

    @property
    def events(self) -> list[str]:
        """The data of all events."""
        return [item[1] for item in self.story if not isinstance(item, Gap)]

    @property
    def gaps(self) -> list[Gap]:
        """The gaps it was told."""
        return [item for item in self.story if isinstance(item, Gap)]

    async def connect(self, **options: Any) -> None:
        """Open a connection, with the last event ID."""
        self.connections += 1
        self._hellos_before = len(self.hellos)
        self._body = Dechunker()
        self._decoder = Decoder(self.last_event_id)
        self._is_live = False
        self.raw = await RawClient.connect(self.served, **options)
        headers = []
        if self.last_event_id:
            headers.append(f"Last-Event-ID: {self.last_event_id}")
        await self.raw.get(self.path, *headers)

    async def read(self, limit: int = 65536) -> bool:
        """Take at most *limit* bytes; return whether there were any."""
        assert self.raw is not None
        try:
            data = await self.raw.read(limit)
        except ConnectionError:
            return False
        for event in self._decoder.feed(self._body.feed(data)):
            self._take(event)
        self.last_event_id = self._decoder.last_event_id
        return bool(data)

    def _take(self, event: DecodedEvent) -> None:
        if event.type == "sse-hello":
            if not self.hellos:
                self.start = seq_of(event.id)
            self.hellos.append(json.loads(event.data)["resumed"])
        elif event.type == "sse-gap":
            data = json.loads(event.data)
            after = seq_of(data["after"]) if data["after"] else None
            self.story.append(Gap(data["reason"], after, seq_of(event.id)))
        elif not event.type.startswith("sse-"):
            # What is replayed is the beginning of a connection.
            assert not (event.replayed and self._is_live)
            self._is_live = not event.replayed
            self.story.append((seq_of(event.id), event.data))

    async def greeted(self) -> None:
        """Read, byte by byte, until the hello of this connection has come."""
        while len(self.hellos) == self._hellos_before:
            assert await self.read(1)

    async def read_bytes(self, count: int) -> None:
        """Read *count* bytes, or until the connection ends."""
        assert self.raw is not None
        until_then = len(self.raw.received) + count
        while left := until_then - len(self.raw.received):
            if not await self.read(left):
                return

    def cut(self, *, reset: bool = False) -> None:
        """Leave, by FIN or by RST."""
        assert self.raw is not None
        (self.raw.reset if reset else self.raw.close)()

    async def finish(self, count: int) -> None:
        """Come back until there are *count* events."""
        while len(self.events) < count:
            assert self.connections < 1000
            await self.connect()
            while len(self.events) < count and await self.read():
                pass
            self.cut()


async def publish_all(sse: SSE, names: str, turns: Callable[[int], int]) -> None:
    """Publish numbers to *names*, one after another, with turns of the loop between."""
    channels = names.split("+")
    for number in range(COUNT):
        for _ in range(turns(number)):
            await asyncio.sleep(0)
        channel = channels[number % len(channels)]
        if number % 4 == 3:
            await sse.publish_many(channel, [f"{number}", f"{number}+"])
        else:
            await sse.publish(channel, f"{number}")


EXPECTED = [
    text
    for number in range(COUNT)
    for text in ([f"{number}", f"{number}+"] if number % 4 == 3 else [f"{number}"])
]
"""What `publish_all` publishes."""


@pytest.mark.timeout(60)
async def test_replay_cut_after_every_byte(serve: Serve, clock: SettableClock) -> None:
    """A cut after any byte of a replay loses, repeats and reorders nothing."""
    served = await serve(app_of(table_of_rooms(), clock=clock))
    await publish_all(served.sse, "a+b+c", lambda n: 0)
    path = "/rooms/a+b+c?history=99"
    whole = Client(served, path)
    await whole.connect()
    while len(whole.events) < len(EXPECTED):
        await whole.read()
    whole.cut()
    assert whole.raw is not None
    for position in range(len(whole.raw.received)):
        client = Client(served, path)
        await client.connect()
        await client.read_bytes(position)
        client.cut(reset=position % 2 == 0)
        await client.finish(len(EXPECTED))
        assert EXPECTED == client.events, f"cut after byte {position}"
        assert not client.gaps, f"cut after byte {position}"


@pytest.mark.timeout(60)
async def test_live_cut_after_every_byte(serve: Serve, clock: SettableClock) -> None:
    """So does a cut after any byte of what comes as it is published."""
    served = await serve(app_of(table_of_rooms(), clock=clock))
    position, length = 0, 1
    while position < length:
        names = f"a{position}+b{position}+c{position}"
        client = Client(served, f"/rooms/{names}")
        await client.connect()
        await client.greeted()
        assert client.raw is not None
        before = len(client.raw.received)
        publishing = asyncio.create_task(
            publish_all(served.sse, names, lambda n: n % 2)
        )
        await client.read_bytes(position)
        client.cut(reset=position % 2 == 0)
        await publishing
        await client.finish(len(EXPECTED))
        assert EXPECTED == client.events, f"cut after byte {position}"
        assert not client.gaps, f"cut after byte {position}"
        length = max(length, len(client.raw.received) - before)
        position += 3 if position > 200 else 1
    assert position > 200


@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.timeout(60)
async def test_cut_at_every_turn_of_the_loop(
    serve: Serve, clock: SettableClock, side: str
) -> None:
    """A cut at any await of opening and delivery loses and repeats nothing."""
    served = await serve(app_of(table_of_rooms(), clock=clock))
    turns = 0
    while True:
        names = f"a{turns}+b{turns}"
        client = Client(served, f"/rooms/{names}?history=99")
        await client.connect()

        async def all_of_it(client: Client = client) -> None:
            while len(client.events) < len(EXPECTED) and await client.read():
                pass

        reading = asyncio.create_task(all_of_it())
        publishing = asyncio.create_task(
            publish_all(served.sse, names, lambda n: n % 4)
        )
        for _ in range(turns):
            await asyncio.sleep(0)
        finished_first = reading.done()
        if side == "server":
            hub_of(served).cut_all()
            client.cut()
            reading.cancel()
        else:
            reading.cancel()
            client.cut(reset=turns % 2 == 0)
        await asyncio.wait({reading, publishing})
        await client.finish(len(EXPECTED))
        assert EXPECTED == client.events, f"cut at turn {turns}"
        assert not client.gaps, f"cut at turn {turns}"
        if finished_first:
            break
        turns += 1
    assert turns > 5


# -- joins under load ------------------------------------------------------------------

# Each run has them in one of the two modes: which one, is the seed's.
in_either_mode = pytest.mark.parametrize(
    "handler_cancellation", [SEED % 2 == 1], ids=["either"], indirect=True
)

WRITERS = 16
CHANNELS = [f"channel {number}" for number in range(20)]


class Load:
    """Writers that publish to random channels as fast as they can.

    Attributes:
        log: What was published: complete when the writers have ended.
    """

    def __init__(self, sse: SSE, rng: random.Random, *, most: int) -> None:
        self.log: list[Published] = []
        self.going = True
        self._sse = sse
        self._rng = rng
        self._most = most
        self._tasks = [asyncio.create_task(self._write(n)) for n in range(WRITERS)]

    async def _write(self, writer: int) -> None:
        rng, number = self._rng, 0
        while self.going:
            channel = rng.choice(CHANNELS)
            texts = [f"{writer} {number} {n}" for n in range(rng.choice([1, 1, 1, 5]))]
            number += 1
            if len(texts) == 1:
                cursors = [await self._sse.publish(channel, texts[0])]
            else:
                cursors = await self._sse.publish_many(channel, texts)
            for cursor, text in zip(cursors, texts, strict=True):
                self.log.append(Published(seq_of(cursor), channel, text))
            # The clients run on this very loop; and what they are given is kept.
            enough = len(self.log) > self._most
            await asyncio.sleep(0.02 if enough else 0.001 if number % 10 == 0 else 0)

    async def end(self) -> None:
        """Let the writers end; sort what they have written."""
        self.going = False
        for task in self._tasks:
            await task
        self.log.sort()


class Visitor(Client):
    """A client of random channels that is cut at random moments."""

    def __init__(self, served: Served, rng: random.Random) -> None:
        self.rng = rng
        self.channels = rng.sample(CHANNELS, rng.randrange(1, 8))
        names = "+".join(self.channels).replace(" ", "%20")
        super().__init__(served, f"/rooms/{names}")

    async def visit(self) -> None:
        """Come and go."""
        rng = self.rng
        for _ in range(rng.randrange(30)):
            await asyncio.sleep(0)
        while not self.hellos or rng.random() < 0.6:
            await self.connect()
            for _ in range(rng.randrange(1, 12)):
                if not await self.read(rng.choice([1, 100, 3000, 65536])):
                    break
            self.cut(reset=rng.random() < 0.5)
            if rng.random() < 0.5:
                await asyncio.sleep(rng.random() / 200)

    def wanted(self, log: Sequence[Published]) -> list[Published]:
        """Return what it is to be given, of *log*."""
        first = bisect_right(log, self.start, key=lambda event: event.seq)
        return [event for event in log[first:] if event.channel in self.channels]


async def visitors_under_load(
    served: Served, name: str, *, visits: int, most: int
) -> tuple[list[Visitor], list[Published]]:
    """Return who has visited while writers wrote, and what they wrote."""
    print(f"SSE_SEED={SEED}")  # noqa: T201 -- to run it again
    rng = random.Random(f"{SEED} {name}")
    load = Load(served.sse, rng, most=most)
    visitors: list[Visitor] = []
    while len(visitors) < visits:
        some = [Visitor(served, random.Random(rng.random())) for _ in range(25)]
        await asyncio.gather(*[visitor.visit() for visitor in some])
        visitors += some
    await load.end()
    return visitors, load.log


@in_either_mode
@pytest.mark.timeout(120)
async def test_joins_under_load(serve: Serve, make_store: Make, tmp_path: Path) -> None:
    """Clients that join at random, while many publish, miss and double nothing.

    Sixteen writers; hundreds of connections to random channels, cut at random.
    """
    store = make_store(tmp_path, max_events=1_000_000)
    served = await serve(app_of(table_of_rooms(), store=store))
    await until(lambda: broker_of(served).ready)
    visitors, log = await visitors_under_load(served, "all", visits=100, most=10_000)
    delivered = 0
    for number, visitor in enumerate(visitors):
        wanted = [(event.seq, event.data) for event in visitor.wanted(log)]
        await visitor.finish(len(wanted))
        assert wanted == visitor.story, f"SSE_SEED={SEED}, visitor {number}"
        delivered += len(wanted)
    print(f"{len(log)} published, {delivered} delivered")  # noqa: T201
    assert len(log) > 500
    assert delivered > 500
    assert sum(visitor.connections for visitor in visitors) > 200


@in_either_mode
@pytest.mark.timeout(120)
async def test_joins_under_load_where_little_is_kept(
    serve: Serve, make_store: Make, tmp_path: Path
) -> None:
    """Where channels hold ten events, what is missing was told, and only that."""
    served = await serve(
        app_of(table_of_rooms(), store=make_store(tmp_path, max_events=10))
    )
    await until(lambda: broker_of(served).ready)
    visitors, log = await visitors_under_load(served, "few", visits=75, most=8_000)
    through = log[-1].seq
    for number, visitor in enumerate(visitors):
        await visitor.connect()
        await visitor.greeted()
        await read_to_the_end(visitor, log)
        visitor.cut()
        story = [
            # It may have come upon the hole on an earlier connection.
            item._replace(after=None)
            if isinstance(item, Gap)
            else Published(item[0], by_seq(log, item[0]).channel, item[1])
            for item in visitor.story
        ]
        try:
            check_story(story, log, visitor.channels, visitor.start, through)
        except AssertionError as exc:
            raise AssertionError(f"SSE_SEED={SEED}, visitor {number}: {exc}") from None
    assert any(visitor.gaps for visitor in visitors)
    assert {"expired", "slow"} >= {g.reason for v in visitors for g in v.gaps}


def by_seq(log: Sequence[Published], seq: int) -> Published:
    """Return the event of that number."""
    return log[bisect_right(log, seq, key=lambda event: event.seq) - 1]


async def read_to_the_end(visitor: Visitor, log: Sequence[Published]) -> None:
    """Read until the newest event of what is followed has come."""
    wanted = visitor.wanted(log)
    while wanted and seq_of(visitor.last_event_id) < wanted[-1].seq:
        assert await visitor.read()
