"""The Python client: parsing, places, gaps, limits, and a consumer that gives up."""

from __future__ import annotations

import asyncio
import gzip
import json
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aiohttp_sse_routes import (
    Channels,
    ConfigurationError,
    EventTooLarge,
    MemoryStore,
    ReplayGap,
    ServerSentEvent,
    SSERoutesError,
    SSERouteTableDef,
)
from aiohttp_sse_routes.client import (
    Gap,
    Parser,
    Reconnect,
    SseConnectionError,
    SseContentTypeError,
    SseDecodeError,
    SseError,
    SseHTTPError,
    SseIdError,
    StateInfo,
    aparse,
    connect,
    parse,
)
from aiohttp_sse_routes.client.backoff import Backoff

from .helpers import Served, app_of, no_tasks_left, until
from .scripted import Act, Scripted, answer, scripted, stream
from .test_decoder import CUTS, Cut, Vector, chunks_of, each_case
from .test_python_client_rows import LeapingClock

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
ONCE = Reconnect(max_attempts=0, first_attempts=1)

Serve = Callable[[web.Application], Awaitable[Served]]


def sends(*chunks: bytes, head: bytes = HEAD, hold: bool = False) -> Act:
    """Return a connection that answers with *chunks*, each written by itself."""

    async def act(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        for chunk in chunks:
            writer.write(chunk)
            await writer.drain()
            await asyncio.sleep(0)
        if hold:
            await reader.read()

    return act


def endless(chunk: bytes, head: bytes = HEAD) -> Act:
    """Return a connection that answers with *chunk* for ever."""

    async def act(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            writer.write(chunk)
            await writer.drain()

    return act


# Parsing


@each_case
async def test_vector(case: Vector) -> None:
    """A stream decodes as the standard says: over a socket, and by the functions."""

    async def cut_up(chunks: list[bytes]) -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    async def over_a_socket(cut: Cut) -> None:
        chunks = cut(chunks_of(case))
        async with scripted(sends(*chunks), answer(204)) as server:
            clock = LeapingClock()
            async with connect(server.base, clock=clock) as one:
                events = [event async for event in one]
            assert shown(events) == case["events"], cut
            assert one.last_event_id == case["last_event_id"], cut

    for cut in CUTS:
        chunks = cut(chunks_of(case))
        assert shown(parse(chunks)) == case["events"]
        assert shown([e async for e in aparse(cut_up(chunks))]) == case["events"]
        await over_a_socket(cut)


def shown(events: Any) -> list[dict[str, str]]:
    """Return *events* as the vectors write them."""
    return [
        {
            "type": e.type,
            "data": getattr(e, "raw", e.data),
            "lastEventId": e.last_event_id,
        }
        for e in events
    ]


def test_the_parser_is_public() -> None:
    """`Parser` takes bytes and gives events, with no I/O."""
    assert [event.data for event in Parser().feed(b"data: 1\n\n")] == ["1"]
    with pytest.raises(EventTooLarge):
        list(parse([b"data: 1\n\ndata: " + b"x" * 99], max_event_bytes=50))


# Places


async def test_the_place_moves_with_what_is_handed_over() -> None:
    """What was read and not handed over does not move the place."""
    text = "".join(f"id: {n}\ndata: {n}\n\n" for n in range(5)) + "id: end\n\n"
    async with scripted(stream(text, end="eof"), answer(204)) as server:
        async with connect(server.base, clock=LeapingClock()) as one:
            for number in range(5):
                assert (await one.next()).id == str(number)
                assert one.last_event_id == str(number)
            with pytest.raises(SseError, match="ended"):
                await one.next()
        assert server.header(1, "Last-Event-ID") == "end"


async def test_acknowledged_by_hand() -> None:
    """The place to keep moves with `ack`, and a reconnect repeats nothing."""
    first = stream("id: 1\ndata: 1\n\nid: 2\ndata: 2\n\n")
    async with (
        scripted(first, stream("id: 3\ndata: 3\n\n"), answer(204)) as server,
        connect(server.base, ack="manual", clock=LeapingClock()) as one,
    ):
        done = await one.next()
        assert one.last_event_id == ""
        one.ack(done)
        await one.collect(2)
        assert one.last_event_id == "1"
        assert server.header(1, "Last-Event-ID") == "2"


async def test_what_was_read_before_a_break_is_not_lost() -> None:
    """Events that came together with the end of a broken body are handed over."""
    text = "data: 1\n\ndata: 2\n\n"
    async with (
        scripted(stream(text, end="chunked-cut"), answer(204)) as server,
        connect(server.base, clock=LeapingClock()) as one,
    ):
        await until(lambda: one.response and one.response.content.exception())
        assert [event.data async for event in one] == ["1", "2"]


async def test_an_id_that_cannot_be_sent() -> None:
    """It is an error at the reconnect, not a silent beginning from the start."""
    async with scripted(stream("id: \x01\ndata: x\n\n")) as server:
        async with connect(server.base, clock=LeapingClock()) as one:
            await one.next()
            with pytest.raises(SseIdError):
                await one.next()
        assert len(server.requests) == 1


async def test_reconnect_when_asked() -> None:
    """`reconnect` connects anew at once, behind what was handed over."""
    held = stream("id: 1\ndata: 1\n\n", end="hold")
    clock = LeapingClock()
    async with (
        scripted(held, stream("id: 2\ndata: 2\n\n", end="hold")) as server,
        connect(server.base, clock=clock) as one,
    ):
        await one.next()
        await one.reconnect()
        assert (await one.next()).data == "2"
        assert server.header(1, "Last-Event-ID") == "1"
        assert clock.slept == []


# Servers of ours


def control(name: str, data: object, **fields: str) -> str:
    """Return a control event."""
    lines = [f"event: {name}", *(f"{k}: {v}" for k, v in fields.items())]
    return "\n".join([*lines, "json", f"data: {json.dumps(data)}", "", ""])


GAP = control("sse-gap", {"reason": "expired", "after": "a"}, id="b")


async def test_a_gap_raises_and_the_stream_goes_on() -> None:
    """By default nobody can overlook a gap, and nothing behind it is lost."""
    async with (
        scripted(stream(GAP, "data: x\n\n", end="hold")) as server,
        connect(server.base) as one,
    ):
        with pytest.raises(ReplayGap) as caught:
            await one.next()
        assert (caught.value.reason, caught.value.after) == ("expired", "a")
        assert one.last_event_id == caught.value.cursor == "b"
        assert (await one.next()).data == "x"


async def test_a_gap_is_told() -> None:
    """A function is called for a gap, and awaited; ``"ignore"`` says nothing."""
    gaps: list[Gap] = []

    async def note(gap: Gap) -> None:
        await asyncio.sleep(0)
        gaps.append(gap)

    held = stream(GAP, "data: x\n\n", end="hold")
    async with scripted(held, held, held) as server:
        for on_gap in (note, gaps.append, "ignore"):
            options: Any = {"on_gap": on_gap}
            async with connect(server.base, **options) as one:
                assert (await one.next()).data == "x"
    assert gaps == [Gap("expired", "a", "b")] * 2


async def test_a_gap_in_a_header() -> None:
    """Where a route sends no control events, the header tells the gap."""
    headers = {"SSE-Resume": "gap; reason=expired"}
    async with (
        scripted(stream("data: x\n\n", end="hold", **headers)) as server,
        connect(server.base, last_event_id="a") as one,
    ):
        with pytest.raises(ReplayGap):
            await one.next()
        assert (await one.next()).data == "x"


async def test_end_busy_and_error() -> None:
    """The end is the end; busy and error come back when the server says."""
    infos: list[StateInfo] = []
    hello = control("sse-hello", {"heartbeat": 15, "resumed": "fresh"}, id="1")
    end = control("sse-end", {"reason": "replaced"}, id="x.end")
    clock = LeapingClock()
    async with (
        scripted(
            stream(hello, "retry: 30000\n", control("sse-error", {"ref": "r"})),
            stream("retry: 20000\n", control("sse-busy", {"reason": "limit"})),
            stream(hello, control("sse-cursor", {}, id="2"), end),
        ) as server,
        connect(server.base, clock=clock, on_state=infos.append) as one,
    ):
        assert [event async for event in one] == []
        assert one.last_event_id == "x.end"
        assert one.info.reason == "replaced"
        assert [i.reason for i in infos if i.delay] == ["error", "busy"]
        delays = [i.delay for i in infos if i.delay]
        assert 30 <= delays[0] <= 37.5
        assert 20 <= delays[1] <= 25
        assert len(server.requests) == 3


async def test_a_server_of_ours_keeps_clients_away() -> None:
    """What it says behind its hello is obeyed, also where others would be hurried."""
    hello = control("sse-hello", {"heartbeat": 15, "resumed": "fresh"}, id="1")
    head = b"retry: 1000\n" + hello.encode() + b"data: x\n\n"

    async def delays(first: bytes) -> list[float]:
        """Return the waits after eight streams that say at last when to come back."""
        clock = LeapingClock()
        for _ in range(8):
            seen = asyncio.Event()
            act = then(first, seen, b"retry: 20000\n\n")
            async with (
                scripted(act, answer(204)) as server,
                connect(server.base, clock=clock, stall_timeout=None) as one,
            ):
                await one.next()
                seen.set()
                assert [event async for event in one] == []
        return clock.slept

    assert min(await delays(head)) >= 20
    assert min(await delays(b"data: x\n\n")) < 20


def then(first: bytes, seen: asyncio.Event, last: bytes) -> Act:
    """Return a connection that sends *last* when *first* was seen."""

    async def act(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + first)
        await writer.drain()
        await seen.wait()
        writer.write(last)

    return act


async def test_a_foreign_event_with_a_name_of_ours() -> None:
    """Without our mark it is an event like others; and so it is in strict mode."""
    foreign = "event: sse-end\ndata: {}\n\nevent: sse-gap\njson\ndata: 1\n\n"
    async with scripted(stream(foreign, end="hold"), stream(GAP, end="hold")) as server:
        async with connect(server.base) as one:
            assert [e.type for e in await one.collect(2)] == ["sse-end", "sse-gap"]
        async with connect(server.base, strict=True) as one:
            assert (await one.next()).type == "sse-gap"


@pytest.mark.parametrize("handler_cancellation", [False], indirect=True)
async def test_our_own_server(serve: Serve) -> None:
    """A stream of a real server is followed over a cut, and to its end."""
    table = SSERouteTableDef()

    @table.sse_route("/count")
    async def count(request: web.Request) -> AsyncIterator[Any]:
        for number in range(6):
            yield {"number": number}
        yield ServerSentEvent("text", event="last")

    @table.sse_route("/room")
    async def room(request: web.Request) -> Channels:
        return Channels("room")

    served = await serve(app_of(table, store=MemoryStore(max_events=2)))
    url = served.base + "/count"
    async with connect(url, session=served.session, decode="auto") as one:
        seen = [(await one.next()).data for _ in range(3)]
        await one.reconnect()
        seen += [event.data async for event in one]
        assert seen == [*({"number": n} for n in range(6)), "text"]
        assert one.info.reason == "finished"
    async with connect(served.base + "/room") as one:
        waiting = asyncio.create_task(one.next())
        await until(lambda: one.resumed == "fresh")
        await served.sse.publish("room", "one")
        assert (await waiting).data == "one"
        place = one.last_event_id
    for text in ("two", "three", "four"):
        await served.sse.publish("room", text)
    async with connect(served.base + "/room", last_event_id=place) as one:
        with pytest.raises(ReplayGap, match="expired"):
            await one.next()
        assert (await one.next()).data == "three"


# Data


@dataclass
class Order:
    """What an event's data become."""

    number: int


async def test_decoding() -> None:
    """Data are text, JSON, what a type or a function makes of them, or an error."""
    text = 'event: order\nid: 1\ndata: {"number": 1}\n\ndata: 2\n\ndata: {\n\n'
    options: Any
    async with scripted(*[stream(text, end="hold")] * 3) as server:
        options = {"decode": "json", "events": {"order": Order}}
        async with connect(server.base, **options) as one:
            first, second = await one.collect(2)
            assert (first.data, first.json()) == (Order(1), {"number": 1})
            assert second.data == 2
            with pytest.raises(SseDecodeError) as caught:
                await one.next()
            assert caught.value.event.data == "{"
        async with connect(server.base, decode=len) as one:
            assert [e.data for e in await one.collect(3)] == [13, 1, 1]
        async with connect(server.base, decode="auto") as one:
            assert (await one.next("message")).data == "2"


# What aiohttp does to long streams


async def test_a_session_of_the_user() -> None:
    """Its limits and its habits do not touch the stream, and it stays open."""
    async with (
        aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=0.01, sock_read=0.01),
            raise_for_status=True,
            headers={"Accept": "text/html"},
        ) as session,
        scripted(answer(503), sends(b"data: 1\n\n", hold=True)) as server,
    ):
        headers = {"X-Mine": "1"}
        async with connect(
            server.base, session=session, headers=headers, clock=LeapingClock()
        ) as one:
            assert (await one.next()).data == "1"
            with pytest.raises(TimeoutError):
                await one.next(timeout=0.1)
            assert one.state == "open"
            assert server.header(1, "Accept") == "text/event-stream"
            assert server.header(1, "Accept-Encoding") == "identity"
            assert server.header(1, "X-Mine") == "1"
        assert headers == {"X-Mine": "1"}
        async with scripted(answer(404)) as other:
            with pytest.raises(SseHTTPError, match="404"):
                async with connect(other.base, session=session):
                    pass
        assert not session.closed
        assert session.connector is not None
        assert not session.connector._acquired


