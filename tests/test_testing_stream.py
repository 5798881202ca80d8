"""The kit's client: it reads what it is asked for, and says what had come instead."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from pydantic import BaseModel

from aiohttp_sse_routes import (
    Channels,
    ServerSentEvent,
    SSERouteTableDef,
    get_sse,
)
from aiohttp_sse_routes.decoder import DecodedEvent
from aiohttp_sse_routes.testing import (
    EventStream,
    FaultProxy,
    NotAStream,
    SettableClock,
    StreamCut,
    StreamEnded,
    StreamTimeout,
    until,
)

from .helpers import app_of

Client = Callable[[web.Application], Any]


@dataclasses.dataclass
class Price:
    """What a share costs."""

    symbol: str
    cents: int


class Model(BaseModel):
    """The same, as pydantic reads it."""

    symbol: str
    cents: int


def table_of_prices() -> SSERouteTableDef:
    """Return routes that end, that go on, that follow, and that refuse."""
    table = SSERouteTableDef()

    @table.sse_route("/three", events={"price": Price})
    async def three(request: web.Request) -> AsyncIterator[Any]:
        yield "plain"
        yield Price("ACME", 1)
        yield {"left": [1, 2]}

    @table.sse_route("/numbers", replay=1000)
    async def numbers(request: web.Request) -> AsyncIterator[int]:
        number = 0
        while True:
            yield number
            number += 1
            await asyncio.sleep(0.001)

    @table.sse_route("/room")
    async def room(request: web.Request) -> Channels:
        return Channels("room")

    @table.sse_route("/refused")
    async def refused(request: web.Request) -> Channels:
        raise web.HTTPForbidden(text="not you")

    return table


async def test_values(aiohttp_client: Client) -> None:
    """What was sent as JSON is a value, what was sent as text a text; both are told."""
    client = await aiohttp_client(app_of(table_of_prices()))
    async with EventStream(client, "/three") as stream:
        text, price, left = await stream.collect(3)
    assert ["plain", {"symbol": "ACME", "cents": 1}, {"left": [1, 2]}] == [
        text.value,
        price.value,
        left.value,
    ]
    assert "price" == price.type
    assert Price("ACME", 1) == price.parse(Price)
    assert Model(symbol="ACME", cents=1) == price.parse(Model)
    assert {"left": [1, 2]} == left.parse(dict[str, list[int]])
    with pytest.raises(ValueError, match=r"Object missing required field.*<message"):
        left.parse(Price)
    with pytest.raises(ValueError, match="Field required"):
        left.parse(Model)
    assert f"<message 'plain' id={text.id}>" == repr(text)
    assert f'<price {{"symbol":"ACME","cents":1}} id={price.id}>' == repr(price)


def test_a_long_event_is_shown_in_part() -> None:
    """Its representation does not fill the screen."""
    event = DecodedEvent("message", "x" * 5000, None, "", json=False)
    assert len(repr(event)) < 300
    assert "5000 characters" in repr(event)


async def test_events_by_name(aiohttp_client: Client) -> None:
    """Those of other names are passed over, and are among the events all the same."""
    client = await aiohttp_client(app_of(table_of_prices()))
    async with EventStream(client, "/three") as stream:
        assert 1 == (await stream.next("price")).value["cents"]
        assert ["message", "price"] == [event.type for event in stream.events]
        assert "sse-end" == (await stream.next("sse-end")).type
        assert "ended" != stream.state
    async with EventStream(client, "/three") as stream:
        [price] = await stream.collect(1, "price")
        assert "price" == price.type


async def test_control_events_in_their_order(aiohttp_client: Client) -> None:
    """With ``control=True`` they are handed over as the others are."""
    client = await aiohttp_client(app_of(table_of_prices()))
    async with EventStream(client, "/three") as stream:
        assert "sse-hello" == (await stream.next(control=True)).type
        types = [event.type for event in await stream.collect(4, control=True)]
        assert ["message", "price", "message", "sse-end"] == types


async def test_iteration(aiohttp_client: Client) -> None:
    """``async for`` ends where the stream does, and raises where that is cut."""
    app = app_of(table_of_prices())
    client = await aiohttp_client(app)
    async with EventStream(client, "/three") as stream:
        assert 3 == len([event async for event in stream])
        assert "ended" == stream.state
        await stream.resume()
        assert 204 == stream.status
        assert [] == [event async for event in stream]
        assert [] == await stream.rest()
    async with EventStream(client, "/numbers") as stream:
        await stream.collect(5)
        get_sse(app)._hub.cut_all()
        with pytest.raises(StreamCut):
            assert [event async for event in stream]


async def test_what_comes_before_a_cut_is_handed_over(aiohttp_client: Client) -> None:
    """Aiohttp raises first; here what had come is not lost."""
    app = app_of(table_of_prices())
    client = await aiohttp_client(app)
    async with FaultProxy(client) as proxy, EventStream(proxy, "/room") as stream:
        await stream.next("sse-hello")
        proxy.cut_after("data: 2\n\n")
        for number in (1, 2, 3):
            await get_sse(app).publish("room", number)
        response = stream.response
        assert response is not None
        await until(response.content.exception)
        assert [1, 2] == [event.value for event in await stream.collect(2)]
        with pytest.raises(StreamCut, match="GET /room") as caught:
            await stream.next()
        assert isinstance(caught.value.__cause__, aiohttp.ClientError)
        assert "cut" == stream.state
        with pytest.raises(StreamCut):
            await stream.next()
        await stream.resume()
        assert 3 == (await stream.next()).value


async def test_a_timeout_says_what_had_come(aiohttp_client: Client) -> None:
    """The error names what was wanted, the stream, its state, and the last events."""
    app = app_of(table_of_prices())
    client = await aiohttp_client(app)
    async with EventStream(client, "/room") as stream:
        await stream.next("sse-hello")
        for number in range(7):
            await get_sse(app).publish("room", {"n": number})
        with pytest.raises(TimeoutError) as caught:
            await stream.collect(9, timeout=0.1)
        assert isinstance(caught.value, StreamTimeout)
        assert 7 == len(caught.value.seen) == len(stream.events)
        text = str(caught.value)
        for part in (
            "9 events did not come within 0.1 s from GET /room",
            "open, 200 OK, text/event-stream",
            "7 events: the last",
            '<message {"n":6} id=',
            "<sse-hello",
            f"last event id {stream.last_event_id}",
        ):
            assert part in text
        assert '{"n":1}' not in text
        for ask in (stream.next("price", timeout=0), stream.rest(timeout=0.01)):
            with pytest.raises(StreamTimeout):
                await ask
        # It goes on all the same.
        await get_sse(app).publish("room", "more")
        assert "more" == (await stream.next()).data


async def test_the_end_says_what_had_come(aiohttp_client: Client) -> None:
    """So does the error of a stream that ended too early."""
    client = await aiohttp_client(app_of(table_of_prices()))
    async with EventStream(client, "/three") as stream:
        with pytest.raises(
            StreamEnded, match="the stream ended: GET /three: "
        ) as caught:
            await stream.collect(4)
        assert 3 == len(caught.value.seen)
        assert "sse-end" in str(caught.value)


async def test_a_refusal_says_what_the_answer_was(aiohttp_client: Client) -> None:
    """Opening raises nothing, so that a status can be asserted; reading tells all."""
    client = await aiohttp_client(app_of(table_of_prices()))
    async with EventStream(client, "/refused") as stream:
        assert 403 == stream.status
        with pytest.raises(NotAStream, match=r"403 Forbidden, text/plain.*not you"):
            await stream.next()
        with pytest.raises(NotAStream):
            await stream.rest()
    async with EventStream(client, "/_sse/client.js") as stream:
        with pytest.raises(NotAStream, match="200 OK, text/javascript"):
            await stream.next()


async def test_who_is_not_open_says_so(aiohttp_client: Client) -> None:
    """The error names the stream and the fix."""
    client = await aiohttp_client(app_of(table_of_prices()))
    stream = EventStream(client, "/room")
    assert "unopened" == stream.state
    for ask in (stream.next, stream.rest, stream.heartbeat):
        with pytest.raises(
            RuntimeError, match=r"GET /room is not open: use `async with`"
        ):
            await ask()
    with pytest.raises(RuntimeError, match="not open"):
        stream.stall()
    await stream.drop()


async def test_a_departure_that_is_awaited(aiohttp_client: Client) -> None:
    """The server has seen it: the run waits for its client."""
    app = app_of(table_of_prices())
    client = await aiohttp_client(app)
    sse = get_sse(app)
    streams = [EventStream(client, "/numbers") for _ in range(5)]
    for count, stream in enumerate(streams):
        await stream.open()
        await stream.next()
        await stream.drop()
        assert (0, count + 1) == (sse.connections, sse.detached)
        assert "dropped" == stream.state
    # Whose are there do not matter.
    one, other = streams[:2]
    await one.open()
    await other.resume()
    await one.drop()
    assert (1, 4) == (sse.connections, sse.detached)
    await other.drop()
    await other.drop()


async def test_a_departure_from_who_knows_where(aiohttp_client: Client) -> None:
    """A session does not tell the application; it can be given."""
    app = app_of(table_of_prices())
    client = await aiohttp_client(app)
    url = client.make_url("/numbers")
    async with aiohttp.ClientSession() as session:
        async with EventStream(session, url) as stream:
            await stream.next()
            with pytest.raises(RuntimeError, match=r"or give EventStream\("):
                await stream.drop()
        await until(lambda: not get_sse(app).connections)
        async with EventStream(session, url, app=app) as stream:
            await stream.next()
            await stream.drop()
            assert not get_sse(app).connections


async def test_a_departure_through_a_proxy(aiohttp_client: Client) -> None:
    """The server knows the client by another address, which the proxy tells."""
    app = app_of(table_of_prices())
    client = await aiohttp_client(app)
    async with FaultProxy(client) as proxy:
        for session, url in ((proxy, "/numbers"), (client, proxy.url / "numbers")):
            stream = await EventStream(session, url).open()
            await stream.next()
            assert 1 == get_sse(app).connections
            await stream.drop()
            if session is proxy:
                assert not get_sse(app).connections
            await until(lambda: not get_sse(app).connections)


async def test_it_stalls_and_goes_on(aiohttp_client: Client) -> None:
    """The server feels it: the generator is paused; then each event comes once."""
    yielded = 0
    table = SSERouteTableDef()

    @table.sse_route("/much", replay_bytes=65536)
    async def much(request: web.Request) -> AsyncIterator[str]:
        nonlocal yielded
        while True:
            yielded += 1
            yield f"{yielded} " + "x" * 1000

    app = app_of(table)
    client = await aiohttp_client(app)
    async with EventStream(client, "/much") as stream:
        await stream.next()
        stream.stall()
        assert stream.response is not None
        had = stream.response.content.total_raw_bytes
        await stream.stall()
        assert "stalled" == stream.state
        before = yielded
        with pytest.raises(RuntimeError, match=r"stalled .* go_on\(\) first"):
            await stream.collect(100_000)
        for _ in range(50):
            await asyncio.sleep(0)
        assert before == yielded
        assert had == stream.response.content.total_raw_bytes
        stream.go_on()
        stream.go_on()
        await stream.collect(before + 100 - len(stream.events))
        numbers = [int(event.data.split(" ")[0]) for event in stream.events]
        assert list(range(1, before + 101)) == numbers
        assert [] == stream.gaps
        assert yielded > before


async def test_a_stalled_stream_is_dropped(aiohttp_client: Client) -> None:
    """A client that takes nothing may leave, and come back to what it missed."""
    app = app_of(table_of_prices())
    client = await aiohttp_client(app)
    async with EventStream(client, "/numbers") as stream:
        await stream.next()
        stream.stall()
        await stream.drop()
        stream.go_on()
        await stream.open()
        assert "open" == stream.state
        await stream.collect(5)
        assert list(range(len(stream.events))) == [e.value for e in stream.events]


async def test_heartbeats(aiohttp_client: Client, sse_clock: SettableClock) -> None:
    """A comment is one, and so is a cursor that moved without an event."""
    app = app_of(table_of_prices(), clock=sse_clock)
    client = await aiohttp_client(app)
    async with EventStream(client, "/room") as stream:
        await stream.next("sse-hello")
        with pytest.raises(StreamTimeout, match="a heartbeat did not come"):
            await stream.heartbeat(timeout=0.01)
        await sse_clock.advance(16)
        await stream.heartbeat()
        assert [""] == stream.comments
        await get_sse(app).publish("room", "news")
        await get_sse(app).publish("elsewhere", "no news here")
        await sse_clock.advance(16)
        await stream.heartbeat()
        assert "sse-cursor" == stream.control[-1].type
        assert ["news"] == [event.data for event in stream.events]


async def test_it_tells_what_it_is_about(aiohttp_client: Client) -> None:
    """Its representation is the story that errors tell."""
    client = await aiohttp_client(app_of(table_of_prices()))
    stream = EventStream(client, "/room")
    assert "<EventStream GET /room: unopened; no event; no control event>" == repr(
        stream
    )
    async with stream:
        await stream.next("sse-hello")
        await stream.resume()
        assert "connection 2; no event; 1 control event: <sse-hello" in repr(stream)


async def test_events_with_ids_of_their_own(aiohttp_client: Client) -> None:
    """They are equal to what was sent, and to nothing else."""
    table = SSERouteTableDef()

    @table.sse_route("/own")
    async def own(request: web.Request) -> AsyncIterator[ServerSentEvent]:
        yield ServerSentEvent("a", id="1", event="x")

    client = await aiohttp_client(app_of(table))
    seen = []
    for _ in range(2):
        async with EventStream(client, "/own") as stream:
            seen += await stream.rest()
    assert seen[0] == seen[1]
    assert "<x 'a' id=1>" == repr(seen[0])


async def test_until_says_what_did_not_come_about() -> None:
    """By words if it was given any, else by the place of the condition."""
    with pytest.raises(AssertionError, match=r"within 0.01 s: the moon is blue"):
        await until(lambda: False, timeout=0.01, what="the moon is blue")
    with pytest.raises(AssertionError, match=r"<lambda> at .*_stream.py:\d+"):
        await until(lambda: False, timeout=0.01)
    with pytest.raises(AssertionError, match="method-wrapper"):
        await until([].__len__, timeout=0)
