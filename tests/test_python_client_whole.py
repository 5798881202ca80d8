"""The Python client as a whole: given up anywhere, events by the million, comments.

Law: what is lost, left open or heaped up is looked for at every turn of the loop, and
not only where somebody thought of it.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import aiohttp
import psutil
import pytest

from aiohttp_sse_routes.client import (
    Event,
    Reconnect,
    SseConnectionError,
    SseError,
    SseHTTPError,
    StateInfo,
    Stream,
    connect,
)
from aiohttp_sse_routes.testing import SettableClock

from .helpers import no_tasks_left, until
from .scripted import Act, Scripted, answer, scripted, stream
from .test_python_client import HEAD, control, endless, sends
from .test_python_client_rows import LeapingClock

LAST = 6
TURNS = 600
"""More turns of the loop than any of these scenarios has."""


def numbered(server: Callable[[], Scripted], last: int = LAST) -> Act:
    """Return a connection that goes on from the last event ID, two events at a time.

    Some are refused before, and some have no answer; behind *last* there is nothing.
    """

    async def act(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        place = int(server().header(-1, "Last-Event-ID") or 0)
        if server().opened % 4 == 1:
            writer.write(b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy")
        elif server().opened % 4 == 3:
            return
        elif place == last:
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        else:
            writer.write(HEAD)
            for number in (place + 1, place + 2):
                writer.write(b"id: %d\ndata: %d\n\n" % (number, number))
                await writer.drain()

    return act


async def given_up(work: Coroutine[Any, Any, None], turns: int) -> bool:
    """Do *work*, and give it up after *turns* of the loop; return whether it was."""
    task = asyncio.create_task(work)
    for _ in range(turns):
        if task.done():
            break
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.result()
    return task.cancelled()


async def at_every_turn(scenario: Callable[[int], Awaitable[bool]]) -> None:
    """Play *scenario*, given up at each turn of the loop until it is over before.

    Nothing may be left of it: no task, no connection, no session.
    """
    before = asyncio.all_tasks()
    for turns in range(TURNS):
        if not await scenario(turns):
            assert turns > 50
            break
    else:
        pytest.fail("the scenario never comes to its end")
    await no_tasks_left(before)
    # What was not closed says so when it is collected, and warnings are errors.
    gc.collect()


# Given up anywhere


@pytest.mark.timeout(60)
async def test_a_follower_that_is_given_up_at_any_turn() -> None:
    """One who goes on where it was has each event once; a session is left clean."""

    async def scenario(turns: int) -> bool:
        server: Scripted
        seen: list[str] = []
        place = ""

        async def follow() -> None:
            nonlocal place
            one = connect(
                server.base,
                session=session,
                last_event_id=place,
                clock=LeapingClock(),
            )
            async with one:
                async for event in one:
                    seen.append(event.data)
                    place = one.last_event_id

        async with (
            scripted(*[numbered(lambda: server)] * 30) as server,
            aiohttp.ClientSession() as session,
        ):
            was_given_up = await given_up(follow(), turns)
            assert session.connector is not None
            assert not session.connector._acquired
            await follow()
        assert seen == [str(n) for n in range(1, LAST + 1)], turns
        return was_given_up

    await at_every_turn(scenario)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("batch", [1, 2, 3])
async def test_a_wait_that_is_given_up_at_any_turn(batch: int) -> None:
    """One who asks again on the same stream has each event once, and no other."""

    async def scenario(turns: int) -> bool:
        server: Scripted
        seen: list[str] = []
        async with (
            scripted(*[numbered(lambda: server)] * 30) as server,
            connect(server.base, clock=LeapingClock()) as one,
        ):

            async def follow() -> None:
                while len(seen) < LAST:
                    seen.extend(event.data for event in await one.collect(batch))

            was_given_up = await given_up(follow(), turns)
            await follow()
        assert seen == [str(n) for n in range(1, LAST + 1)], turns
        return was_given_up

    await at_every_turn(scenario)


@pytest.mark.timeout(60)
async def test_a_batch_that_is_given_up_at_any_turn() -> None:
    """What was not acknowledged comes again, in its order; what was does not."""

    async def scenario(turns: int) -> bool:
        server: Scripted
        done: list[str] = []
        place = ""

        async def work(one: Stream) -> None:
            nonlocal place
            while len(done) < LAST:
                batch: list[Event] = await one.collect(3)
                await asyncio.sleep(0)  # what is done with it
                done.extend(event.data for event in batch)
                one.ack(batch[-1])
                place = one.last_event_id

        async def follow() -> None:
            async with connect(
                server.base, last_event_id=place, ack="manual", clock=LeapingClock()
            ) as one:
                await work(one)

        async with scripted(*[numbered(lambda: server)] * 30) as server:
            was_given_up = await given_up(follow(), turns)
            await follow()
        assert done == [str(n) for n in range(1, LAST + 1)], turns
        return was_given_up

    await at_every_turn(scenario)


async def test_what_collect_had_at_the_end() -> None:
    """Events that are fewer than were asked for are not lost with the stream's end."""
    text = "data: 1\n\ndata: 2\n\n" + control("sse-end", {"reason": "finished"})
    async with (
        scripted(stream(text)) as server,
        connect(server.base) as one,
    ):
        with pytest.raises(SseError, match="ended"):
            await one.collect(3)
        assert [event.data for event in await one.collect(2)] == ["1", "2"]
        with pytest.raises(SseError, match="ended"):
            await one.next()


