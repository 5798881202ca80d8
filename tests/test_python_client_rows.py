"""The Python client and what servers do: each row of the vectors, both columns."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, NamedTuple

import pytest

from aiohttp_sse_routes.client import (
    Reconnect,
    SseConnectionError,
    SseContentTypeError,
    SseError,
    SseHTTPError,
    StateInfo,
    connect,
)
from aiohttp_sse_routes.testing import SettableClock

from .helpers import no_tasks_left, until
from .scripted import ROWS, Row, Scripted, scripted

BY_NAME = {row["name"]: row for row in ROWS}


class LeapingClock:
    """A clock on which every sleep is over at once, and that notes them."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.slept: list[float] = []

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds
        await asyncio.sleep(0)


class Outcome(NamedTuple):
    """What came of a stream.

    Attributes:
        data: The data of its events.
        ids: The last event ID after each of them.
        error: What it raised.
        server: What the server saw.
        infos: The states.
        delays: The waits.
    """

    data: list[str]
    ids: list[str]
    error: SseError | None
    server: Scripted
    infos: list[StateInfo]
    delays: list[float]


async def follow(
    row: Row, *, strict: bool, path: str = "/", tries: int | None = None, **options: Any
) -> Outcome:
    """Follow what the server of *row* sends, until as much as the row says was sent."""
    clock = LeapingClock()
    infos: list[StateInfo] = []
    data: list[str] = []
    ids: list[str] = []
    error: SseError | None = None
    rules = Reconnect(max_attempts=tries, first_attempts=tries)
    if tries is None and strict:
        rules = Reconnect(initial=3.0)
    before = asyncio.all_tasks()
    expected = sum(
        text.count("data: ")
        for e in row["exchanges"]
        for text in e.get("body", [])
        if e.get("status") == 200
    )
    async with scripted(*row["exchanges"]) as server:
        try:
            async with connect(
                server.base + path,
                strict=strict,
                clock=clock,
                on_state=infos.append,
                reconnect=rules,
                **options,
            ) as stream:
                async for event in stream:
                    data.append(event.data)
                    ids.append(event.last_event_id)
                    last = row["exchanges"][-1]
                    if len(data) == expected and last.get("status") == 200:
                        break
        except SseError as raised:
            error = raised
        assert infos[-1].state == "closed"
    await no_tasks_left(before)
    delays = [info.delay for info in infos if info.delay is not None]
    return Outcome(data, ids, error, server, infos, delays)


STRICT = pytest.mark.parametrize("strict", [False, True], ids=["ours", "standard"])
FINAL = [
    *(f"first-{n}" for n in (205, 206, 299, 304, 400, 401, 403, 404, 405, 410)),
    "first-501-505",
    "reconnect-401",
    "reconnect-404",
    "redirect-no-location",
]
PASSING = [
    *(f"first-{n}" for n in (408, 425, 429, 500, 502, 503, 504)),
    *(f"reconnect-{n}" for n in (429, 500, 502, 503, 504)),
]
WRONG = ["reconnect-wrong-type", "type-missing", "type-html", "type-json"]
TYPES = ["charset-utf8", "charset-other", "case", "trailing-semicolon", "doubled"]
REDIRECTS = [f"redirect-{n}" for n in (301, 302, 303, 307, 308)]
LOST = [
    *("eof-clean", "eof-chunked-clean", "eof-chunked-truncated", "reset-mid-stream"),
    *("reset-before-headers", "closed-without-a-byte", "reconnect-refused"),
]
URLS = {
    "non-http-scheme": "ftp://h/",
    "bad-url": "http://[",
    "http-basic-auth-in-url": "http://user:password@h/",
}
ELSEWHERE = {
    *("refused", "dns-failure", "default-delay", "retry-1-ms", "retry-2^31"),
    *("retry-on-unterminated-last-line", "id-survives-reconnect", "id-cleared"),
    *("id-utf8-on-the-wire", "id-outer-spaces", "cross-origin-long-or-unsafe-id"),
    *("request-headers", "headers-late-body", "close-while-connecting"),
    *("close-in-a-handler", "stalled", "window-stop", "redirect-loop"),
    *("first-204", "reconnect-204"),
}


