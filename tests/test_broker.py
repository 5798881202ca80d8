"""The broker: readers of channels are places in one log, and one frame serves all."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import pytest

from aiohttp_sse_routes.cursor import new_generation
from aiohttp_sse_routes.logs.entry import Bounds, Draft, Entry, Lineage, Page
from aiohttp_sse_routes.logs.memory import MemoryStore
from aiohttp_sse_routes.streams.broker import Broker
from aiohttp_sse_routes.streams.feed import BATCH, BURST
from aiohttp_sse_routes.streams.following import Following, Keeping
from aiohttp_sse_routes.streams.reader import GapReason, Standing
from aiohttp_sse_routes.streams.resumption import begin
from aiohttp_sse_routes.streams.slices import CHECK_EVERY, WRITES
from aiohttp_sse_routes.streams.turns import Turns

from .helpers import until
from .rawhttp import blocks_of
from .rooms import SEED, Gap, Published, Sink, check_story, seq_of
from .stores import drafts, put


async def broker_on(store: MemoryStore) -> Broker:
    """Return a broker that follows *store*."""
    broker = Broker(store, Turns())
    await store.open(broker, now=time.monotonic)
    return broker


async def joined(
    broker: Broker,
    *names: str,
    sink: Sink | None = None,
    after: int | None = None,
    keeping: Keeping = "gap",
) -> Sink:
    """Return a reader of *names*, from *after* on, else from now on."""
    sink = sink or Sink()
    place = broker.cursor(after) if after is not None else None
    await rejoin(broker, sink, names, place, keeping)
    return sink


async def rejoin(
    broker: Broker,
    sink: Sink,
    names: tuple[str, ...],
    place: str | None,
    keeping: Keeping = "gap",
) -> None:
    """Let *sink* begin as a client that brings *place* does."""
    from aiohttp_sse_routes.cursor import parse

    start = await begin(
        broker, names, brought=place is not None, cursor=parse(place), keeping=keeping
    )
    if start.gap in ("unknown", "reset"):
        sink.story.append(Gap(start.gap, None, start.place))
    broker.join(sink, start.following, start.place)


async def turn() -> None:
    """Let the present turn of the loop end."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)


# -- delivery --------------------------------------------------------------------------


async def test_the_first_event_of_a_turn_leaves_at_once() -> None:
    """It is written before the append returns; the rest waits for the turn's end."""
    broker = await broker_on(store := MemoryStore())
    sink = await joined(broker, "a")
    await put(store, "a", "1")
    assert ["1"] == sink.data
    await put(store, "a", "2")
    await put(store, "a", "3")
    assert ["1"] == sink.data
    await turn()
    assert ["1", "2", "3"] == sink.data
    assert 2 == len(sink.chunks), "what waited leaves in one write"


async def test_a_batch_is_one_chunk() -> None:
    """Events that were appended together are one chunk and one write, at any time."""
    broker = await broker_on(store := MemoryStore())
    sink = await joined(broker, "a", "b")
    await put(store, "a", *map(str, range(100)))
    assert 1 == len(sink.chunks)
    await put(store, "b", *map(str, range(100, 200)))
    await turn()
    assert 2 == len(sink.chunks)
    assert [*map(str, range(200))] == sink.data


async def test_one_frame_serves_all() -> None:
    """Everybody who follows a channel is written the same object, not a copy."""
    broker = await broker_on(store := MemoryStore())
    frames: list[bytes] = []
    for _ in range(5):
        sink = Sink()
        sink.send = frames.append
        await joined(broker, "a", sink=sink)
    await put(store, "a", "1")
    assert 5 == len(frames)
    assert 1 == len(set(map(id, frames)))


async def test_several_channels_have_one_order() -> None:
    """A turn's events of several channels leave in one write, in their order."""
    broker = await broker_on(store := MemoryStore())
    sinks = {
        names: await joined(broker, *names)
        for names in [("a",), ("a", "b"), ("b", "a"), ("a", "b", "c"), ("c",)]
    }
    await put(store, "a", "a1")
    for number in range(2, 20):
        for name in "cba":
            await put(store, name, f"{name}{number}")
    await turn()
    everything = ["a1"] + [f"{name}{n}" for n in range(2, 20) for name in "cba"]
    for names, sink in sinks.items():
        assert [data for data in everything if data[0] in names] == sink.data
        assert len(sink.chunks) <= 2


