"""Ending others' connections: `SSE.disconnect`, and rechecks of who was let in.

Law: what is proved is what a client sees and whether it may come back; with a store of
one process here, over workers in `test_workers`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from aiohttp_sse_routes import Channels, SSERouteTableDef
from aiohttp_sse_routes.testing import EventStream, SettableClock

from .helpers import Served, app_of, until

Serve = Callable[..., Awaitable[Served]]


def user_of(request: web.Request) -> str | None:
    """Return who asks."""
    return request.headers.get("X-User")


async def end_of(stream: EventStream) -> str:
    """Return the reason of the stream's ``sse-end``; empty where there is none."""
    await stream.rest()
    ends = [e.data for e in stream.control if e.type == "sse-end"]
    return ends[0].partition('":"')[2].rstrip('"}') if ends else ""


def table_of(ended: list[str] | None = None, **options: Any) -> SSERouteTableDef:
    """Return a table with a route of each form."""
    table = SSERouteTableDef()

    @table.sse_route("/rooms/{room}", owner=user_of, **options)
    async def room(request: web.Request) -> Channels:
        return Channels(
            f"room:{request.match_info['room']}", f"user:{user_of(request)}"
        )

    @table.sse_route("/mine", owner=user_of)
    async def mine(request: web.Request) -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            if ended is not None:
                ended.append(user_of(request) or "")

    @table.sse_route("/ticker", shared=True)
    async def ticker(run: object) -> AsyncIterator[int]:
        yield 1
        await asyncio.Event().wait()

    return table


async def test_by_owner(serve: Serve, clock: SettableClock) -> None:
    """Every stream of the owner ends for good, whatever its form, and no other's."""
    ended: list[str] = []
    served = await serve(app_of(table_of(ended), clock=clock))
    ada = {"X-User": "ada"}
    async with (
        served.stream("/rooms/1", headers=ada) as room,
        served.stream("/mine", headers=ada) as mine,
        served.stream("/rooms/1", headers={"X-User": "bob"}) as other,
    ):
        await mine.next()
        await room.next("sse-hello")
        await other.next("sse-hello")
        await served.sse.disconnect(owner="ada")
        assert "disconnected" == await end_of(room)
        assert "disconnected" == await end_of(mine)
        await until(lambda: ended == ["ada"])
        await served.sse.publish("room:1", "still here")
        assert "still here" == (await other.next()).data
        for stream in (room, mine):
            await stream.resume()
            assert 204 == stream.status


async def test_a_run_that_waits_is_ended_too(
    serve: Serve, clock: SettableClock
) -> None:
    """Who is away for a moment does not find its run again."""
    ended: list[str] = []
    served = await serve(app_of(table_of(ended), clock=clock))
    stream = served.stream("/mine", headers={"X-User": "ada"})
    await stream.open()
    await stream.next()
    stream.drop()
    await until(lambda: served.sse.detached == 1)
    await served.sse.disconnect(owner="ada")
    await until(lambda: ended == ["ada"])
    await stream.resume()
    await stream.next()
    assert "unknown" == stream.gaps[0]["reason"]
    stream.drop()


async def test_by_channel_and_route(serve: Serve, clock: SettableClock) -> None:
    """What is given must hold together: the channel's followers, of that route."""
    served = await serve(app_of(table_of(), clock=clock))
    async with (
        served.stream("/rooms/1", headers={"X-User": "ada"}) as one,
        served.stream("/rooms/2", headers={"X-User": "ada"}) as two,
        served.stream("/ticker") as ticker,
    ):
        await one.next("sse-hello")
        await two.next("sse-hello")
        await ticker.next()
        await served.sse.disconnect(channel="room:1", owner="bob")
        await served.sse.disconnect(channel="room:1", route="ticker")
        await served.sse.disconnect(channel="room:1", route="room")
        assert "disconnected" == await end_of(one)
        await served.sse.disconnect(route="ticker")
        assert "disconnected" == await end_of(ticker)
        await served.sse.publish("room:2", "still here")
        assert "still here" == (await two.next()).data


@pytest.mark.parametrize("path", ["/rooms/1", "/mine"])
async def test_who_may_come_back_misses_nothing(
    serve: Serve, clock: SettableClock, path: str
) -> None:
    """With ``reconnect=True`` the stream ends cleanly and goes on from its place."""
    served = await serve(app_of(table_of(), clock=clock))
    stream = served.stream(path, headers={"X-User": "ada"})
    await stream.open()
    await stream.next("sse-hello")
    await served.sse.disconnect(owner="ada", reconnect=True)
    assert "" == await end_of(stream)
    await served.sse.publish("room:1", "meanwhile")
    await stream.resume()
    await stream.next("sse-hello")
    assert "continued" == (stream.hello or {})["resumed"]
    if path != "/mine":
        assert "meanwhile" == (await stream.next()).data
    stream.drop()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({}, "would end every connection"),
        ({"route": "nowhere"}, "there is no such route"),
        ({"owner": object()}, "JSON cannot carry it"),
    ],
)
async def test_a_wrong_call_says_what_to_do(
    serve: Serve, arguments: dict[str, Any], text: str
) -> None:
    """Nothing, a route that is not there, an owner no other worker could know."""
    served = await serve(app_of(table_of()))
    with pytest.raises(ValueError, match=text):
        await served.sse.disconnect(**arguments)


