"""Subscriptions: a handler's own way to follow channels."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from aiohttp_sse_routes import (
    MemoryStore,
    ReplayGap,
    ServerSentEvent,
    SSERouteTableDef,
    get_sse,
    last_event_id,
)
from aiohttp_sse_routes.cursor import new_generation
from aiohttp_sse_routes.logs.entry import Lineage
from aiohttp_sse_routes.streams.feed import BURST
from aiohttp_sse_routes.streams.subscription import Subscription
from aiohttp_sse_routes.testing import SettableClock

from .helpers import Served, app_of, until
from .lifecycle import PROMPTLY, complaints
from .rooms import broker_of, seq_of, table_of_rooms
from .stores import put

Serve = Callable[..., Awaitable[Served]]
Log = pytest.LogCaptureFixture


async def room(serve: Serve, **bounds: Any) -> Served:
    """Return a served application with a store of such bounds."""
    return await serve(app_of(table_of_rooms(), store=MemoryStore(**bounds)))


async def take(subscription: Subscription, count: int) -> list[Any]:
    """Return the data of the next *count* items; a gap as what it says."""
    items: list[Any] = []
    async with asyncio.timeout(5):
        while len(items) < count:
            try:
                items.append((await anext(subscription)).data)
            except ReplayGap as gap:
                after = seq_of(gap.after) if gap.after else gap.after
                items.append((gap.reason, after, seq_of(gap.cursor)))
    return items


def followers(served: Served) -> int:
    """Return how many readers there are."""
    return len(list(broker_of(served).readers))


# -- what it gives ---------------------------------------------------------------------


async def test_it_gives_what_is_published_from_now_on(serve: Serve) -> None:
    """From the call on, not from the first iteration; in order, over all channels."""
    served = await room(serve)
    await served.sse.publish("a", "before")
    subscription = served.sse.subscribe("a", "b")
    await served.sse.publish("a", "1")
    await served.sse.publish("c", "not followed")
    await served.sse.publish_many("b", ["2", "3"])
    await served.sse.publish("a", "4")
    assert ["1", "2", "3", "4"] == await take(subscription, 4)
    waiting = asyncio.create_task(take(subscription, 1))
    await until(lambda: followers(served))
    await served.sse.publish("b", "5")
    assert ["5"] == await waiting


async def test_an_event_is_what_was_published(serve: Serve) -> None:
    """Its name, its data as an object where it was JSON, its cursor as the id."""
    served = await room(serve)
    subscription = served.sse.subscribe("a")
    cursor = await served.sse.publish("a", {"n": [1, None]}, event="named")
    event = await anext(subscription)
    assert isinstance(event, ServerSentEvent)
    assert ("named", {"n": [1, None]}, cursor) == (event.event, event.data, event.id)
    await served.sse.publish("a", '{"n": 1}')
    event = await anext(subscription)
    assert (None, '{"n": 1}') == (event.event, event.data)
    await served.sse.publish("a", "one\ntwo\r\n")
    assert "one\ntwo\n" == (await anext(subscription)).data


async def test_after_a_cursor_everything_comes(serve: Serve) -> None:
    """From any cursor that publishing returned, or the id of an event."""
    served = await room(serve)
    cursors = [await served.sse.publish("a", str(n)) for n in range(5)]
    for number, cursor in enumerate(cursors):
        subscription = served.sse.subscribe("a", after=cursor)
        assert [str(n) for n in range(number + 1, 5)] == await take(
            subscription, 4 - number
        )
    now = await served.sse.cursor("a")
    subscription = served.sse.subscribe("a", after=now)
    await served.sse.publish("a", "5")
    assert ["5"] == await take(subscription, 1)


async def test_no_cursor_is_now(serve: Serve) -> None:
    """What a page or a client without a place gives for it is no place at all."""
    served = await room(serve)
    await served.sse.publish("a", "before")
    subscriptions = [served.sse.subscribe("a", after=after) for after in (None, "")]
    await served.sse.publish("a", "1")
    for subscription in subscriptions:
        assert ["1"] == await take(subscription, 1)


@pytest.mark.parametrize(
    ("args", "options", "error"),
    [
        ((), {}, ValueError),
        (("",), {}, ValueError),
        ((1,), {}, TypeError),
        (("a",), {"after": 1}, TypeError),
    ],
)
async def test_wrong_arguments_are_refused(
    serve: Serve, args: Any, options: Any, error: type[Exception]
) -> None:
    """At the call, not at the first iteration."""
    served = await room(serve)
    with pytest.raises(error):
        served.sse.subscribe(*args, **options)


# -- holes -----------------------------------------------------------------------------


async def test_a_hole_raises_where_it_is_and_it_goes_on(serve: Serve) -> None:
    """Retained events below the hole's end, `ReplayGap`, then what is behind it."""
    served = await room(serve, max_events=3)
    await served.sse.publish("quiet", "1")
    await served.sse.publish("quiet", "2")
    await served.sse.publish_many("busy", [str(n) for n in range(3, 9)])
    after = broker_of(served).cursor(1)
    subscription = served.sse.subscribe("quiet", "busy", after=after)
    assert ["2", ("expired", 1, 5), "6", "7", "8"] == await take(subscription, 5)
    await served.sse.publish("quiet", "9")
    assert ["9"] == await take(subscription, 1)


