"""``on_slow="conflate"``: who was overtaken is given the newest event by key."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from aiohttp_sse_routes import MemoryStore
from aiohttp_sse_routes.testing import EventStream, SettableClock

from .helpers import Served, app_of
from .lifecycle import connections_of
from .rooms import seq_of, table_of_rooms
from .test_channels import data, go_on, opened, resumed, slow_client, stories

Serve = Callable[..., Awaitable[Served]]


async def room(serve: Serve, **bounds: Any) -> Served:
    """Return a served application that conflates, with a store of such bounds."""
    table = table_of_rooms(on_slow="conflate")
    return await serve(app_of(table, store=MemoryStore(**bounds)))


async def prices(served: Served, channel: str, rounds: int, keys: str = "xyz") -> None:
    """Publish so many rounds of prices by key."""
    for number in range(rounds):
        for key in keys:
            await served.sse.publish(channel, f"{key}{number}", key=key)


async def filled(served: Served, path: str = "/rooms/a") -> EventStream:
    """Return a client that does not read, and whose transport takes no more."""
    stream = await slow_client(served, path)
    while not any(c.blocked for c in connections_of(served)):
        await served.sse.publish("a", "-" * 200_000, key="filler")
    return stream


async def rest(stream: EventStream, last: str) -> list[str]:
    """Return the data of what comes, but the filler, through *last*."""
    found: list[str] = []
    while last not in found:
        event = await stream.next()
        if event.data[0] != "-":
            found.append(event.data)
    return found


async def test_the_newest_by_key_comes_in_order(serve: Serve) -> None:
    """Without a gap; then what is published, and the ids only grow."""
    served = await room(serve, max_events=4)
    stream = await filled(served)
    await prices(served, "a", 10)
    await served.sse.publish("a", "x10", key="x")
    go_on(stream)
    # What the ring holds still comes as it is, but for what is superseded.
    assert ["y9", "z9", "x10"] == await rest(stream, "x10")
    await served.sse.publish("a", "y10", key="y")
    await served.sse.publish("a", "x11", key="x")
    assert ["y10", "x11"] == await data(stream, 2)
    assert not stream.gaps
    numbers = [seq_of(event.id) for event in stream.events]
    assert sorted(set(numbers)) == numbers
    stream.drop()


async def test_who_is_fast_gets_everything(serve: Serve) -> None:
    """Nothing is left out for a client that was not overtaken."""
    served = await room(serve, max_events=4)
    stream = await opened(served, "/rooms/a")
    for number in range(10):
        await prices(served, "a", 1)
        assert ["x0", "y0", "z0"] == await data(stream, 3), number
    stream.drop()


async def test_events_without_a_key_are_a_gap(serve: Serve) -> None:
    """One that was lost has nothing that stands for it: then all is told."""
    served = await room(serve, max_events=4)
    stream = await filled(served)
    await prices(served, "a", 1)
    await served.sse.publish("a", "unkeyed")
    await prices(served, "a", 3)
    go_on(stream)
    assert ["z1", "x2", "y2", "z2"] == await rest(stream, "z2")
    [gap] = stream.gaps
    assert "slow" == gap["reason"]
    stream.drop()


async def test_an_event_without_a_key_that_is_kept_comes(serve: Serve) -> None:
    """It stands where it stood, between the newest by key."""
    served = await room(serve, max_events=4)
    stream = await filled(served)
    await prices(served, "a", 5)
    await served.sse.publish("a", "unkeyed")
    await served.sse.publish("a", "x9", key="x")
    go_on(stream)
    assert ["y4", "z4", "unkeyed", "x9"] == await rest(stream, "x9")
    assert not stream.gaps
    stream.drop()


async def test_who_comes_back_is_conflated_too(serve: Serve) -> None:
    """An expired place is none where the newest by key are all that is missed."""
    served = await room(serve, max_events=4)
    stream = await opened(served, "/rooms/a+b")
    await prices(served, "a", 1)
    assert ["x0", "y0", "z0"] == await data(stream, 3)
    stream.drop()
    await prices(served, "a", 9)
    await served.sse.publish("b", "b")
    await stream.open()
    assert ["x8", "y8", "z8", "b"] == await stories(stream, 4)
    assert "continued" == resumed(stream)
    stream.drop()


@pytest.mark.parametrize("changes", [0, 1, 7])
async def test_a_drop_in_the_midst_of_it_loses_nothing(
    serve: Serve, changes: int
) -> None:
    """After any part of what it was given, the newest of all keys come to be known."""
    served = await room(serve, max_events=4)
    keys = "vwxyz"
    await prices(served, "a", 3, keys)
    for count in range(len(keys) + 1):
        place = await served.sse.cursor("a")
        await prices(served, "a", 3, keys)
        stream = await opened(served, "/rooms/a", last_event_id=place)
        newest = {text[0]: text[1:] for text in await data(stream, count)}
        stream.drop()
        for number in range(changes):
            await served.sse.publish("a", f"y{number + 3}", key="y")
        await served.sse.publish("a", "end", key="end")
        await stream.open()
        while "e" not in newest:
            text = (await stream.next()).data
            newest[text[0]] = text[1:]
        y = str(changes + 2)
        assert {**dict.fromkeys(keys, "2"), "y": y, "e": "nd"} == newest, count
        assert "continued" == resumed(stream)
        assert not stream.gaps
        numbers = [seq_of(event.id) for event in stream.events]
        assert sorted(set(numbers)) == numbers
        stream.drop()


@pytest.mark.timeout(60)
async def test_a_catch_up_of_many_batches_is_whole(
    serve: Serve, clock: SettableClock
) -> None:
    """More than goes into one write, with new events in between: each key's newest."""
    served = await room(serve, max_events=100, max_bytes=10_000_000)
    keys = [f"key{number}" for number in range(80)]
    place = await served.sse.cursor("a")
    for number in range(3):
        for key in keys:
            text = f"{key}.{number} ".ljust(5000, "x")
            await served.sse.publish("a", text, key=key)
    stream = served.stream("/rooms/a", last_event_id=place)
    await stream.open()
    newest: dict[str, str] = {}
    for number in range(3, 6):
        await asyncio.sleep(0)
        for key in keys[::7]:
            text = f"{key}.{number} ".ljust(5000, "x")
            await served.sse.publish("a", text, key=key)
    await served.sse.publish("a", "end.0")
    last = 0
    while "end" not in newest:
        event = await stream.next()
        assert seq_of(event.id) > last
        last = seq_of(event.id)
        key, _, number_text = event.data.rstrip("x ").partition(".")
        assert newest.get(key, "") < number_text
        newest[key] = number_text
    assert {k: "5" if k in keys[::7] else "2" for k in keys} | {"end": "0"} == newest
    assert not stream.gaps
    stream.drop()


async def test_more_keys_than_are_kept_are_a_gap(serve: Serve) -> None:
    """The newest of a key may go too; then it is said."""
    served = await room(serve, max_events=4)
    place = await served.sse.cursor("a")
    await prices(served, "a", 1, "abcdefghijkl")
    stream = await opened(served, "/rooms/a", last_event_id=place)
    assert "gap" == resumed(stream)
    assert [("expired", 0, 8), "i0", "j0", "k0", "l0"] == await stories(stream, 5)
    stream.drop()


async def test_keys_are_a_channels_own(serve: Serve) -> None:
    """The same key in two channels is two."""
    served = await room(serve, max_events=2)
    place = await served.sse.cursor()
    for number in range(5):
        await served.sse.publish("a", f"a{number}", key="k")
        await served.sse.publish("b", f"b{number}", key="k")
    stream = await opened(served, "/rooms/a+b", last_event_id=place)
    assert ["a4", "b4"] == await stories(stream, 2)
    stream.drop()
