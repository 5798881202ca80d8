"""A private run's feed: its reader gets each event once, in order, in few writes."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from aiohttp_sse_routes import EventError, ServerSentEvent
from aiohttp_sse_routes.streams.ending import Ending
from aiohttp_sse_routes.streams.producer import Producer
from aiohttp_sse_routes.streams.reader import Reader, Standing
from aiohttp_sse_routes.streams.run_feed import RunFeed
from aiohttp_sse_routes.wire import Encoder, encode

from .helpers import is_open, until

SEED = int(os.environ.get("SSE_SEED", "0")) or random.SystemRandom().randrange(1 << 32)
PREFIX = "sse1.r.token."


class Sink(Reader):
    """A reader that keeps what is written to it."""

    __slots__ = ("chunks", "endings", "room")

    def __init__(self, room: int = 1 << 62) -> None:
        super().__init__()
        self.send = self.take
        self.chunks: list[bytes] = []
        self.endings: list[Ending] = []
        self.room = room

    def take(self, chunk: bytes) -> None:
        """Keep *chunk*; the transport is full when no room is left."""
        self.chunks.append(chunk)
        self.room -= len(chunk)
        if self.room <= 0:
            self.paused()

    def drain(self, room: int) -> None:
        """Have room again."""
        self.room = room
        self.resumed()

    def on_ending(self, ending: Ending) -> None:
        """Keep *ending*."""
        self.endings.append(ending)

    @property
    def text(self) -> bytes:
        """All that was written, without the sizes of the chunks, which are right."""
        return b"".join(map(content, self.chunks))


def content(chunk: bytes) -> bytes:
    """Return what one HTTP chunk holds."""
    size, _, rest = chunk.partition(b"\r\n")
    assert rest.endswith(b"\r\n")
    assert int(size, 16) == len(rest) - 2
    return rest[:-2]


def block_of(seq: int, item: Any) -> bytes:
    """Return the block of event *seq*, as the wire module says it is."""
    body = encode(item)
    place = b"id: %b%d\n" % (PREFIX.encode(), seq) if body.carries_id else b""
    return place + body.lines


def feed_of(max_events: int = 500, max_bytes: int = 262_144, **options: Any) -> RunFeed:
    """Return a feed."""
    return RunFeed(
        Encoder(**options), prefix=PREFIX, max_events=max_events, max_bytes=max_bytes
    )


def joined(feed: RunFeed, place: int = 0) -> Sink:
    """Return a reader of *feed* from *place* on."""
    sink = Sink()
    feed.join(sink, place)
    return sink


async def test_the_first_event_of_a_turn_leaves_at_once_the_others_in_one_write() -> (
    None
):
    """Nothing waits for more to come; what comes before the generator waits is one."""
    feed = feed_of()
    sink = joined(feed)
    feed.append({"n": 1})
    assert block_of(1, {"n": 1}) == sink.text
    feed.hold("two")
    feed.hold(ServerSentEvent(3, event="three"))
    assert 1 == len(sink.chunks)
    assert sink.total == sum(map(len, sink.chunks))
    feed.turn_over()
    assert 2 == len(sink.chunks)
    feed.append({"n": 4})
    assert 3 == len(sink.chunks)
    events = [{"n": 1}, "two", ServerSentEvent(3, event="three"), {"n": 4}]
    blocks = [block_of(seq, item) for seq, item in enumerate(events, 1)]
    assert b"".join(blocks) == sink.text
    assert sink.total == sum(map(len, sink.chunks))


@pytest.mark.parametrize(("size", "count"), [(1, 64), (40_000, 3)])
async def test_a_turn_has_an_end(size: int, count: int) -> None:
    """Who never waits is told to rest: after 64 events, or a batch's bytes."""
    feed = feed_of(max_events=10_000, max_bytes=1 << 30)
    joined(feed)
    rests = [feed.append("x" * size)]
    rests += [feed.hold("x" * size) for _ in range(count - 1)]
    assert [False] * (count - 1) + [True] == rests
    assert feed.append(None), "nor does it get on with nothing"
    assert feed.hold(None)


async def test_what_waits_for_the_end_of_a_turn_is_nobodys_yet() -> None:
    """Who comes meanwhile is given it once, when the turn is over, and not before."""
    feed = feed_of()
    feed.append("one")
    feed.hold("two")
    with pytest.raises(EventError):
        feed.hold(object())
    sink = joined(feed)
    assert block_of(1, "one") == sink.text
    assert 1 == feed.delivered == feed.place_of(sink)
    feed.turn_over()
    assert block_of(1, "one") + block_of(2, "two") == sink.text
    assert sink.total == sum(map(len, sink.chunks))