# Memory


async def test_hundreds_of_thousands_of_events_in_the_memory_of_a_few() -> None:
    """Memory does not grow with the events that have passed."""
    chunk = b"".join(
        b': note\nid: %d\nevent: price\ndata: {"n": %d, "text": "%b"}\n\n'
        % (n, n, b"x" * 40)
        for n in range(1000)
    )
    process = psutil.Process()
    async with scripted(endless(chunk)) as server, connect(server.base) as one:
        comments = one.comments()

        async def pass_by(count: int) -> int:
            async for _ in one:
                count -= 1
                if not count:
                    break
            gc.collect()
            return process.memory_info().rss

        before = await pass_by(30_000)
        after = await pass_by(300_000)
        assert after - before < 4 << 20
        assert await anext(comments) == "note"


# Comments


async def test_comments() -> None:
    """Those that come from then on are iterated over, until the stream ends."""
    text = [": before\n\ndata: 1\n\n", ":  a\n\n", ":\n: b\n\n"]
    seen = asyncio.Event()

    async def act(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + text[0].encode())
        await seen.wait()
        for more in text[1:]:
            writer.write(more.encode())

    async with (
        scripted(act, stream(": c\n\n"), answer(204)) as server,
        connect(server.base, clock=LeapingClock()) as one,
    ):
        assert (await one.next()).data == "1"
        comments = one.comments()
        seen.set()
        assert [text async for text in comments] == [" a", "", "b", "c"]


async def test_comments_beside_events() -> None:
    """Both can be iterated over at the same time, and neither has what is other's."""
    text = "".join(f": {n}\ndata: {n}\n\n" for n in range(50))
    chunks = [text[at : at + 7].encode() for at in range(0, len(text), 7)]
    async with (
        scripted(sends(*chunks), answer(204)) as server,
        connect(server.base, clock=LeapingClock()) as one,
    ):
        comments = one.comments()

        async def look() -> list[str]:
            return [text async for text in comments]

        looking = asyncio.create_task(look())
        events = [event.data async for event in one]
        assert events == await looking == [str(n) for n in range(50)]


async def test_comments_wait_for_who_takes_the_events() -> None:
    """A comment takes no event away, and one who looks at comments is never early."""
    text = control("sse-hello", {"heartbeat": 15, "resumed": "fresh"}, id="1")
    first = text.encode() + b"data: x\n\n"
    go = asyncio.Event()

    async def act(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + first)
        await go.wait()
        writer.write(b": still here\n\n")
        await reader.read()

    async with scripted(act) as server, connect(server.base) as one:
        comments = one.comments()
        looking = asyncio.ensure_future(anext(comments))
        await until(lambda: one.resumed)
        go.set()
        assert (await one.next()).data == "x"
        assert await looking == "still here"


async def test_comments_that_nobody_looks_at() -> None:
    """The newest are kept, a thousand at most and a million characters."""
    short = b"".join(b": %d\n" % n for n in range(5000)) + b"data: x\n\n"
    long = (b": " + b"y" * 400_000 + b"\n") * 5 + b"data: x\n\n"
    async with scripted(sends(short, hold=True), sends(long, hold=True)) as server:
        for kept in (["4000", "4999"], ["y" * 400_000] * 2):
            async with connect(server.base) as one:
                comments = one.comments()
                await one.next()
            left = [text async for text in comments]
            assert [left[0], left[-1]] == kept
            assert len(left) in (1000, 2)


async def test_an_error_reaches_those_who_look_at_comments() -> None:
    """What ends the stream is told to them too, and not kept from the others."""
    async with (
        scripted(stream(": a\n\n"), answer(404)) as server,
        connect(server.base, clock=LeapingClock()) as one,
    ):
        comments = one.comments()
        assert await anext(comments) == "a"
        with pytest.raises(SseHTTPError):
            await anext(comments)
        with pytest.raises(SseHTTPError):
            await one.next()
        with pytest.raises(StopAsyncIteration):
            await anext(comments)