async def test_who_is_too_slow_is_told(serve: Serve) -> None:
    """A subscription that was overtaken between two iterations has a hole."""
    served = await room(serve, max_events=3)
    subscription = served.sse.subscribe("a")
    await served.sse.publish("a", "1")
    assert ["1"] == await take(subscription, 1)
    for number in range(2, 10):
        await served.sse.publish("a", str(number))
    assert [("slow", 1, 6), "7", "8", "9"] == await take(subscription, 4)


@pytest.mark.parametrize(
    "after", ["garbage", "sse1.l.0123456789ab.5", f"sse1.r.{'A' * 22}.5", "sse1.l.x"]
)
async def test_what_is_no_place_is_a_gap_before_all(serve: Serve, after: str) -> None:
    """It is told first, with what was brought, and then it begins now."""
    served = await room(serve)
    await served.sse.publish("a", "before")
    subscription = served.sse.subscribe("a", after=after)
    with pytest.raises(ReplayGap) as caught:
        await anext(subscription)
    assert after == caught.value.after
    assert "unknown" == caught.value.reason or after.startswith("sse1.l.0")
    assert await served.sse.cursor() == caught.value.cursor
    await served.sse.publish("a", "1")
    assert ["1"] == await take(subscription, 1)


async def test_the_future_is_no_place(serve: Serve) -> None:
    """A place that the log has not come to is unknown, and not waited for."""
    served = await room(serve)
    await served.sse.publish("a", "1")
    after = broker_of(served).cursor(99)
    subscription = served.sse.subscribe("a", after=after)
    assert [("unknown", 99, 1)] == await take(subscription, 1)


async def test_another_log_is_a_reset(serve: Serve) -> None:
    """While it waits, and between two iterations, once for each."""
    store = MemoryStore()
    served = await serve(app_of(table_of_rooms(), store=store))
    waiting, resting = served.sse.subscribe("a"), served.sse.subscribe("a")
    await served.sse.publish("a", "1")
    assert ["1"] == await take(waiting, 1) == await take(resting, 1)
    task = asyncio.create_task(take(waiting, 2))
    await until(lambda: followers(served))
    store.begin(Lineage(new_generation()), 50)
    await served.sse.publish("a", "2")
    assert [("reset", 1, 50), "2"] == await task
    assert [("reset", 1, 51)] == await take(resting, 1)
    await served.sse.publish("a", "3")
    assert ["3"] == await take(waiting, 1) == await take(resting, 1)