async def test_compressed() -> None:
    """A coding is undone, or is an error where the session does not undo it."""
    body = gzip.compress(b"data: x\n\n")
    head = HEAD.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n")
    async with scripted(*[sends(body, head=head)] * 2) as server:
        async with connect(server.base) as one:
            assert (await one.next()).data == "x"
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            with pytest.raises(SseContentTypeError, match="auto_decompress"):
                async with connect(server.base, session=session):
                    pass


async def test_fresh_headers_after_401() -> None:
    """A function for headers is asked once more, and a second 401 is final."""
    tokens = iter(["old", "new", "third"])

    async def headers() -> dict[str, str]:
        return {"Authorization": next(tokens)}

    held = stream("data: x\n\n", end="eof")
    async with scripted(answer(401), held, answer(401), answer(401)) as server:
        async with connect(server.base, headers=headers, clock=LeapingClock()) as one:
            assert (await one.next()).data == "x"
            assert server.header(1, "Authorization") == "new"
        with pytest.raises(SseHTTPError, match="401"):
            async with connect(server.base, headers=dict):
                pass
        assert len(server.requests) == 4


async def test_a_post_is_not_repeated() -> None:
    """What may have been done is not asked for again, unless there is a place."""
    async with scripted(
        stream("data: x\n\n"), answer(503), stream("data: y\n\n")
    ) as server:
        async with connect(server.base, method="POST", json={}) as one:
            await one.next()
            with pytest.raises(SseConnectionError):
                await one.next()
        async with connect(
            server.base, method="POST", json={}, clock=LeapingClock()
        ) as one:
            assert (await one.next()).data == "y"


