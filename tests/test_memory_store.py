"""The store of one process: what it does beside keeping the contract of every store.

Time is set here, so that what takes minutes takes none.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from aiohttp_sse_routes.errors import ConfigurationError, LeaseLost
from aiohttp_sse_routes.logs.entry import Bounds, Fence
from aiohttp_sse_routes.logs.memory import MemoryStore
from aiohttp_sse_routes.testing import SettableClock

from .stores import Recorder, put, read_all


@pytest.fixture
async def store(clock: SettableClock) -> AsyncIterator[MemoryStore]:
    """An open store whose time is set."""
    store = MemoryStore(max_age=100)
    await store.open(None, now=clock.now)
    yield store
    await store.close()


async def test_an_append_is_handed_on_before_it_returns(clock: SettableClock) -> None:
    """Nothing waits here: who follows has it before the publisher goes on."""
    store, recorder = MemoryStore(), Recorder()
    await store.open(recorder, now=clock.now)
    done = await put(store, "c", "a", "b")
    assert [done.first, done.last] == [entry.seq for entry in recorder.entries]
    # The tail is all there is, so that nothing is ever read from the store.
    assert store.complete
    assert not store.shared
    assert recorder.blocks == store.tail.after(["c"], 0, done.last, 1000)[0]
    await store.close()


async def test_an_age_counts_from_the_append(
    store: MemoryStore, clock: SettableClock
) -> None:
    """Whoever begins to read is not given what is too old, tick or no tick."""
    places = []
    for _ in range(3):
        places.append((await put(store, "c", "a")).last)
        await clock.advance(0.25)
    floors = []
    await clock.advance(99)
    for _ in range(4):
        store.refresh()
        floors.append(store.tail.floor("c"))
        await clock.advance(0.25)
    # The third may live as long as the second, a 64th of the age longer.
    assert [0, places[0], places[0], places[2]] == floors


async def test_a_key_is_known_for_five_minutes(
    store: MemoryStore, clock: SettableClock
) -> None:
    """It is known until then, not any longer, and then takes no memory."""
    first = await put(store, "c", "a", idempotency_key="k")
    await clock.advance(299)
    store.tick(clock.now())
    assert (await put(store, "c", "a", idempotency_key="k")).first == first.first
    await clock.advance(1)
    again = await put(store, "c", "a", idempotency_key="k")
    assert (first.last + 1, False) == (again.first, again.repeated)
    for number in range(100):
        await put(store, "c", "a", idempotency_key=f"{number}")
    await clock.advance(200)
    await put(store, "c", "a", idempotency_key="last")
    await clock.advance(150)
    store.tick(clock.now())
    assert [("c", "last")] == list(store._published)


async def test_an_age_is_the_applications_time(
    store: MemoryStore, clock: SettableClock
) -> None:
    """Events go when they are older than their age, on the tick, and are told."""
    done = await put(store, "c", "a")
    for _ in range(100):
        store.tick(clock.now())
        await clock.advance(1)
        assert [1] == [entry.seq for entry in (await read_all(store, ["c"]))[0]]
    await put(store, "d", "b")
    for _ in range(3):
        store.tick(clock.now())
        await clock.advance(1)
    assert ([], {"c": done.last}) == await read_all(store, ["c"])
    assert 1 == len((await read_all(store, ["d"]))[0])


async def test_a_lease_is_measured_to_the_moment(
    store: MemoryStore, clock: SettableClock
) -> None:
    """It lasts for its time and ends with it; who wanted it, how long ago, is told."""
    mine = (await store.lease("l", "one", 10, wanted=True)).number
    assert mine is not None
    await clock.advance(9.5)
    assert (None, 9.5) == await store.lease("l", "other", 10, wanted=False)
    await put(store, "c", "a", fence=Fence("l", mine))
    await clock.advance(0.5)
    with pytest.raises(LeaseLost):
        await put(store, "c", "a", fence=Fence("l", mine))
    then = await store.lease("l", "other", 10, wanted=False)
    assert then.number is not None
    assert (then.number > mine, then.wanted) == (True, 10)


async def test_a_lease_that_nobody_wants_is_forgotten(
    store: MemoryStore, clock: SettableClock
) -> None:
    """Names that are never asked for again take no memory; their numbers still grow."""
    first = await store.lease("l", "one", 10, wanted=True)
    held = await store.lease("held", "one", 1e6, wanted=False)
    await clock.advance(3000)
    store.tick(clock.now())
    assert {"l", "held"} == set(store._leases), "it was wanted within the hour"
    await clock.advance(1000)
    store.tick(clock.now())
    assert {"held"} == set(store._leases)
    assert held.number is not None
    await put(store, "c", "a", fence=Fence("held", held.number))
    then = await store.lease("l", "one", 10, wanted=False)
    assert first.number is not None
    assert then.number is not None
    assert then.number > first.number


async def test_all_channels_share_one_bound(clock: SettableClock) -> None:
    """Over the bytes of all channels the oldest go, and that is told of each."""
    store = MemoryStore(max_total_bytes=1000)
    await store.open(None, now=clock.now)
    for number in range(50):
        await put(store, f"c{number}", "x" * 50)
    held = [n for n in range(50) if (await read_all(store, [f"c{n}"]))[0]]
    assert held == list(range(50 - len(held), 50))
    assert 8 <= len(held) <= 20
    for number in range(50):
        gone = {} if number in held else {f"c{number}": number + 1}
        assert gone == (await read_all(store, [f"c{number}"]))[1]
    await store.close()


async def test_bounds_of_a_channel_hold_from_its_first_event(
    store: MemoryStore,
) -> None:
    """A channel may hold more, or less, than the store's others."""
    for number in range(20):
        await put(store, "c", f"{number}", bounds=Bounds(max_events=3))
        await put(store, "d", f"{number}")
    assert 3 == len((await read_all(store, ["c"]))[0])
    assert 20 == len((await read_all(store, ["d"]))[0])


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_events": 0},
        {"max_events": 1.5},
        {"max_age": 0},
        {"max_age": "1h"},
        {"max_bytes": -1},
        {"max_total_bytes": "1M"},
        {"max_total_bytes": True},
        {"max_total_bytes": 0},
    ],
)
def test_a_wrong_bound_is_an_error_at_once(wrong: dict[str, int]) -> None:
    """It is told at construction, by its name."""
    [name] = wrong
    with pytest.raises(ConfigurationError, match=f"{name}="):
        MemoryStore(**wrong)
