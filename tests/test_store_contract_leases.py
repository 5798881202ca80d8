"""What every store promises of leases: one holder at a time, and proof at each append.

Law: as in test_store_contract. Where a test needs a lease to run out it is short; where
it needs one to last it is long: nothing depends on how fast the machine is.
"""

from __future__ import annotations

import asyncio
import math

import pytest

from aiohttp_sse_routes.errors import LeaseLost
from aiohttp_sse_routes.logs.entry import Fence
from aiohttp_sse_routes.logs.store import Store

from .stores import Stores, eventually, put, read_all

LONG = 60.0
SHORT = 0.1


async def take(
    store: Store, name: str, holder: str, seconds: float = LONG, *, wanted: bool = True
) -> Fence | None:
    """Ask for the lease *name*; return its proof if it is *holder*'s."""
    number = (await store.lease(name, holder, seconds, wanted=wanted)).number
    return None if number is None else Fence(name, number)


async def hold(store: Store, name: str, holder: str, seconds: float = LONG) -> Fence:
    """Return the proof of a lease, as soon as it can be had."""
    found: list[Fence] = []

    async def held() -> bool:
        fence = await take(store, name, holder, seconds)
        found.extend([fence] if fence is not None else [])
        return fence is not None

    await eventually(held, what=f"{holder} holds {name}")
    return found[0]


async def refused(store: Store, fence: Fence, channel: str = "c") -> None:
    """Check that an append under *fence* is refused, and appends nothing."""
    head = await store.head()
    with pytest.raises(LeaseLost):
        await put(store, channel, "late", fence=fence)
    assert head == await store.head()


async def test_one_holds_it_at_a_time(stores: Stores) -> None:
    """While one holds a lease no other is given it, whichever worker it asks."""
    one, other = await stores.workers(2)
    fence = await take(one.store, "l", "one")
    assert fence is not None
    assert await take(other.store, "l", "other") is None
    assert await take(one.store, "l", "other") is None
    assert fence == await take(one.store, "l", "one"), "a renewal is the same lease"
    assert await take(other.store, "another ü:\n", "other") is not None


async def test_of_many_that_ask_at_once_one_has_it(stores: Stores) -> None:
    """However many ask at the same moment, one is told that it holds the lease."""
    workers = await stores.workers(2)
    for turn in range(5):
        fences = await asyncio.gather(
            *(take(workers[n % 2].store, f"{turn}", f"{n}") for n in range(16))
        )
        assert 1 == sum(fence is not None for fence in fences)


async def test_a_lease_that_has_run_out_is_another_s(stores: Stores) -> None:
    """After its time another has it, with a higher number, and the first is refused."""
    one, other = await stores.workers(2)
    numbers = [0]
    for turn in range(4):
        worker = (one, other)[turn % 2]
        fence = await hold(worker.store, "l", f"{turn}", SHORT)
        assert fence.number > numbers[-1]
        for number in numbers[1:]:
            await refused(one.store, Fence("l", number))
        numbers.append(fence.number)


async def test_an_append_after_its_time_is_refused(stores: Stores) -> None:
    """A lease that ran out is of no use, also when nobody else has taken it."""
    [worker] = await stores.workers(1)
    fence = await hold(worker.store, "l", "one", SHORT)

    async def lost() -> bool:
        try:
            await put(worker.store, "c", "x", fence=fence)
        except LeaseLost:
            return True
        return False

    await eventually(lost)
    await refused(worker.store, fence)


async def test_a_renewed_lease_lasts(stores: Stores) -> None:
    """Renewed before its time is over it lasts from the renewal, not from the start."""
    one, other = await stores.workers(2)
    fence = await hold(one.store, "l", "one", 1.0)
    await hold(one.store, "clock", "one", 1.0)
    assert fence == await take(one.store, "l", "one", LONG)
    # Who is given this one, knows that a second has passed for the store.
    await hold(other.store, "clock", "other")
    await put(one.store, "c", "in time", fence=fence)
    assert await take(other.store, "l", "other") is None


async def test_a_lease_may_be_shortened(stores: Stores) -> None:
    """Its time is what was asked for last."""
    one, other = await stores.workers(2)
    await hold(one.store, "l", "one", LONG)
    await take(one.store, "l", "one", SHORT)
    await hold(other.store, "l", "other")