async def test_a_refusal_without_end() -> None:
    """A refusal is one, with what there is of its body, though that never ends."""
    head = b"HTTP/1.1 404 Not Found\r\nContent-Length: 9999\r\n\r\n"
    many = endless(b"x" * 65536, b"HTTP/1.1 404 Not Found\r\n\r\n")
    async with scripted(sends(b"why", head=head, hold=True), many) as server:
        for body in (b"why", b"x" * 4096):
            with pytest.raises(SseHTTPError) as caught:
                async with connect(server.base, connect_timeout=0.4):
                    pass
            assert (caught.value.status, caught.value.body) == (404, body)


async def test_no_answer_in_time() -> None:
    """A server that accepts and is silent is a failed attempt."""
    async with scripted() as server:
        with pytest.raises(SseConnectionError) as caught:
            async with connect(server.base, connect_timeout=0.05, reconnect=ONCE):
                pass
        assert isinstance(caught.value.__cause__, TimeoutError)


@pytest.mark.parametrize(
    "options",
    [
        {"last_event_id": "a\nb"},
        {"timeout": 3},
        {"json": 1, "data": b"1"},
        {"ack": "never"},
        {"on_gap": "laugh"},
        {"decode": "xml"},
        {"connect_timeout": 0},
        {"stall_timeout": -1},
        {"max_event_bytes": 0},
        {"headers": 3},
        {"on_state": 3},
        {"events": {"order": object()}},
    ],
)
def test_a_wrong_argument(options: dict[str, Any]) -> None:
    """It is refused before anything is connected."""
    with pytest.raises(ConfigurationError):
        connect("http://127.0.0.1/", **options)