async def test_a_burst_does_not_wait_for_the_turns_end() -> None:
    """Neither more than 64 events nor more than 64 KB are held back."""
    broker = await broker_on(store := MemoryStore())
    sink = await joined(broker, "a")
    await put(store, "a", "first")
    for number in range(BURST):
        await put(store, "a", str(number))
    assert len(sink.data) >= BURST
    await turn()
    seen = len(sink.data)
    await put(store, "a", "first")
    await put(store, "a", "x" * BATCH)
    assert seen + 2 == len(sink.data)


async def test_a_fan_out_gives_the_loop_its_turns() -> None:
    """A delivery to many that takes long is cut to slices, and nobody loses by it."""
    broker = await broker_on(store := MemoryStore())
    sinks = []
    for _ in range(1000):
        sink = Sink()

        def slow(chunk: bytes, sink: Sink = sink) -> None:
            until_then = time.perf_counter() + 0.0001
            while time.perf_counter() < until_then:
                pass
            sink.take(chunk)

        sink.send = slow
        sinks.append(await joined(broker, "a", sink=sink))
    before = [sink.total for sink in sinks]
    began = time.perf_counter()
    await put(store, "a", "1")
    held = time.perf_counter() - began
    reached = sum(bool(sink.data) for sink in sinks)
    assert CHECK_EVERY <= reached < 1000, "cut to a slice"
    assert held < 0.1, "1,000 writes of 0.1 ms would take all of that"
    await put(store, "a", "2")
    turns = 0
    while not all(len(sink.data) == 2 for sink in sinks):
        await asyncio.sleep(0)
        turns += 1
    assert turns > 5
    assert all(["1", "2"] == sink.data for sink in sinks)
    # What was counted as written to them is what was.
    assert [sink.nbytes for sink in sinks] == [
        sink.total - then for sink, then in zip(sinks, before, strict=True)
    ]


async def test_a_turn_has_so_many_writes_however_quick_they_are() -> None:
    """Transports that only note what is to be written are not all given it at once."""
    broker = await broker_on(store := MemoryStore())
    sinks = [await joined(broker, "a") for _ in range(1000)]
    await put(store, "a", "1")
    reached = [sum(bool(sink.data) for sink in sinks)]
    while reached[-1] < len(sinks):
        await asyncio.sleep(0)
        reached.append(sum(bool(sink.data) for sink in sinks))
    assert max(after - then for then, after in pairwise([0, *reached])) <= WRITES
    assert all(["1"] == sink.data for sink in sinks)


async def test_what_was_written_is_counted() -> None:
    """A reader's total is its bytes, live or behind, of one channel or of many."""
    broker = await broker_on(store := MemoryStore())
    rng = random.Random(SEED)
    sinks = [
        await joined(broker, *rng.sample("abcd", rng.randrange(1, 5)))
        for _ in range(30)
    ]
    for _ in range(200):
        for _ in range(rng.randrange(5)):
            await put(store, rng.choice("abcd"), "x" * rng.randrange(50))
        sink = rng.choice(sinks)
        if sink.blocked:
            sink.resumed()
        elif rng.random() < 0.3:
            sink.paused()
        if rng.random() < 0.5:
            await asyncio.sleep(0)
        broker.settle()
        # What the turn had no time for is owed, and counts as written.
        debts = [broker._live._debts.of(sink) for sink in sinks]
        owed = [debt.size if debt is not None else 0 for debt in debts]
        written = [sink.nbytes + more for sink, more in zip(sinks, owed, strict=True)]
        assert written == [s.total for s in sinks], f"{SEED=}"


async def test_who_leaves_leaves_nothing() -> None:
    """A topic is there as long as anybody follows it live."""
    broker = await broker_on(store := MemoryStore())
    one, two = await joined(broker, "a", "b"), await joined(broker, "b")
    await put(store, "b", "1")
    await put(store, "b", "2")
    broker.leave(one)
    broker.leave(two)
    broker.leave(two)
    assert not broker._live._topics
    assert not list(broker.readers)
    await turn()
    assert ["1"] == one.data == two.data
    assert Standing.OUT is one.standing
    assert one.feed is None