async def test_under_its_lease_a_holder_appends(stores: Stores) -> None:
    """The proof is good for any channel, from any worker, as often as is needed."""
    one, other = await stores.workers(2)
    fence = await hold(one.store, "l", "one")
    await put(one.store, "c", "a", "b", fence=fence)
    await put(other.store, "d", "c", fence=fence)
    assert 3 == len((await read_all(one.store, ["c", "d"]))[0])


@pytest.mark.parametrize("name", ["l", "never asked for"])
async def test_a_proof_that_never_was_is_refused(stores: Stores, name: str) -> None:
    """A number that nobody was given appends nothing."""
    [worker] = await stores.workers(1)
    fence = await hold(worker.store, "l", "one")
    await refused(worker.store, Fence(name, fence.number + 1))
    await refused(worker.store, Fence("never asked for", fence.number))


async def test_a_refusal_stands_above_a_repetition(stores: Stores) -> None:
    """Who has lost the lease is told so also where its key was published by it."""
    one, other = await stores.workers(2)
    fence = await hold(one.store, "l", "one")
    await put(one.store, "c", "a", fence=fence, idempotency_key="k")
    await one.store.release(fence)
    await hold(other.store, "l", "other")
    with pytest.raises(LeaseLost):
        await put(one.store, "c", "a", fence=fence, idempotency_key="k")
    with pytest.raises(LeaseLost):
        await put(one.store, "c", "b", fence=fence, idempotency_key="new")
    # What was refused has left no trace: its key is still free.
    assert not (await put(one.store, "c", "b", idempotency_key="new")).repeated


async def test_one_refusal_among_many_harms_no_other(stores: Stores) -> None:
    """Appends that wait together with one that is refused are there, each whole."""
    [worker] = await stores.workers(1)
    fence = await hold(worker.store, "l", "one")
    tasks = [
        asyncio.create_task(
            put(
                worker.store,
                "c",
                f"{n}",
                "x",
                fence=Fence("l", fence.number + n % 3),
            )
        )
        for n in range(30)
    ]
    await asyncio.wait(tasks)
    for number, task in enumerate(tasks):
        if number % 3:
            assert isinstance(task.exception(), LeaseLost)
        else:
            assert task.result().last == task.result().first + 1
    entries, _ = await read_all(worker.store, ["c"])
    assert 20 == len(entries)
    assert [entry.prev for entry in entries[1:]] == [e.seq for e in entries[:-1]]


async def test_a_lease_that_is_given_back_is_free(stores: Stores) -> None:
    """At once another has it; who gave it back appends no more."""
    one, other = await stores.workers(2)
    fence = await hold(one.store, "l", "one")
    await one.store.release(fence)
    await refused(one.store, fence)
    then = await take(other.store, "l", "other")
    assert then is not None
    assert then.number > fence.number
    await one.store.release(fence)
    await put(other.store, "c", "a", fence=then)
    assert await take(one.store, "l", "one") is None


async def test_giving_back_what_was_never_given_is_nothing(stores: Stores) -> None:
    """A lease that nobody knows may be released."""
    [worker] = await stores.workers(1)
    await worker.store.release(Fence("l", 1))
    assert await take(worker.store, "l", "one") is not None


async def test_who_wants_it_is_noted_for_the_holder(stores: Stores) -> None:
    """Each answer says how long ago anybody wanted it, also to who does not."""
    one, other = await stores.workers(2)

    async def wanted(store: Store, holder: str, *, wanted: bool) -> float:
        return (await store.lease("l", holder, LONG, wanted=wanted)).wanted

    assert math.inf == await wanted(one.store, "one", wanted=False)
    assert math.inf == await wanted(other.store, "other", wanted=False)
    assert 0 <= await wanted(other.store, "other", wanted=True) < LONG
    seen = await wanted(one.store, "one", wanted=False)
    assert 0 <= seen < LONG

    async def longer_ago() -> bool:
        return await wanted(one.store, "one", wanted=False) >= seen + 0.05

    await eventually(longer_ago)
    before = await wanted(one.store, "one", wanted=False)
    assert await wanted(one.store, "one", wanted=True) < before