@pytest.mark.parametrize("limit", [None, 60])
async def test_each_number_and_each_value_has_the_frame_that_the_wire_says(
    limit: int | None,
) -> None:
    """JSON takes a quicker way to the same bytes, whatever the number's length."""
    values = [
        {"a": [1, 2.5, None, True]},
        [1, {"b": "zwölf\n"}],
        ("t",),
        7,
        2.5,
        False,
        {"raw": msgspec.Raw(b"[1,\n2]")},
        [msgspec.Raw(b"[1,\r2]")],
        "text",
        "two\nlines",
        b"bytes",
        ServerSentEvent(comment="no data"),
        ServerSentEvent({"x": 1}, event="e", retry=700),
    ]
    feed = feed_of(limit=limit)
    sink = joined(feed)
    expected = b""
    for seq in range(1, 1202):
        value = values[seq % len(values)]
        expected += block_of(seq, value)
        feed.append(value)
        feed.turn_over()
    assert expected == sink.text


@pytest.mark.parametrize(
    "value",
    [
        {"x": float("nan")},
        {"x": object()},
        {"x": "y" * 60},
        ["\ud800"],
        [msgspec.Raw(b'"\0"')],
    ],
)
async def test_what_cannot_be_sent_takes_no_number(value: Any) -> None:
    """It raises what `encode` raises, and the next event has the next number."""
    feed = feed_of(limit=60)
    sink = joined(feed)
    with pytest.raises(EventError) as raised:
        feed.append(value)
    with pytest.raises(type(raised.value)) as same:
        encode(value, limit=60)
    assert str(same.value) == str(raised.value)
    feed.append({"fine": 1})
    assert block_of(1, {"fine": 1}) == sink.text


async def test_named_events_and_dumps_take_their_own_way() -> None:
    """``events=`` and ``dumps=`` hold for values that are JSON by themselves too."""
    feed = feed_of(names={dict: "thing"})
    named = joined(feed)
    feed.append({"a": 1})
    assert b"\nevent: thing\njson\ndata: " in named.text
    feed = feed_of(dumps=lambda value: "dumped")
    dumped = joined(feed)
    feed.append({"a": 1})
    assert b"data: dumped\n" in dumped.text


async def test_behind_an_id_of_its_own_no_id_is_made() -> None:
    """The handler resumes by itself from there, by JSON as by any other event."""
    feed = feed_of()
    sink = joined(feed)
    for item in ({"n": 1}, ServerSentEvent(2, id="mine"), {"n": 3}, "four"):
        feed.append(item)
        feed.turn_over()
    ids = [line for line in sink.text.split(b"\n") if line.startswith(b"id: ")]
    assert [b"id: sse1.r.token.1", b"id: mine"] == ids
    assert feed.gave_ids
    assert feed.has_all(2)
    assert not feed.has_all(1)


async def test_the_end_is_told_behind_what_waits() -> None:
    """What the turn's end would have brought is written before."""
    feed = feed_of()
    sink = joined(feed)
    feed.append(1)
    feed.hold(2)
    feed.finish(Ending("finished"))
    assert block_of(1, 1) + block_of(2, 2) == sink.text
    assert ["finished"] == [ending.kind for ending in sink.endings]


async def test_a_reader_that_comes_later_is_told_the_end_too() -> None:
    """Also one whose transport was full when it came."""
    feed = feed_of()
    feed.append(1)
    feed.finish(Ending("finished"))
    sink = Sink()
    sink.blocked = True
    feed.join(sink, 0)
    assert [] == sink.endings
    sink.drain(1000)
    await asyncio.sleep(0)
    assert block_of(1, 1) == sink.text
    assert 1 == len(sink.endings)


async def test_who_comes_back_is_given_events_that_are_larger_than_a_batch() -> None:
    """One of them is a write of its own, small ones share theirs."""
    feed = feed_of(max_bytes=1 << 20)
    events = ["a", "b", "x" * 100_000, "c", "y" * 100_000, "z" * 100_000]
    for item in events:
        feed.append(item)
    sink = joined(feed)
    for _ in events:
        await asyncio.sleep(0)
    blocks = [block_of(seq, item) for seq, item in enumerate(events, 1)]
    assert b"".join(blocks) == sink.text
    assert [blocks[0] + blocks[1], *blocks[2:]] == [*map(content, sink.chunks)]


ITEMS = ({"n": 1}, "text", None, ServerSentEvent(comment="c"), {"big": "x" * 400}, [3])