# -- holes -----------------------------------------------------------------------------


async def test_a_hole_is_told_where_it_is() -> None:
    """What is retained below a hole's end comes before it, the rest behind it."""
    broker = await broker_on(store := MemoryStore(max_events=3))
    await put(store, "quiet", "1", "2")
    await put(store, "busy", "3", "4", "5", "6", "7")
    sink = await joined(broker, "quiet", "busy", after=1)
    await put(store, "quiet", "8")
    await until(lambda: sink.standing is Standing.LIVE)
    assert [
        (2, "2"),
        Gap("expired", 1, 4),
        (5, "5"),
        (6, "6"),
        (7, "7"),
        (8, "8"),
    ] == sink.story


async def test_neighbours_that_are_trimmed_are_no_hole() -> None:
    """A gap is told of what is followed alone, and of what came after the place."""
    broker = await broker_on(store := MemoryStore(max_events=3))
    await put(store, "quiet", "1", "2", "3")
    for _ in range(5):
        await put(store, "busy", "y", "y", "y")
    sinks = [
        await joined(broker, "quiet", after=0),
        await joined(broker, "quiet", "never", after=3),
        await joined(broker, "busy", after=15),
        await joined(broker, "busy", "quiet", after=18),
    ]
    assert [["1", "2", "3"], [], ["y"] * 3, []] == [sink.data for sink in sinks]
    assert not any(sink.gaps for sink in sinks)


async def test_a_hole_that_grows_is_told_once() -> None:
    """A slow reader that is overtaken while it is in a hole is told of one hole."""
    broker = await broker_on(store := MemoryStore(max_events=5))
    await put(store, "b", "x" * BATCH, "y" * BATCH)
    await put(store, "a", *map(str, range(8)))
    sink = await joined(broker, "a", "b", after=0, sink=Sink(room=1))
    assert 1 == len(sink.data)
    await put(store, "a", *map(str, range(8, 20)))
    sink.room = None
    sink.resumed()
    await until(lambda: sink.standing is Standing.LIVE)
    assert [Gap("expired", 0, 17)] == sink.gaps
    assert ["15", "16", "17", "18", "19"] == sink.data[2:]


async def test_who_is_overtaken_later_was_too_slow() -> None:
    """A hole that was there is ``expired``, one that opens in the replay ``slow``."""
    broker = await broker_on(store := MemoryStore(max_events=4))
    await put(store, "a", "0", "1", *["x" * BATCH] * 4)
    sink = await joined(broker, "a", after=0, sink=Sink(room=1))
    await until(lambda: sink.blocked)
    assert [Gap("expired", 0, 2)] == sink.gaps
    await put(store, "a", *map(str, range(10)))
    sink.room = None
    sink.resumed()
    await until(lambda: sink.standing is Standing.LIVE)
    assert [Gap("expired", 0, 2), Gap("slow", 3, 12)] == sink.gaps


async def test_a_gap_that_is_due_survives_a_pause() -> None:
    """Who is paused by the last event before a hole's end is told of it afterwards."""
    broker = await broker_on(store := MemoryStore(max_events=2))
    await put(store, "b", "kept")
    await put(store, "a", "1", "2", "3", "4")
    sink = await joined(broker, "a", "b", after=0, sink=Sink(room=1))
    assert [(1, "kept")] == sink.story
    sink.room = None
    sink.resumed()
    await until(lambda: sink.standing is Standing.LIVE)
    assert [(1, "kept"), Gap("expired", 0, 3), (4, "3"), (5, "4")] == sink.story