def test_every_row_is_here() -> None:
    """Each row of the vectors is tried by a test of this file."""
    tried = {*FINAL, *PASSING, *WRONG, *REDIRECTS, *LOST, *URLS, *ELSEWHERE}
    assert tried | {f"type-{name}" for name in TYPES} == set(BY_NAME)


@STRICT
@pytest.mark.parametrize("name", FINAL)
async def test_a_final_status(name: str, strict: bool) -> None:
    """A status that will not change raises, and what it came with is no event."""
    row = BY_NAME[name]
    seen = await follow(row, strict=strict)
    number = next(i for i, e in enumerate(row["exchanges"]) if e["status"] != 200)
    assert isinstance(seen.error, SseHTTPError)
    assert seen.error.status == row["exchanges"][number]["status"]
    if seen.error.status >= 400:
        assert seen.error.body == "".join(row["exchanges"][number]["body"]).encode()
    assert seen.data == ["hello"] * number
    assert len(seen.server.requests) == number + 1


@pytest.mark.parametrize("name", PASSING)
async def test_a_status_that_passes(name: str) -> None:
    """It is tried again, not before Retry-After; in strict mode it is final."""
    row = BY_NAME[name]
    seen = await follow(row, strict=False)
    first = name.startswith("first-")
    assert seen.data == (["hello"] if first else ["hello", "hello"])
    assert seen.error is None
    if row["exchanges"][0]["headers"].get("Retry-After"):
        assert seen.delays[0] >= 2
    else:
        assert all(0.1 <= delay <= 1 for delay in seen.delays)

    strictly = await follow(row, strict=True)
    assert isinstance(strictly.error, SseHTTPError)
    assert strictly.data == ([] if first else ["hello"])
    assert len(strictly.server.requests) == (1 if first else 2)


@pytest.mark.parametrize("name", ["first-204", "reconnect-204"])
async def test_no_content(name: str) -> None:
    """Status 204 ends the iteration; in strict mode it is an error like others."""
    seen = await follow(BY_NAME[name], strict=False)
    assert seen.error is None
    assert seen.infos[-1].reason == "done"
    assert len(seen.server.requests) == len(BY_NAME[name]["exchanges"])
    strictly = await follow(BY_NAME[name], strict=True)
    assert isinstance(strictly.error, SseHTTPError)
    assert strictly.error.status == 204


@STRICT
@pytest.mark.parametrize("name", WRONG)
async def test_a_wrong_type(name: str, strict: bool) -> None:
    """What is no event stream is an error, at any connection."""
    seen = await follow(BY_NAME[name], strict=strict)
    assert isinstance(seen.error, SseContentTypeError)
    assert "x" not in seen.data


@STRICT
@pytest.mark.parametrize("name", TYPES)
async def test_a_right_type(name: str, strict: bool) -> None:
    """Only the essence of the type counts, and streams are UTF-8."""
    seen = await follow(BY_NAME[f"type-{name}"], strict=strict)
    assert seen.data == ["ok…" if name == "charset-other" else "x"]


@STRICT
@pytest.mark.parametrize("name", REDIRECTS)
async def test_a_redirect(name: str, strict: bool) -> None:
    """Redirects are followed, with the last event ID."""
    seen = await follow(BY_NAME[name], strict=strict, last_event_id="a0")
    assert seen.data == ["hello"]
    assert [seen.server.path(n) for n in (0, 1)] == ["/", "/final"]
    assert seen.server.header(1, "Last-Event-ID") == "a0"