async def test_comments_that_are_given_up() -> None:
    """One who no longer waits for comments keeps nobody from the events."""
    go = asyncio.Event()

    async def act(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)
        await go.wait()
        writer.write(b"data: x\n\n")
        await reader.read()

    async with scripted(act) as server, connect(server.base) as one:
        looking = asyncio.ensure_future(anext(one.comments()))
        await until(lambda: one._connection._is_busy)
        waiting = asyncio.create_task(one.next())
        await asyncio.sleep(0)
        looking.cancel()
        go.set()
        assert (await waiting).data == "x"


# What a stranger runs into


async def test_not_opened() -> None:
    """Iterating without ``async with`` is an error that says what to do."""
    with pytest.raises(RuntimeError, match="async with"):
        await connect("http://127.0.0.1/").next()


async def test_opened_twice() -> None:
    """A stream is opened once; a second time is an error, and not a silent end."""
    async with scripted(answer(204)) as server:
        one = connect(server.base)
        async with one:
            assert [event async for event in one] == []
        with pytest.raises(RuntimeError, match="new stream"):
            async with one:
                pass


async def test_a_closed_session() -> None:
    """A session that was closed, before or meanwhile, is named as what is wrong."""
    async with scripted(stream("data: x\n\n")) as server:
        session = aiohttp.ClientSession()
        async with connect(server.base, session=session, clock=LeapingClock()) as one:
            await one.next()
            await session.close()
            with pytest.raises(SseConnectionError, match="session"):
                await one.next()
        with pytest.raises(SseConnectionError, match="session"):
            async with connect(server.base, session=session):
                pass


async def test_no_place_in_the_pool() -> None:
    """Where open streams hold all places of the connector, the error says so."""
    connector = aiohttp.TCPConnector(limit_per_host=1)
    once = Reconnect(first_attempts=1)
    async with (
        scripted(*[stream("data: x\n\n", end="hold")] * 2) as server,
        aiohttp.ClientSession(connector=connector) as session,
    ):
        async with connect(server.base, session=session) as one:
            await one.next()
            with pytest.raises(SseConnectionError, match="limit_per_host=1"):
                async with connect(
                    server.base, session=session, connect_timeout=0.05, reconnect=once
                ):
                    pass
        async with connect(server.base, session=session) as one:
            assert (await one.next()).data == "x"


async def test_authorization_stays_with_its_origin() -> None:
    """A redirect to another origin is followed without it, one to the same with it."""
    secret = {"Authorization": "Bearer secret"}
    async with scripted(stream("data: x\n\n"), stream("data: x\n\n")) as other:
        ways = [answer(307, Location=url) for url in ("/here", other.base)]
        async with scripted(*ways, ways[1]) as server:
            async with connect(server.base, headers=secret) as one:
                await one.next()
            assert server.header(1, "Authorization") == "Bearer secret"
            assert other.header(0, "Authorization") is None
            async with (
                aiohttp.ClientSession(headers=secret) as session,
                connect(server.base, session=session) as one,
            ):
                await one.next()
            assert server.header(2, "Authorization") == "Bearer secret"
            assert other.header(1, "Authorization") is None


async def test_a_proxy_that_is_out_of_order() -> None:
    """A status of the proxy is one like others: 502 passes, and 407 is final."""
    refused = b"HTTP/1.1 407 Who\r\nContent-Length: 0\r\n\r\n"
    act = sends(head=b"HTTP/1.1 502 Bad\r\nContent-Length: 0\r\n\r\n")
    async with scripted(act, act, refused) as proxy:
        with pytest.raises(SseHTTPError, match="407 from the proxy"):
            async with connect(
                "https://nobody.invalid/", proxy=proxy.base, clock=LeapingClock()
            ):
                pass
        assert len(proxy.requests) == 3


async def test_silence_in_many_short_waits() -> None:
    """One who asks again and again, for a moment each, notices silence too."""
    clock = SettableClock()
    infos: list[StateInfo] = []
    held = stream("id: 1\ndata: x\n\n", end="hold")
    async with (
        scripted(held, held) as server,
        connect(
            server.base, clock=clock, stall_timeout=5, on_state=infos.append
        ) as one,
    ):
        await one.next()
        for _ in range(5):
            assert "stalled" not in [info.reason for info in infos]
            waiting = asyncio.create_task(one.next())
            await clock.advance(1.1)
            waiting.cancel()
            await asyncio.wait({waiting})
        assert "stalled" in [info.reason for info in infos]