def test_wrong_rules() -> None:
    """Numbers out of range are refused."""
    with pytest.raises(ConfigurationError):
        Reconnect(factor=0.5)


def test_the_counting_begins_anew_after_a_sound_connection() -> None:
    """A connection that lasted resets the waits; one that was short does not."""
    backoff = Backoff(Reconnect(jitter=0), strict=False)
    waits = []
    for lasted in (0, 1, 4.9, 5, 0):
        backoff.opened(0)
        backoff.lost(lasted)
        waits.append(backoff.next())
    assert waits[1:3] == [2, 4]
    assert waits[3] <= 1
    assert waits[4] == 2
    for _ in range(2000):
        assert backoff.next() <= 30


# Limits


@pytest.mark.parametrize(
    "act",
    [
        endless(b"x" * 65536),
        endless(b"data: " + b"x" * 1000 + b"\n"),
        endless(b"x" * 65536, b"HTTP/1.1 200 OK\r\nX-Endless: "),
        endless(b"X-Many: x\r\n" * 1000, b"HTTP/1.1 200 OK\r\n"),
        sends(
            gzip.compress(b"data: " + bytes(64 << 20)),
            head=HEAD[:-2] + b"Content-Encoding: gzip\r\n\r\n",
        ),
    ],
    ids=["line", "event", "header", "headers", "compressed"],
)
async def test_without_end(act: Act) -> None:
    """What never ends is a clear error, and memory stays bounded."""
    limit = 1 << 20
    async with scripted(*[act] * 3) as server:
        tracemalloc.start()
        try:
            with pytest.raises((EventTooLarge, SseConnectionError)):
                async with connect(
                    server.base, max_event_bytes=limit, reconnect=ONCE
                ) as one:
                    await one.next()
            assert tracemalloc.get_traced_memory()[1] < 8 * limit
        finally:
            tracemalloc.stop()


