"""What `SSE.stats` counts is what clients have seen.

Law: the counts are compared with the bytes that came from the sockets; where the two
are to meet, the test reads on until all has come.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import logging
import random
import re
import secrets
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from aiohttp_sse_routes import (
    SSE_KEY,
    Channels,
    MemoryStore,
    SharedRun,
    SQLiteStore,
    SSERouteTableDef,
    sse_response,
)
from aiohttp_sse_routes.http.link import CloseReason
from aiohttp_sse_routes.metrics import register
from aiohttp_sse_routes.testing import SettableClock

from .helpers import Served, app_of, until
from .lifecycle import connections_of
from .rooms import table_of_rooms
from .test_channels import go_on, slow_client

Serve = Callable[..., Awaitable[Served]]

_EVENT = re.compile(rb"^data: e\d+$", re.MULTILINE)
_ID = re.compile(rb"^id: (.+)$", re.MULTILINE)


class Feeder:
    """Yields what a test has released, to whoever follows."""

    def __init__(self) -> None:
        self.count = 0
        self.changed = asyncio.Event()

    def release(self, count: int) -> None:
        """Let *count* more come."""
        self.count += count
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()

    async def items(self) -> AsyncIterator[str]:
        """Yield those that are released from now on."""
        number = self.count
        while True:
            while number < self.count:
                number += 1
                yield f"e{number}"
            await self.changed.wait()


FEEDER = web.AppKey("feeder", Feeder)


class Client:
    """A socket, and all that came on it behind the headers."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.body = b""
        self.ended = False

    async def open(self, served: Served, last: str | None = None) -> None:
        """Ask for the stream, from *last* on, and read on in the background."""
        reader, self._writer = await asyncio.open_connection(served.host, served.port)
        head, body = f"GET /{self.kind} HTTP/1.1", b""
        if self.kind == "both":
            streams = [{"key": k, "url": f"/{k}"} for k in ("shared", "room")]
            body = json.dumps({"streams": streams}).encode()
            head = (
                "POST /_sse/streams HTTP/1.1\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}"
            )
        more = f"Last-Event-ID: {last}\r\n" if last else ""
        self._writer.write(f"{head}\r\nHost: test\r\n{more}\r\n".encode() + body)
        assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
        self._task = asyncio.ensure_future(self._read(reader))

    async def _read(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                self.body += data
        self.ended = True

    async def close(self) -> None:
        """Leave."""
        self._writer.close()
        await self._task

    @property
    def events(self) -> int:
        """How many events came."""
        return len(_EVENT.findall(self.body))

    @property
    def last_id(self) -> str:
        """The id that it would come back with."""
        found: list[bytes] = _ID.findall(self.body)
        return found[-1].decode()


def table_of(feeder: Feeder) -> SSERouteTableDef:
    """Return a stream of each kind."""
    table = SSERouteTableDef()

    @table.sse_route("/private")
    async def private(request: web.Request) -> AsyncIterator[str]:
        yield None  # type: ignore[misc]
        async for item in feeder.items():
            yield item

    @table.sse_route("/shared", shared=True)
    async def shared(run: SharedRun) -> AsyncIterator[str]:
        yield None  # type: ignore[misc]
        async for item in feeder.items():
            yield item

    @table.sse_route("/room")
    async def room(request: web.Request) -> Channels:
        return Channels("a", "b")

    return table


async def imperative(request: web.Request) -> web.StreamResponse:
    """Send by itself what is released."""
    feeder = request.app[FEEDER]
    async with sse_response(request, sep="\n") as response:
        async for item in feeder.items():
            await response.send(item)
    return response


KINDS = ("private", "shared", "room", "imperative", "both")
ROUTES = {kind: (kind,) for kind in KINDS} | {"both": ("shared", "room")}


async def test_the_counts_add_up(serve: Serve, turns_that_are_short: None) -> None:
    """Under random opens, closes, returns and publishes the counts are what came.

    Private, shared, channel, imperative and multiplexed streams: connections, events,
    bytes where nothing but the stream is on the connection, reasons, replays.
    """
    seed = secrets.randbits(32)
    print(f"seed {seed}")  # noqa: T201 -- to be seen when it has failed
    rng = random.Random(seed)
    feeder = Feeder()
    app = app_of(table_of(feeder), heartbeat=3600.0)
    app[FEEDER] = feeder
    app.router.add_get("/imperative", imperative)
    served = await serve(app)
    stats = served.sse.stats
    here: list[Client] = []
    gone: list[Client] = []
    opened: Counter[str] = Counter()
    replays: Counter[str] = Counter()
    missed: dict[Client, bool] = {}

    async def settle() -> None:
        """Read until as many events came as were sent."""
        everybody = here + gone

        def met() -> bool:
            total = stats().total
            return total["events"] == sum(c.events for c in everybody) and all(
                stats()[kind]["bytes"] == sum(len(c.body) for c in of(kind))
                for kind in ("private", "imperative")
                if kind in stats()
            )

        def of(kind: str) -> list[Client]:
            return [c for c in everybody if c.kind == kind]

        await until(met, what=f"seed {seed}: {stats().total}")

    async def begin(kind: str, last: str | None = None) -> None:
        client = Client(kind)
        await client.open(served, last)
        here.append(client)
        opened.update(ROUTES[kind])
        await until(lambda: stats().total["opened"] == opened.total())

    for _ in range(60):
        action = rng.choice(("open", "open", "leave", "return", "say", "say", "many"))
        if action == "open" and len(here) < 12:
            await begin(rng.choice(KINDS))
        elif action == "leave" and here:
            await settle()
            client = here.pop(rng.randrange(len(here)))
            await client.close()
            gone.append(client)
            missed[client] = False
            open_now = sum(len(ROUTES[c.kind]) for c in here)
            await until(lambda: stats().total["open"] == open_now)  # noqa: B023
        elif action == "return" and missed:
            client = rng.choice([*missed])
            news = missed.pop(client)
            if client.kind in ("private", "room"):
                replays[client.kind] += news
                await begin(client.kind, client.last_id)
        elif action == "say":
            feeder.release(rng.randrange(1, 5))
            for client in missed:
                missed[client] |= client.kind == "private"
            # A generator has its turns before anybody leaves or comes.
            await settle_generators()
        else:
            names = [f"e{n}" for n in range(rng.randrange(1, 130))]
            if rng.random() < 0.5:
                await served.sse.publish_many(rng.choice("ab"), names)
            else:
                # In one turn of the loop, and so in one write but for the first.
                some = [served.sse.publish(rng.choice("ab"), name) for name in names]
                await asyncio.gather(*some)
            for client in missed:
                missed[client] |= client.kind == "room"
    await settle()
    counts = stats()
    assert {k: v for k, v in opened.items() if k in counts} == {
        name: row["opened"] for name, row in counts.items() if row["opened"]
    }
    for name, row in counts.items():
        assert row["opened"] == row["open"] + sum(row["closed"].values())
        assert row["closed"]["client"] == sum(row["closed"].values())
        if name in ("private", "room"):
            assert replays[name] == row["replays"], f"seed {seed}"
    waiting = sum(1 for c in missed if c.kind == "private")
    # Its handler has its turn behind the end of a connection.
    await until(lambda: stats()["private"]["detached"] == waiting)
    assert waiting == served.sse.detached
    for client in here:
        await client.close()
    # Who sends by himself learns by that.
    feeder.release(1)


async def settle_generators() -> None:
    """Give generators their turns."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_it_returns(serve: Serve) -> None:
    """A dict by route that JSON carries, with each word, from the start to the end."""
    app = app_of(table_of(Feeder()))
    assert {} == app[SSE_KEY].stats()
    served = await serve(app)
    stats = served.sse.stats()
    assert ["private", "shared", "room"] == [*stats]
    assert json.loads(json.dumps(stats)) == stats == msgspec.to_builtins(stats)
    row = stats["room"]
    assert ["open", "opened", "closed", "events", "bytes", "replays"] == [*row][:6]
    assert ["gaps", "slow", "detached"] == [*row][6:]
    assert set(get_args(CloseReason)) == set(row["closed"])
    assert {"told", "disconnected", "conflated", "stalled"} == set(row["slow"])
    async with served.stream("/room") as stream:
        await stream.next("sse-hello")
        now = served.sse.stats()
        assert 1 == now["room"]["open"] == now.total["open"]
    await served.close()
    row = served.sse.stats()["room"]
    assert (0, 1, 1) == (row["open"], row["opened"], sum(row["closed"].values()))
    assert stats["room"]["opened"] == 0, "what was returned does not change"


async def test_a_closed_connection_is_not_open(serve: Serve) -> None:
    """From the moment on that it is closed, though its handler is yet to learn it."""
    served = await serve(app_of(table_of(Feeder())))
    async with served.stream("/room") as stream:
        await stream.next("sse-hello")
        [connection] = connections_of(served)
        before = served.sse.stats()["room"]
        connection.end("lifetime")
        row = served.sse.stats()["room"]
        assert (1, 0, 0, 1) == (
            before["open"],
            before["closed"]["lifetime"],
            row["open"],
            row["closed"]["lifetime"],
        )
        await until(lambda: served.sse.connections == 0)
        assert row == served.sse.stats()["room"]


async def test_a_gap_in_a_header_is_counted(serve: Serve, tmp_path: Path) -> None:
    """Of a shared run that any worker may run, on a route without control events."""
    table, feeder = SSERouteTableDef(), Feeder()

    @table.sse_route("/shared", shared=True, control_events=False, replay=2)
    async def shared(run: SharedRun) -> AsyncIterator[str]:
        async for item in feeder.items():
            yield item

    served = await serve(app_of(table, store=SQLiteStore(tmp_path / "events.db")))
    async with served.stream("/shared") as stream:
        feeder.release(8)
        first = await stream.next()
        await stream.collect(7)
    headers = {"Last-Event-ID": str(first.id)}
    async with served.session.get(f"{served.base}/shared", headers=headers) as again:
        assert "gap" == again.headers["SSE-Resume"]
        await until(lambda: served.sse.stats()["shared"]["gaps"]["expired"])
    gaps = Counter(served.sse.stats()["shared"]["gaps"])
    assert Counter(expired=1) == +gaps


async def test_slow_clients_are_counted(serve: Serve) -> None:
    """A gap told, a connection ended, the newest by key given: each is one."""
    table = table_of_rooms()

    @table.sse_route("/ended", on_slow="disconnect")
    async def ended(request: web.Request) -> Channels:
        return Channels("a")

    @table.sse_route("/newest", on_slow="conflate")
    async def newest(request: web.Request) -> Channels:
        return Channels("a")

    served = await serve(app_of(table, store=MemoryStore(max_events=4)))
    streams = [
        await slow_client(served, path) for path in ("/rooms/a", "/ended", "/newest")
    ]
    while not all(c.blocked for c in connections_of(served)):
        await served.sse.publish("a", "-" * 200_000, key="k")
    for _ in range(9):
        await served.sse.publish("a", "news", key="k")
    for stream in streams:
        go_on(stream)
    first, _, last = streams
    await first.next("sse-gap")
    while (await last.next()).data != "news":
        pass
    slow = {name: row["slow"] for name, row in served.sse.stats().items()}
    await until(lambda: served.sse.stats()["ended"]["closed"]["gap"] == 1)
    nothing = dict.fromkeys(("told", "disconnected", "conflated", "stalled"), 0)
    assert {**nothing, "told": 1} == slow["rooms"]
    assert {**nothing, "disconnected": 1} == slow["ended"]
    assert {**nothing, "conflated": 1} == slow["newest"]
    assert 1 == served.sse.stats()["rooms"]["gaps"]["slow"]
    for stream in streams:
        stream.drop()


async def test_gaps_are_counted_by_reason(serve: Serve, clock: SettableClock) -> None:
    """One that hello, or a header, has told, whatever tells it; none where none was."""
    feeder = Feeder()
    table = table_of(feeder)

    @table.sse_route("/quiet", control_events=False)
    async def quiet(request: web.Request) -> Channels:
        return Channels("a")

    app = app_of(table, clock=clock, store=MemoryStore(max_events=2))
    served = await serve(app)
    for path, brought in (
        ("/private", "sse1.r.AAAAAAAAAAAAAAAAAAAAAA.3"),
        ("/room", await served.sse.cursor()),
        ("/quiet", await served.sse.cursor()),
    ):
        if path != "/private":
            for number in range(5):
                await served.sse.publish("a", number)
        async with served.stream(path, last_event_id=brought) as stream:
            if path != "/quiet":
                await stream.next("sse-gap")
    gaps = {name: Counter(row["gaps"]) for name, row in served.sse.stats().items()}
    assert Counter(unknown=1) == +gaps["private"]
    assert Counter(expired=1) == +gaps["room"] == +gaps["quiet"]


async def test_the_log_has_a_line_at_open_and_one_at_close(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """Each with its fields, of a decorated route and of the imperative form."""
    feeder = Feeder()
    app = app_of(table_of(feeder))
    app[FEEDER] = feeder
    app.router.add_get("/imperative", imperative)
    with caplog.at_level(logging.INFO, "aiohttp_sse_routes"):
        served = await serve(app)
        for kind in ("room", "imperative"):
            client = Client(kind)
            await client.open(served)
            await served.sse.publish("a", "e1")
            feeder.release(1)
            await until(lambda: client.events == 1)  # noqa: B023
            await client.close()
            await until(lambda: served.sse.connections == 0)
    records = [r for r in caplog.records if r.sse_event in ("open", "close")]  # type: ignore[attr-defined]
    feeder.release(1)
    lines = [r.getMessage() for r in records]
    for kind, opened, closed in zip(
        ("room", "imperative"), records[::2], records[1::2], strict=True
    ):
        path = f"/{kind}"
        assert [f"open {path}", f"close {path}: client"] == lines[:2]
        del lines[:2]
        for record in (opened, closed):
            fields = vars(record)
            assert path == fields["sse_path"]
            assert fields["sse_route"].endswith(kind)
        fields = vars(closed)
        assert ("client", 1) == (fields["sse_reason"], fields["sse_events"])
        assert fields["sse_bytes"] > 10
        assert fields["sse_seconds"] >= 0


# -- Prometheus ------------------------------------------------------------------------


async def test_prometheus(serve: Serve) -> None:
    """A scrape, in any thread, says what `SSE.stats` does, as Prometheus names it."""
    app = app_of(table_of(Feeder()))
    registry = CollectorRegistry()
    collector = register(app[SSE_KEY], registry)
    with pytest.raises(ValueError, match="sse_connections_open"):
        register(app[SSE_KEY], registry)
    served = await serve(app)
    async with served.stream("/room") as stream:
        await served.sse.publish("a", "news")
        await stream.next()
        for text in (
            generate_latest(registry),
            await asyncio.to_thread(generate_latest, registry),
        ):
            values = {
                (sample.name, *(word for _, word in sorted(sample.labels.items()))): (
                    sample.value
                )
                for family in text_string_to_metric_families(text.decode())
                for sample in family.samples
            }
            row = served.sse.stats()["room"]
            assert 1 == values["sse_connections_open", "room"]
            assert 1 == values["sse_connections_opened_total", "room"]
            assert 1 == values["sse_events_total", "room"]
            assert row["bytes"] == values["sse_bytes_total", "room"] > 0
            assert 0 == values["sse_replays_total", "room"]
            assert 0 == values["sse_runs_detached", "private"]
            assert 0 == values["sse_connections_closed_total", "client", "room"]
            assert 0 == values["sse_gaps_total", "restarted", "shared"]
            assert 0 == values["sse_slow_clients_total", "told", "room"]
    registry.unregister(collector)


def test_prometheus_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra the import says what to install."""
    monkeypatch.delitem(sys.modules, "aiohttp_sse_routes.metrics")
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'aiohttp-sse-routes\["):
        importlib.import_module("aiohttp_sse_routes.metrics")