@STRICT
async def test_a_redirect_loop(strict: bool) -> None:
    """Twenty hops are followed, and then it is an error."""
    row = BY_NAME["redirect-loop"]
    many = Row(name="", exchanges=row["exchanges"] * 30, standard="", ours="")
    seen = await follow(many, strict=strict, path="/same")
    assert isinstance(seen.error, SseHTTPError)
    assert len(seen.server.requests) == 21


@STRICT
@pytest.mark.parametrize("name", LOST)
async def test_a_lost_connection(name: str, strict: bool) -> None:
    """However a connection ends, there is another, which resumes."""
    row = BY_NAME[name]
    seen = await follow(row, strict=strict)
    assert seen.error is None
    opens = sum("status" in e for e in row["exchanges"])
    assert seen.data == ["hello"] * opens
    assert len(seen.server.requests) == len(row["exchanges"])
    if opens == 2:
        assert seen.server.header(-1, "Last-Event-ID") == "a1"
    if strict:
        assert set(seen.delays) == {0.2 if opens == 2 else 3.0}
    else:
        assert all(delay >= 0.1 for delay in seen.delays)


@STRICT
@pytest.mark.parametrize("name", ["refused", "dns-failure"])
async def test_nobody_is_there(name: str, strict: bool) -> None:
    """It is tried again and again, as often as allowed."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        host = "127.0.0.1" if name == "refused" else "nobody.invalid"
        clock = LeapingClock()
        rules = Reconnect(first_attempts=5)
        with pytest.raises(SseConnectionError) as caught:
            async with connect(
                f"http://{host}:{port}/", clock=clock, reconnect=rules, strict=strict
            ):
                pass
    assert isinstance(caught.value.__cause__, OSError)
    if strict:
        assert clock.slept == [1.0] * 4
    else:
        bounds = [(0.1, 1), (1, 2), (2, 4), (4, 8)]
        assert all(
            low <= delay <= high
            for (low, high), delay in zip(bounds, clock.slept, strict=True)
        )


@pytest.mark.parametrize("name", URLS)
def test_a_url_that_cannot_be(name: str) -> None:
    """It is refused before anything is connected."""
    assert name in BY_NAME
    with pytest.raises(ValueError, match=r"URL|begin with"):
        connect(URLS[name])


async def test_default_delay() -> None:
    """The first wait is up to a second, at random; strictly it is a few seconds."""
    seen = await follow(BY_NAME["default-delay"], strict=False)
    assert [True] == [0.1 <= delay <= 1 for delay in seen.delays]
    strictly = await follow(BY_NAME["default-delay"], strict=True)
    assert strictly.delays == [3.0]


async def waits(name: str, *, strict: bool, times: int = 4) -> list[float]:
    """Return the waits when the server of a row does the same again and again."""
    many = Row(
        name="", exchanges=BY_NAME[name]["exchanges"] * times, standard="", ours=""
    )
    return (await follow(many, strict=strict)).delays


async def test_a_short_retry() -> None:
    """There is a floor, and streams that end at once are asked for less and less."""
    one, two, three = await waits("retry-1-ms", strict=False)
    assert one == 0.1
    assert 0.1 <= two <= 0.2 <= three <= 0.4
    assert await waits("retry-1-ms", strict=True) == [0.001] * 3


async def test_a_long_retry() -> None:
    """It is clamped to what the user allows; strictly it is obeyed."""
    assert max(await waits("retry-2^31", strict=False)) <= 30
    assert min(await waits("retry-2^31", strict=True)) == (2**31 - 1) / 1000


async def test_an_unfinished_retry() -> None:
    """A line without an end is none."""
    name = "retry-on-unterminated-last-line"
    assert await waits(name, strict=True) == [3.0] * 3
    assert max(await waits(name, strict=False)) > 0.3


@STRICT
async def test_ids(strict: bool) -> None:
    """An id survives, is cleared, and goes out as UTF-8 without what is around it."""

    async def sent(name: str, number: int) -> tuple[Outcome, str | None]:
        seen = await follow(BY_NAME[name], strict=strict)
        return seen, seen.server.header(number, "Last-Event-ID")

    seen, header = await sent("id-survives-reconnect", 2)
    assert (seen.ids, header) == (["a1", "a1"], "a1")
    assert (await sent("id-cleared", 1))[1] is None
    assert (await sent("id-utf8-on-the-wire", 1))[1] == "…é"
    seen, header = await sent("id-outer-spaces", 1)
    assert (seen.ids, header) == (["  q  "], "q")
    assert (await sent("cross-origin-long-or-unsafe-id", 1))[1] == "a<b"


@STRICT
async def test_request_headers(strict: bool) -> None:
    """The first request says what it wants, and has no last event ID."""
    server = (await follow(BY_NAME["request-headers"], strict=strict)).server
    assert server.header(0, "Accept") == "text/event-stream"
    assert server.header(0, "Cache-Control") == "no-cache"
    assert server.header(0, "Pragma") == ("no-cache" if strict else None)
    assert server.header(0, "Last-Event-ID") is None


@STRICT
async def test_headers_without_a_body(strict: bool) -> None:
    """The stream is open when the headers are there."""
    assert BY_NAME["headers-late-body"]

    async def head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        await writer.drain()
        await reader.read()

    async with scripted(head) as server, connect(server.base, strict=strict) as stream:
        assert stream.state == "open"
        assert stream.response is not None


@STRICT
@pytest.mark.parametrize("name", ["close-while-connecting", "window-stop"])
async def test_closed_while_connecting(name: str, strict: bool) -> None:
    """Nothing is raised and nothing comes: the iteration is over."""
    assert name in BY_NAME
    begun = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        begun.set()
        await reader.read()

    async with scripted(silent) as server:
        stream = connect(server.base, strict=strict)

        async def consume() -> list[object]:
            async with stream:
                return [event async for event in stream]

        task = asyncio.create_task(consume())
        await begun.wait()
        await stream.aclose()
        assert await task == []


@STRICT
async def test_closed_by_its_consumer(strict: bool) -> None:
    """After `aclose` nothing is handed over, though it was read already."""
    async with scripted(*BY_NAME["close-in-a-handler"]["exchanges"]) as server:
        async with connect(server.base, strict=strict) as stream:
            seen = []
            async for event in stream:
                seen.append(event.data)
                await stream.aclose()
            assert seen == ["1"]
        assert len(server.requests) == 1


async def test_stalled() -> None:
    """Silence is noticed, and there is a new connection at once, with the place."""
    clock = SettableClock()
    infos: list[StateInfo] = []
    held: Any = {
        **BY_NAME["stalled"]["exchanges"][0],
        "body": ["id: 1\ndata: x\n\n"],
    }
    async with (
        scripted(held, held) as server,
        connect(
            server.base, clock=clock, stall_timeout=5, on_state=infos.append
        ) as stream,
    ):
        assert (await stream.next()).data == "x"
        waiting = asyncio.create_task(stream.next())
        await until(lambda: clock._sleepers)
        await clock.advance(4.9)
        assert not waiting.done()
        assert len(server.requests) == 1
        await clock.advance(5)
        assert (await waiting).data == "x"
        assert server.header(1, "Last-Event-ID") == "1"
        stalled = [info for info in infos if info.reason == "stalled"]
        assert [info.delay for info in stalled] == [0.0]


async def test_stalled_strictly() -> None:
    """The standard waits for ever: there is no watchdog."""
    async with (
        scripted(*BY_NAME["stalled"]["exchanges"]) as server,
        connect(server.base, strict=True) as stream,
    ):
        await stream.next()
        with pytest.raises(TimeoutError):
            await stream.next(timeout=0.05)
        assert len(server.requests) == 1
        assert stream._connection.watchdog._task is None