async def test_a_gap_that_waits_survives_another_generation(serve: Serve) -> None:
    """What was found to be lost is told, also if the log forks before it could be."""
    store = MemoryStore(max_events=2)
    served = await serve(app_of(table_of_rooms(), store=store))
    await served.sse.publish("b", "1")
    await served.sse.publish_many("a", ["2", "3", "4", "5"])
    broker = broker_of(served)
    subscription = served.sse.subscribe("a", "b", after=broker.cursor(0))
    assert ["1"] == await take(subscription, 1)
    store.begin(Lineage(new_generation(), {broker.lineage.generation: 5}), 5)
    assert [("expired", 0, 3), "4", "5"] == await take(subscription, 3)


# -- life ------------------------------------------------------------------------------


async def test_who_only_holds_it_holds_nothing(serve: Serve) -> None:
    """Between two iterations, or forgotten, it is no reader, and is collected."""
    served = await room(serve)
    subscription = served.sse.subscribe("a")
    await served.sse.publish("a", "1")
    assert ["1"] == await take(subscription, 1)
    assert 0 == followers(served)
    gone = weakref.ref(subscription)
    del subscription
    gc.collect()
    assert gone() is None


async def test_who_does_not_take_is_given_no_more(serve: Serve) -> None:
    """What waits to be taken is one write's; for all else it is a place."""
    served = await room(serve)
    subscription = served.sse.subscribe("a")
    task = asyncio.create_task(anext(subscription))
    await until(lambda: followers(served))
    texts = [str(number) for number in range(5 * BURST)]
    for start in range(0, len(texts), BURST):
        # All in one turn of the loop, of which each is a write of its own.
        await put(broker_of(served).store, "a", *texts[start : start + BURST])
    assert BURST == len(subscription._items)
    assert texts == [(await task).data, *await take(subscription, len(texts) - 1)]


async def test_a_cancelled_iteration_loses_nothing(serve: Serve) -> None:
    """Whoever gives up waiting goes on later from where it was."""
    served = await room(serve)
    subscription = served.sse.subscribe("a")
    seen = []
    for number in range(6):
        task = asyncio.create_task(anext(subscription))
        await until(lambda t=task: followers(served) or t.done())  # type: ignore[misc]
        task.cancel()
        if number % 2:
            # In the same turn: it came too late for the one that was waiting.
            await served.sse.publish("a", str(number))
        with contextlib.suppress(asyncio.CancelledError):
            seen.append((await task).data)
        assert 0 == followers(served)
    await served.sse.publish("a", "last")
    assert 2 == len(seen)
    assert ["1", "3", "5", "last"] == seen + await take(subscription, 4 - len(seen))


async def test_closing_ends_the_iteration(serve: Serve) -> None:
    """Also one that waits; what was not taken is dropped."""
    served = await room(serve)
    async with served.sse.subscribe("a") as subscription:
        task = asyncio.create_task(anext(subscription, None))
        await until(lambda: followers(served))
        await subscription.aclose()
        assert await task is None
    assert 0 == followers(served)
    await served.sse.publish("a", "1")
    assert [] == [event async for event in subscription]


async def test_one_task_at_a_time(serve: Serve) -> None:
    """A second task that iterates is told so; the first is not disturbed."""
    served = await room(serve)
    subscription = served.sse.subscribe("a")
    task = asyncio.create_task(take(subscription, 1))
    await until(lambda: followers(served))
    with pytest.raises(RuntimeError, match="subscribe"):
        await anext(subscription)
    await served.sse.publish("a", "1")
    assert ["1"] == await task


async def test_several_subscriptions_are_apart(serve: Serve) -> None:
    """Each has its own place; who does not iterate costs the others nothing."""
    served = await room(serve)
    slow, fast = served.sse.subscribe("a", "b"), served.sse.subscribe("b", "a")
    for number in range(200):
        await served.sse.publish("ab"[number % 2], str(number))
        assert [str(number)] == await take(fast, 1)
    assert [str(number) for number in range(200)] == await take(slow, 200)