async def test_many_events_in_bounded_memory() -> None:
    """A consumer that is slow holds the server back: nothing is heaped up."""
    async with (
        scripted(endless(b"id: 1\ndata: x\n\n" * 1000)) as server,
        connect(server.base) as one,
    ):
        await one.collect(1000)
        tracemalloc.start()
        try:
            for _ in range(100_000):
                await one.__anext__()
            assert tracemalloc.get_traced_memory()[1] < 32 << 20
            assert len(one._connection.ready) < 50_000
        finally:
            tracemalloc.stop()


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    head=st.one_of(
        st.just(HEAD),
        st.binary(max_size=60).map(lambda b: b"HTTP/1.1 200 OK\r\n" + b + b"\r\n\r\n"),
        st.binary(max_size=60).map(lambda b: HEAD[:-2] + b + b"\r\n\r\n"),
        st.just(HEAD[:-2] + b"Transfer-Encoding: chunked\r\n\r\n"),
        st.just(HEAD[:-2] + b"Content-Encoding: gzip\r\n\r\n"),
        st.just(b""),
    ),
    body=st.one_of(
        st.binary(max_size=200),
        st.lists(
            st.sampled_from(
                [
                    b"data:",
                    b"id:",
                    b"retry:",
                    b"event:",
                    b"sse-gap",
                    b"sse-hello",
                    b"json",
                    b"\n",
                    b"\n\n",
                    b"\r",
                    b"{}",
                    b"9",
                    b"\x01",
                    b"\xff",
                    b":",
                ]
            )
        ).map(b"".join),
    ),
)
def test_any_bytes(head: bytes, body: bytes) -> None:
    """Whatever a server sends, only documented errors come out."""

    async def scenario() -> None:
        act = sends(body, head=head)
        # aiohttp itself asks again where a connection gave no answer.
        async with scripted(*[act] * 8) as server:
            try:
                async with connect(
                    server.base,
                    clock=LeapingClock(),
                    reconnect=Reconnect(max_attempts=1, first_attempts=2),
                    decode="auto",
                ) as one:
                    for _ in range(200):
                        try:
                            await one.__anext__()
                        except (SseDecodeError, ReplayGap):
                            pass
            except (SSERoutesError, StopAsyncIteration):
                pass

    asyncio.run(scenario())