async def test_a_hole_is_told_before_anything_is_conflated() -> None:
    """Also where it is overtaken once more in the midst of it."""
    broker = await broker_on(store := MemoryStore(max_events=3))
    await put(store, "b", "y" * BATCH, "z" * BATCH)
    await put(store, "a", "1", "2", "3")
    for _ in range(3):
        await store.append("a", [Draft(b"data: k\n\n", "key")])
    sink = Sink(room=1)
    await joined(broker, "a", "b", after=0, sink=sink, keeping="conflate")
    assert 1 == len(sink.data)
    for _ in range(5):
        await store.append("a", [Draft(b"data: k\n\n", "key")])
    sink.room = None
    sink.resumed()
    await until(lambda: sink.standing is Standing.LIVE)
    assert [Gap("expired", 0, 10)] == sink.gaps
    assert ["k", "k", "k"] == sink.data[2:]


async def test_entries_that_never_came_are_found_by_the_chain() -> None:
    """An entry whose ``prev`` is unknown puts its live readers behind, to look."""
    broker = await broker_on(store := MemoryStore())
    sink, other = await joined(broker, "a", "b"), await joined(broker, "b")
    await put(store, "a", "1")
    store.deliver([Entry(7, 5, "a", b"data: 7\n\n")])
    await turn()
    assert [(1, "1"), Gap("slow", 1, 5), (7, "7")] == sink.story
    assert not other.story
    assert Standing.LIVE is other.standing is sink.standing


async def test_what_was_told_to_be_gone_stays_gone() -> None:
    """An entry that turns up below a hole that was told is given to nobody."""
    broker = await broker_on(store := MemoryStore())
    sink = await joined(broker, "a", "b")
    await put(store, "a", "1")
    store.miss({"a": 4})
    store.deliver([Entry(2, 1, "a", b"data: 2\n\n"), Entry(3, 0, "b", b"data: 3\n\n")])
    store.deliver([Entry(4, 2, "a", b"data: 4\n\n")])
    store.deliver([Entry(5, 4, "a", b"data: 5\n\n")])
    await until(lambda: sink.standing is Standing.LIVE)
    assert [(1, "1"), (3, "3"), Gap("slow", 1, 4), (5, "5")] == sink.story


# -- another log -----------------------------------------------------------------------


async def test_another_log_is_a_reset_for_all() -> None:
    """Live, behind or paused: all are told, with the id that they had, and go on."""
    broker = await broker_on(store := MemoryStore())
    live = await joined(broker, "a")
    paused = await joined(broker, "a", sink=Sink(room=1))
    await put(store, "a", "1")
    await put(store, "a", "2")
    await turn()
    old = broker.lineage
    store.begin(Lineage(new_generation()), 100)
    await put(store, "a", "3")
    await turn()
    assert [(1, "1"), (2, "2"), Gap("reset", 2, 100), (101, "3")] == live.story
    assert [(1, "1")] == paused.story
    paused.room = None
    paused.resumed()
    await turn()
    assert [(1, "1"), Gap("reset", 1, 100), (101, "3")] == paused.story
    sink = Sink()
    await rejoin(broker, sink, ("a",), old.cursor(2))
    assert [Gap("reset", None, 101)] == sink.story


async def test_a_fork_goes_on_for_who_lost_nothing() -> None:
    """An older generation's place through its fork is a place; one beyond is none."""
    broker = await broker_on(store := MemoryStore())
    sink = await joined(broker, "a")
    await put(store, "a", "1")
    await put(store, "a", "2")
    await turn()
    old = broker.lineage
    store.begin(Lineage(new_generation(), {old.generation: 1}), 2)
    await put(store, "a", "3")
    await turn()
    assert ["1", "2", "3"] == sink.data
    assert not sink.gaps
    through, beyond = Sink(), Sink()
    await rejoin(broker, through, ("a",), old.cursor(1))
    await rejoin(broker, beyond, ("a",), old.cursor(2))
    assert [(2, "2"), (3, "3")] == through.story
    assert [Gap("reset", None, 3)] == beyond.story