async def test_a_handler_filters_with_it(serve: Serve) -> None:
    """In a private run's generator: it ends with the client, and holds nothing then."""
    table = SSERouteTableDef()

    @table.sse_route("/even", resume=0)
    async def even(request: web.Request) -> AsyncIterator[Any]:
        sse = get_sse(request)
        async for event in sse.subscribe("n", after=last_event_id(request)):
            if int(event.data) % 2 == 0:
                yield {"half": int(event.data) // 2}

    served = await serve(app_of(table))
    async with served.stream("/even") as stream:
        await stream.next("sse-hello")
        await until(lambda: followers(served))
        await served.sse.publish_many("n", list(map(str, range(6))))
        events = await stream.collect(3)
        assert ['{"half":0}', '{"half":1}', '{"half":2}'] == [e.data for e in events]
    await until(lambda: not followers(served), timeout=PROMPTLY)


async def test_a_handler_resumes_by_the_cursors(serve: Serve) -> None:
    """Events that are passed on can be given ids of the handler's own, and resumed."""
    table = SSERouteTableDef()

    @table.sse_route("/own")
    async def own(request: web.Request) -> AsyncIterator[Any]:
        sse, brought = get_sse(request), last_event_id(request)
        after = brought and brought.removeprefix("my-")
        async for event in sse.subscribe("n", after=after):
            yield ServerSentEvent(f"={event.data}", id=f"my-{event.id}")

    served = await serve(app_of(table))
    stream = await served.stream("/own").open()
    await stream.next("sse-hello")
    await until(lambda: followers(served))
    await served.sse.publish("n", "1")
    assert "=1" == (await stream.next()).data
    stream.drop()
    await served.sse.publish("n", "2")
    await stream.open()
    assert "=2" == (await stream.next()).data
    assert not stream.gaps
    stream.drop()


async def test_it_ends_when_the_application_does(
    serve: Serve, clock: SettableClock, caplog: Log
) -> None:
    """Who waits stops; so does who iterates then, or only later; nothing is logged."""
    seen: list[Any] = []
    table = SSERouteTableDef()

    @table.sse_route("/private")
    async def private(request: web.Request) -> AsyncIterator[Any]:
        async for event in get_sse(request).subscribe("a"):
            yield event.data

    async def plain(request: web.Request) -> web.Response:
        seen.extend([event.data async for event in get_sse(request).subscribe("a")])
        return web.Response()

    async def background(subscription: Subscription) -> str:
        seen.extend([event.data async for event in subscription])
        return "ended"

    app = app_of(table)
    app.router.add_get("/plain", plain)
    served = await serve(app)
    resting = served.sse.subscribe("a")
    task = asyncio.create_task(background(served.sse.subscribe("a")))
    request = asyncio.create_task(served.get("/plain"))
    stream = await served.stream("/private").open()
    await until(lambda: followers(served) == 3)
    await served.sse.publish("a", "1")
    assert "1" == (await stream.next()).data
    async with asyncio.timeout(PROMPTLY):
        await served.runner.cleanup()
        assert "ended" == await task
        assert [] == [event async for event in resting]
    with contextlib.suppress(Exception):
        await request
    await stream.rest()
    stream.drop()
    assert ["1", "1"] == seen
    assert [] == complaints(caplog)


class LateStore(MemoryStore):
    """A store that is reached when it is told to be."""

    async def open(self, follower: Any, *, now: Callable[[], float]) -> None:
        await super().open(None, now=now)
        self.lineage = None
        self._later = follower

    def reach(self) -> None:
        """Be reached."""
        self._follower = self._later
        self.begin(Lineage(new_generation()), 0)


async def test_it_waits_for_a_store_that_was_not_reached_yet(serve: Serve) -> None:
    """Made before that, it begins when the store is there; or ends with the rest."""
    store = LateStore()
    served = await serve(app_of(table_of_rooms(), store=store))
    subscription, other = served.sse.subscribe("a"), served.sse.subscribe("a")
    task = asyncio.create_task(take(subscription, 1))
    await asyncio.sleep(0)
    assert not task.done()
    store.reach()
    await until(lambda: followers(served))
    await served.sse.publish("a", "1")
    assert ["1"] == await task
    del other

    late = LateStore()
    served = await serve(app_of(table_of_rooms(), store=late))
    waiting = asyncio.create_task(anext(served.sse.subscribe("a"), None))
    await asyncio.sleep(0)
    await served.close()
    assert await waiting is None