class Play:
    """A run, its client that comes and goes, and what both are to have."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.bounds = rng.choice([(8, 4_000), (50, 1_500), (1, 100), (30, 1 << 20)])
        self.feed = feed_of(*self.bounds)
        self.blocks: list[bytes] = []
        self.sink: Sink | None = None
        self.from_place = 0
        self.is_first = True

    async def step(self) -> None:
        """Do anything that may happen, and check."""
        others = [self.waits, self.fills, self.drains, self.leaves, self.comes]
        do = self.rng.choice(
            [*[self.yields] * 3, *others, self.acknowledges, self.turns]
        )
        await do()
        self.check()

    async def yields(self) -> None:
        item = self.rng.choice(ITEMS)
        if not self.feed.has_room:
            await self.drains()
            await self.turns()
            await self.acknowledges()
            return
        add = self.feed.append if self.is_first else self.feed.hold
        self.is_first = False
        rest = add(item)
        if item is not None:
            self.blocks.append(block_of(len(self.blocks) + 1, item))
        if rest:
            await self.waits()
            self.feed.look()

    async def waits(self) -> None:
        self.feed.turn_over()
        self.is_first = True

    async def turns(self) -> None:
        await asyncio.sleep(0)

    async def fills(self) -> None:
        if self.sink is not None:
            self.sink.room = self.rng.randrange(1000)

    async def drains(self) -> None:
        if self.sink is not None:
            self.sink.drain(self.rng.choice([100, 1 << 62]))

    async def leaves(self) -> None:
        sink, self.sink = self.sink, None
        if sink is not None:
            self.feed.leave(sink)
            assert b"".join(self.blocks[self.from_place : sink.place]) == sink.text

    async def comes(self) -> None:
        await self.leaves()
        self.from_place = self.rng.randint(self.feed.floor, self.feed.delivered)
        self.feed.acknowledged = self.from_place
        self.sink = Sink(self.rng.choice([200, 1 << 62]))
        self.feed.join(self.sink, self.from_place)

    async def acknowledges(self) -> None:
        if self.sink is not None:
            place = self.feed.place_of(self.sink)
            outstanding = self.rng.choice([0, 0, 0, self.rng.randrange(1000)])
            before = self.feed.acknowledged
            self.feed.note(place, outstanding)
            self.feed.look()
            unacknowledged = sum(map(len, self.blocks[self.feed.acknowledged : place]))
            assert before <= self.feed.acknowledged <= max(before, place)
            if self.feed.acknowledged > before:
                assert unacknowledged >= min(outstanding, unacknowledged)
                assert outstanding <= unacknowledged

    def check(self) -> None:
        feed = self.feed
        max_events, max_bytes = self.bounds
        kept = self.blocks[feed.floor :]
        assert len(self.blocks) == feed.head
        assert feed.floor <= feed.acknowledged or feed.floor == 0
        assert sum(map(len, kept)) == feed.nbytes
        over = len(kept) > max(1, max_events) or feed.nbytes > max_bytes
        if over and len(kept) > 1:
            assert feed.floor == min(feed.acknowledged, feed.delivered, feed.head - 1)
        if feed.floor:
            # Not one more than had to go.
            nbytes = feed.nbytes + len(self.blocks[feed.floor - 1])
            assert len(kept) >= max_events or nbytes > max_bytes
        if self.sink is not None:
            place = feed.place_of(self.sink)
            assert b"".join(self.blocks[self.from_place : place]) == self.sink.text
            assert self.sink.total == sum(map(len, self.sink.chunks))


async def test_whatever_happens_each_event_comes_once_and_in_order() -> None:
    """A random course of a run against a plain list of its events."""
    print(f"SSE_SEED={SEED}")  # noqa: T201 -- to run it again
    rng = random.Random(SEED)
    for _ in range(60):
        play = Play(rng)
        for _ in range(400):
            await play.step()
        await play.waits()
        await play.comes()
        assert play.sink is not None
        play.sink.drain(1 << 62)
        for _ in range(10):
            await asyncio.sleep(0)
        assert Standing.LIVE is play.sink.standing
        assert play.feed.head == play.feed.place_of(play.sink)
        play.check()


# -- who drives it ---------------------------------------------------------------------


class Log:
    """What a producer hands over, and when its generator waits."""

    def __init__(self, iterator: AsyncIterator[Any], *, rest: Any = None) -> None:
        self.seen: list[Any] = []
        self.rest = rest
        self.producer = Producer(
            iterator,
            emit=self.emit,
            emit_more=self.emit_more,
            has_room=lambda: True,
            can_wait=lambda: False,
            on_end=lambda ending: self.seen.append(ending.kind),
            at_wait=lambda: self.seen.append("wait"),
            name="log",
        )

    def emit(self, item: Any) -> bool:
        """Keep *item*."""
        if item == "unfit":
            raise EventError(item)
        self.seen.append(item)
        return bool(item == self.rest)

    def emit_more(self, item: Any) -> bool:
        """Keep *item*, and that the generator has not waited before."""
        self.seen.append(("more", item))
        return bool(item == self.rest)


async def test_a_turn_is_over_when_the_generator_waits() -> None:
    """It is told before anything else runs, where anything waits for that."""

    async def numbers() -> AsyncIterator[int]:
        yield 1
        yield 2
        await asyncio.sleep(0)
        yield 3
        future = asyncio.get_running_loop().create_future()
        future.set_result(None)
        await future
        yield 4

    log = Log(numbers())
    await asyncio.wait({log.producer.task})
    await is_open(log.producer)
    assert [1, ("more", 2), "wait", 3, ("more", 4), "wait", "finished"] == log.seen


async def test_a_turn_is_over_when_the_generator_is_to_rest() -> None:
    """What came before is not kept back while the loop has its turn."""

    async def numbers() -> AsyncIterator[int]:
        yield 1
        yield 2
        yield 3

    log = Log(numbers(), rest=1)
    await asyncio.wait({log.producer.task})
    await is_open(log.producer)
    assert [1, 2, ("more", 3), "wait", "finished"] == log.seen
    log = Log(numbers(), rest=2)
    await asyncio.wait({log.producer.task})
    await is_open(log.producer)
    assert [1, ("more", 2), "wait", 3, "wait", "finished"] == log.seen


async def test_what_a_generator_awaits_in_its_finally_is_not_cancelled() -> None:
    """It was parked at a ``yield`` when it failed, and is told to stop in its end."""
    leave = asyncio.Event()
    log: Log

    async def stubborn() -> AsyncIterator[str]:
        try:
            yield "unfit"
        finally:
            log.seen.append("finally")
            await leave.wait()
            log.seen.append("left")

    log = Log(stubborn())
    await until(lambda: "finally" in log.seen)
    log.producer.stop()
    await asyncio.sleep(0)
    leave.set()
    await asyncio.wait({log.producer.task})
    await is_open(log.producer)
    assert ["wait", "finally", "left", "failed"] == log.seen


class Countdown:
    """An async iterator that is no generator."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __aiter__(self) -> Countdown:
        """Return itself."""
        return self

    async def __anext__(self) -> int:
        """Return the next number, after a turn of the loop."""
        await asyncio.sleep(0)
        if not self.count:
            raise StopAsyncIteration
        self.count -= 1
        return self.count