async def test_what_a_fork_has_lost_is_told_to_who_was_not_given_it() -> None:
    """Readers of a channel that were behind are told; who had it has lost nothing."""
    broker = await broker_on(store := MemoryStore())
    had, other = await joined(broker, "a"), await joined(broker, "b")
    behind = await joined(broker, "a", sink=Sink(room=1))
    await put(store, "a", "1")
    await put(store, "a", "2")
    await turn()
    lineage = Lineage(new_generation(), {broker.lineage.generation: 1}, {"a": 2})
    store.begin(lineage, 2)
    late = await joined(broker, "a")
    store.lose(lineage, {"a": 2})
    await put(store, "a", "3")
    await put(store, "b", "4")
    behind.room = None
    behind.resumed()
    await turn()
    assert [(1, "1"), (2, "2"), (3, "3")] == had.story
    assert [(1, "1"), Gap("reset", 1, 2), (3, "3")] == behind.story
    assert [(4, "4")] == other.story
    assert [(3, "3")] == late.story


async def test_the_id_that_was_brought_is_the_gaps_after() -> None:
    """Also where it is of an older generation, which means the same place."""
    broker = await broker_on(store := MemoryStore(max_events=1))
    await put(store, "a", "1", "2", "3")
    brought = broker.cursor(1)
    store.begin(Lineage(new_generation(), {broker.lineage.generation: 3}), 3)
    told: list[str] = []

    class Told(Sink):
        def on_gap(self, reason: GapReason, after: str, place: str) -> bool:
            told.append(after)
            return super().on_gap(reason, after, place)

    sink = Told()
    await rejoin(broker, sink, ("a",), brought)
    await until(lambda: sink.standing is Standing.LIVE)
    assert [Gap("expired", 1, 2), (3, "3")] == sink.story
    assert [brought] == told


class SlowStore(MemoryStore):
    """A store whose reads wait until they are told to go on."""

    complete = False

    def __init__(self, **bounds: Any) -> None:
        super().__init__(**bounds)
        self.reads: list[asyncio.Event] = []

    async def read(self, *args: Any, **options: Any) -> Page:
        self.reads.append(asyncio.Event())
        await self.reads[-1].wait()
        return await super().read(*args, **options)


async def test_what_is_read_while_the_log_changes_is_not_used() -> None:
    """A page that may be of another log is read again, in the new one's numbers."""
    broker = await broker_on(store := SlowStore(max_events=2))
    sink = await joined(broker, "a", "b")
    sink.paused()
    await put(store, "a", "1", "2", "3")
    sink.resumed()
    await until(lambda: store.reads)
    assert Standing.FETCHING is sink.standing
    store.begin(Lineage(new_generation()), 0)
    # As many again: the same numbers mean other events now.
    sink.paused()
    await put(store, "a", "4", "5", "6")
    sink.resumed()
    await until(lambda: len(store.reads) == 2)
    store.reads[0].set()
    for _ in range(20):
        await asyncio.sleep(0)
    assert not sink.data
    store.reads[1].set()
    await until(lambda: sink.standing is Standing.LIVE)
    assert [Gap("reset", 0, 0), Gap("slow", 0, 1), (2, "5"), (3, "6")] == sink.story
    assert broker.cursor(3).encode() in sink.chunks[-1]
    await broker.close()


class LongStore(SlowStore):
    """A store that has more than is in memory: pages are as they were asked for."""

    def __init__(self) -> None:
        super().__init__(max_events=2)
        self.log: list[Entry] = []
        self.gone: dict[str, int] = {}

    def deliver(self, entries: Sequence[Entry], bounds: Bounds | None = None) -> None:
        self.log += entries
        super().deliver(entries, bounds)

    async def read(
        self, channels: Sequence[str], after: int, through: int, *, limit: int
    ) -> Page:
        found = [entry for entry in self.log if after < entry.seq <= through]
        page = Page(found, through, dict(self.gone))
        self.reads.append(asyncio.Event())
        await self.reads[-1].wait()
        return page


async def test_a_loss_behind_a_page_is_told() -> None:
    """What is gone by the time that a page is written is not in it, and yet told."""
    broker = await broker_on(store := LongStore())
    sink = await joined(broker, "a", "b")
    sink.paused()
    await put(store, "a", "1", "2", "3")
    sink.resumed()
    await until(lambda: store.reads)
    store.gone["b"] = 5
    store.miss({"b": 5})
    store.reads[0].set()
    await until(lambda: sink.data)
    assert ["1", "2", "3"] == sink.data
    store.deliver([Entry(6, 5, "b", b"data: 6\n\n")])
    await until(lambda: len(store.reads) == 2)
    store.reads[1].set()
    await until(lambda: sink.standing is Standing.LIVE)
    assert [Gap("slow", 3, 5), (6, "6")] == sink.story[3:]
    await broker.close()