# -- rechecks --------------------------------------------------------------------------


async def settle() -> None:
    """Let tasks that are ready have their turns."""
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.mark.parametrize("refusal", ["false", "forbidden"])
@pytest.mark.parametrize("path", ["/rooms/1", "/mine", "/ticker"])
async def test_who_is_refused_later_is_ended(
    serve: Serve, clock: SettableClock, path: str, refusal: str
) -> None:
    """The guard is asked again in time, on a clean request, and its no is the end."""
    allowed = True
    asked: list[web.Request] = []

    async def guard(request: web.Request) -> bool:
        asked.append(request)
        if not allowed and refusal == "forbidden":
            raise web.HTTPForbidden
        return allowed

    served = await serve(app_of(table_of(), guard=guard, recheck=10, clock=clock))
    async with served.stream(path, headers={"X-User": "ada"}) as stream:
        await stream.next("sse-hello")
        await clock.advance(13)
        await settle()
        assert 2 == len(asked)
        assert asked[0] is not asked[1]
        assert "ada" == asked[1].headers["X-User"]
        assert asked[0].match_info == asked[1].match_info
        allowed = False
        await clock.advance(13)
        assert "disconnected" == await end_of(stream)
        await stream.resume()
        assert 204 == stream.status


@pytest.mark.parametrize("failure", [RuntimeError("down"), web.HTTPBadGateway()])
async def test_a_check_that_fails_ends_nothing(
    serve: Serve,
    clock: SettableClock,
    failure: Exception,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A database that is down for a moment logs nobody out."""
    trouble = False

    def guard(request: web.Request) -> None:
        if trouble:
            raise failure

    served = await serve(app_of(table_of(guard=guard, recheck=10), clock=clock))
    async with served.stream("/rooms/1") as stream:
        await stream.next("sse-hello")
        trouble = True
        await clock.advance(13)
        await settle()
        await served.sse.publish("room:1", "still here")
        assert "still here" == (await stream.next()).data
    logged = [r for r in caplog.records if "recheck failed" in r.message]
    assert len(logged) == isinstance(failure, RuntimeError)


async def test_other_channels_bring_the_client_back(
    serve: Serve, clock: SettableClock
) -> None:
    """Whose rights have changed comes back and follows what it may; nothing is lost."""
    table = SSERouteTableDef()
    rooms = ["a", "b"]

    @table.sse_route("/x", recheck=10)
    async def x(request: web.Request) -> Channels:
        return Channels(*rooms)

    served = await serve(app_of(table, clock=clock))
    async with served.stream("/x") as stream:
        await stream.next("sse-hello")
        rooms.reverse()
        await clock.advance(13)
        await settle()
        await served.sse.publish("a", 1)
        assert "1" == (await stream.next()).data
        rooms[:] = ["b", "c"]
        await clock.advance(13)
        assert "" == await end_of(stream)
        await served.sse.publish("a", "not for it any more")
        await served.sse.publish("c", 2)
        await stream.resume()
        assert "2" == (await stream.next()).data
        assert not stream.gaps


async def test_a_coroutine_that_refuses_later(
    serve: Serve, clock: SettableClock
) -> None:
    """The coroutine of a channel route is asked too, and its 403 is the end."""
    table = SSERouteTableDef()
    allowed = True

    @table.sse_route("/x", recheck=10)
    async def x(request: web.Request) -> Channels:
        if not allowed:
            raise web.HTTPForbidden
        return Channels("a")

    served = await serve(app_of(table, clock=clock))
    async with served.stream("/x") as stream:
        await stream.next("sse-hello")
        allowed = False
        await clock.advance(13)
        assert "disconnected" == await end_of(stream)


async def test_a_check_that_hangs_is_asked_once_and_ends_with_its_client(
    serve: Serve, clock: SettableClock
) -> None:
    """It is not asked again meanwhile, and no task of it is left."""
    asked = 0

    async def guard(request: web.Request) -> None:
        nonlocal asked
        asked += 1
        if asked > 1:
            await asyncio.Event().wait()

    served = await serve(app_of(table_of(guard=guard, recheck=10), clock=clock))
    async with served.stream("/rooms/1") as stream:
        await stream.next("sse-hello")
        for _ in range(4):
            await clock.advance(13)
        assert 2 == asked
        await served.sse.publish("room:1", 1)
        await stream.next()


async def test_a_recheck_without_anything_to_ask(serve: Serve) -> None:
    """It is an error at start that names the fix, where no guard comes by default."""
    table = SSERouteTableDef()

    @table.sse_route("/x", recheck=10)
    async def x(request: web.Request) -> AsyncIterator[int]:
        yield 1

    with pytest.raises(ValueError, match="has nothing to ask without guard="):
        await serve(app_of(table))
    await serve(app_of(table, guard=lambda request: True))