class Futures(Countdown):
    """One whose steps are no coroutines."""

    def __anext__(self) -> asyncio.Future[int]:  # type: ignore[override]
        """Return a future of the next number."""
        return asyncio.ensure_future(super().__anext__())


@pytest.mark.parametrize("kind", [Countdown, Futures])
async def test_any_async_iterator_is_iterated(kind: type[Countdown]) -> None:
    """One that has neither ``athrow`` nor ``aclose``, and whose steps are awaitable."""
    log = Log(kind(2))
    await asyncio.wait({log.producer.task})
    await is_open(log.producer)
    assert [1, 0, "wait", "finished"] == log.seen


async def test_a_cancellation_reaches_the_generator_wherever_it_waits() -> None:
    """At the first thing that a step waits for, at a later one, and more than once."""
    caught: list[str] = []

    async def stubborn() -> AsyncIterator[int]:
        for place in ("first", "again"):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                caught.append(place)
        yield 1
        await asyncio.sleep(0)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            caught.append("later")
        yield 2

    log = Log(stubborn())
    for _ in range(3):
        for _ in range(4):
            await asyncio.sleep(0)
        log.producer.task.cancel()
    await asyncio.wait({log.producer.task})
    await is_open(log.producer)
    assert ["first", "again", "later"] == caught
    assert [1, 2, "finished"] == [one for one in log.seen if one != "wait"]


async def test_an_error_that_is_awaited_is_the_generators_own() -> None:
    """It may catch it and yield without waiting any more."""

    async def careful() -> AsyncIterator[str]:
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(future.set_exception, ValueError("x"))
        try:
            await future
        except ValueError:
            yield "caught"

    log = Log(careful())
    await asyncio.wait({log.producer.task})
    await is_open(log.producer)
    assert ["caught", "finished"] == [one for one in log.seen if one != "wait"]