async def test_who_is_cut_in_a_hole_is_told_of_it() -> None:
    """Ids within a hole say that it was not told, on whichever worker they come back.

    The one that knows the client has lost the first two events of "a"; another that it
    comes back to has them all, and would not see that anything was missed.
    """
    broker = await broker_on(store := MemoryStore(max_events=3))
    other = await broker_on(larger := MemoryStore())
    sink = await joined(broker, "a", "b", sink=Sink(room=1))
    sink.paused()
    for one in (store, larger):
        assert broker.lineage is not None
        larger.lineage = other._lineage = broker.lineage
        await put(one, "b", "1")
        await put(one, "a", "2", "3")
        await put(one, "b", "4")
        await put(one, "a", "5", "6", "7")
    sink.resumed()
    await until(lambda: sink.standing is Standing.PAUSED)
    assert ["1"] == sink.data
    ids = [block["id"] for block in blocks_of(sink.chunks[-1])]
    assert [broker.cursor(1).replace(".l.", ".h.")] == ids
    back = Sink()
    await rejoin(other, back, ("a", "b"), ids[-1])
    await until(lambda: back.standing is Standing.LIVE)
    assert [Gap("expired", 1, 1), (2, "2")] == back.story[:2]
    again = Sink()
    await rejoin(broker, again, ("a", "b"), ids[-1])
    await until(lambda: again.standing is Standing.LIVE)
    assert [Gap("expired", 1, 3), (4, "4")] == again.story[:2]


async def test_a_hole_ends_where_memory_goes_on() -> None:
    """What is still here comes behind the gap, though the store has it no more."""
    broker = await broker_on(store := LongStore())
    sink = await joined(broker, "a")
    sink.paused()
    await put(store, "a", "1", "2", "3")
    store.log, store.gone["a"] = [], 5
    sink.resumed()
    await until(lambda: store.reads)
    await put(store, "a", "4", "5")
    store.reads[0].set()
    await until(lambda: sink.standing is Standing.LIVE)
    assert [Gap("slow", 0, 3), (4, "4"), (5, "5")] == sink.story
    await broker.close()


# -- all of it, at random --------------------------------------------------------------


class Visitor:
    """A reader that comes and goes, and keeps its place as a client does."""

    def __init__(self, names: tuple[str, ...], start: int) -> None:
        self.names = names
        self.start = start
        self.sink = Sink()
        self._holes: list[tuple[int, int]] = []

    def leave(self, broker: Broker) -> None:
        """Leave, perhaps with a hole of which the end was not told yet."""
        following = self.sink.feed
        assert isinstance(following, Following)
        if following.hole_after >= 0:
            self._holes.append((len(self.sink.story), following.hole_after))
        if following.due is not None:
            self._holes.append((len(self.sink.story), seq_of(following.due[1])))
        broker.leave(self.sink)
        self.sink.blocked = False

    def story(self, by_seq: Mapping[int, Published]) -> list[Published | Gap]:
        """Return all that it was given; a hole begins where it was come upon first."""
        story: list[Published | Gap] = []
        for index, item in enumerate(self.sink.story):
            if not isinstance(item, Gap):
                story.append(by_seq[item[0]]._replace(data=item[1]))
                continue
            open_then = [after for at, after in self._holes if at <= index]
            self._holes = [hole for hole in self._holes if hole[0] > index]
            story.append(item._replace(after=min([item.after or 0, *open_then])))
        return story