# Cancelled


async def test_cancelled_anywhere() -> None:
    """A wait that is given up at any turn of the loop loses no event."""
    server: Scripted

    async def six(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        after = int(server.header(-1, "Last-Event-ID") or -1)
        if after == 59:
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
            return
        writer.write(HEAD)
        for number in range(after + 1, after + 7):
            writer.write(b"id: %d\ndata: %d\n\n" % (number, number))
            await asyncio.sleep(0)

    before = asyncio.all_tasks()
    async with scripted(*[six] * 3000) as server:
        session = aiohttp.ClientSession()
        async with connect(server.base, session=session, clock=LeapingClock()) as one:
            seen: list[str] = []
            turns = 0
            while one.state != "closed":
                task = asyncio.create_task(one.__anext__())
                for _ in range(turns % 23):
                    await asyncio.sleep(0)
                turns += 1
                if turns % 23 == 0:
                    # Let it come at times, or an attempt is never long enough.
                    await asyncio.wait({task}, timeout=0.2)
                task.cancel()
                await asyncio.wait({task})
                if task.cancelled():
                    continue
                try:
                    seen.append(task.result().data)
                except StopAsyncIteration:
                    break
        assert session.connector is not None
        assert not session.connector._acquired
        await session.close()
    assert seen == [str(n) for n in range(60)]
    await no_tasks_left(before)


async def test_cancelled_within_a_batch() -> None:
    """What `collect` and `next` had when they were given up comes again."""
    text = "".join(f"id: {n}\ndata: {n}\n\n" for n in range(3))
    async with (
        scripted(stream(text, end="hold")) as server,
        connect(server.base) as one,
    ):
        with pytest.raises(TimeoutError):
            await one.collect(5, timeout=0.05)
        assert one.last_event_id == ""
        with pytest.raises(TimeoutError):
            await one.next("price", timeout=0.05)
        assert [event.data for event in await one.collect(3)] == ["0", "1", "2"]
        assert one.last_event_id == "2"


async def test_cancelled_while_opening() -> None:
    """An attempt that is given up leaves no task and no connection."""
    before = asyncio.all_tasks()
    async with scripted() as server:
        with pytest.raises(TimeoutError):
            async with (
                asyncio.timeout(0.05),
                connect(server.base, connect_timeout=None),
            ):
                pass
        await until(lambda: server.opened == 1 and not server.live)
    await no_tasks_left(before)


async def test_two_consumers() -> None:
    """Two tasks cannot wait for one stream's next event."""
    async with (
        scripted(stream(end="hold")) as server,
        connect(server.base) as one,
    ):
        first = asyncio.create_task(one.next())
        await until(lambda: one._connection._is_busy)
        with pytest.raises(RuntimeError, match="another task"):
            await one.next()
        first.cancel()
        await asyncio.wait({first})


async def test_what_on_state_raises() -> None:
    """It is logged, and the stream goes on."""

    def laugh(_: StateInfo) -> None:
        raise ValueError

    async with (
        scripted(stream("data: x\n\n")) as server,
        connect(server.base, on_state=laugh) as one,
    ):
        assert (await one.next()).data == "x"


async def test_attempts_are_used_up() -> None:
    """The last fault is what is raised: a status, or the cause of a lost connection."""
    async with scripted(answer(503), stream("data: x\n\n")) as server:
        with pytest.raises(SseHTTPError, match="503"):
            async with connect(server.base, reconnect=ONCE):
                pass
        async with connect(server.base, reconnect=ONCE) as one:
            await one.next()
            with pytest.raises(SseConnectionError, match="eof"):
                await one.next()
            with pytest.raises(SseError, match="ended"):
                await one.next()