@pytest.mark.parametrize("keeping", ["gap", "conflate"])
@pytest.mark.timeout(60)
@pytest.mark.usefixtures("turns_that_are_short")
async def test_each_event_once_in_order_or_a_gap(keeping: Keeping) -> None:
    """Whatever readers and writers do, at any retention, nothing is lost unsaid."""
    print(f"SSE_SEED={SEED}")  # noqa: T201 -- to run it again
    told = 0
    for number in range(15):
        rng = random.Random(f"{SEED} {number}")
        bounds: dict[str, Any] = {"max_events": rng.choice([1, 3, 20, 1000])}
        if rng.random() < 0.3:
            bounds["max_total_bytes"] = rng.choice([300, 3000])
        told += await _at_random(rng, MemoryStore(**bounds), keeping, f"{number}")
    assert told > 10, "gaps were to be seen"


async def _at_random(
    rng: random.Random, store: MemoryStore, keeping: Keeping, number: str
) -> int:
    broker = await broker_on(store)
    log: list[Published] = []
    visitors: list[Visitor] = []
    for step in range(rng.choice([30, 200])):
        action = rng.random()
        if action < 0.6:
            channel = rng.choice("abcde")
            key = rng.choice([None, "k", "l"]) if rng.random() < 0.9 else None
            texts = [f"{step}.{i}" for i in range(rng.choice([1, 1, 1, 2, 7]))]
            filler = "x" * rng.choice([0, 0, 0, 10, 40_000, 70_000])
            items = [Draft(d.lines, key) for d in drafts(*(t + filler for t in texts))]
            done = await store.append(channel, items)
            for seq, text in enumerate(texts, done.first):
                log.append(Published(seq, channel, text, key))
        elif action < 0.7:
            names = tuple(rng.sample("abcdef", rng.randrange(1, 5)))
            visitor = Visitor(names, broker.head)
            visitors.append(visitor)
            await joined(broker, *names, sink=visitor.sink, keeping=keeping)
        elif action < 0.75 and visitors:
            # It leaves, with what it was given, and comes back later.
            visitor = rng.choice(visitors)
            visitor.leave(broker)
            for _ in range(rng.randrange(3)):
                await asyncio.sleep(0)
            place = visitor.sink.last_id or broker.cursor(visitor.start)
            await rejoin(broker, visitor.sink, visitor.names, place, keeping)
        elif action < 0.9 and visitors:
            sink = rng.choice(visitors).sink
            if sink.blocked:
                sink.room = rng.choice([None, 1, 2])
                sink.resumed()
            else:
                sink.room = 1
        if rng.random() < 0.4:
            await asyncio.sleep(0)
    for visitor in visitors:
        visitor.sink.room = None
        if visitor.sink.blocked:
            visitor.sink.resumed()
    await until(lambda: all(v.sink.standing is Standing.LIVE for v in visitors))
    broker.settle()
    await until(lambda: all(broker.place_of(v.sink) == broker.head for v in visitors))
    by_seq = {event.seq: event for event in log}
    for visitor in visitors:
        where = f"SSE_SEED={SEED}, number {number}, {visitor.names}"
        try:
            check_story(
                visitor.story(by_seq),
                log,
                visitor.names,
                visitor.start,
                broker.head,
                conflated=keeping == "conflate",
            )
        except AssertionError as exc:
            raise AssertionError(f"{where}: {exc}") from None
    return sum(len(visitor.sink.gaps) for visitor in visitors)


# -- the end ---------------------------------------------------------------------------


async def test_the_end_is_told_to_all() -> None:
    """Who follows when the application ends is told, once for each telling."""
    broker = await broker_on(MemoryStore())
    sink = await joined(broker, "a")
    gone = await joined(broker, "a")
    broker.leave(gone)
    broker.end()
    assert ["stopped"] == [ending.kind for ending in sink.ends]
    assert not gone.ends
    assert broker.ended
    await broker.close()


async def test_a_following_says_what_its_reader_was_told() -> None:
    """The place moves with other channels' entries, the last id with one's own."""
    broker = await broker_on(store := MemoryStore())
    sink = await joined(broker, "a", "b")
    following = sink.feed
    assert isinstance(following, Following)
    await put(store, "a", "1")
    await turn()
    await put(store, "c", "2")
    await turn()
    assert (1, 2) == (following.told(sink), following.place_of(sink))
    await put(store, "b", "3")
    assert (3, 3) == (following.told(sink), following.place_of(sink))
    assert json.dumps(following.cursor(3)) == f'"{broker.cursor(3)}"'
