"""What the pages on channels say is so: their programs are served, and tried."""

from __future__ import annotations

import asyncio
import html
import json
import re
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from aiohttp_sse_routes import MemoryStore, ReplayGap, SQLiteStore
from aiohttp_sse_routes.decoder import DecodedEvent
from aiohttp_sse_routes.testing import EventStream

from .helpers import Served
from .pages import ROOT, Page
from .programs import default_table
from .redis_server import RedisServer, needs_redis

pytestmark = pytest.mark.parametrize("handler_cancellation", [False], indirect=True)

Open = Callable[[str], Awaitable[Page]]

ANN = {"Cookie": "session=7f3a"}
BOB = {"Cookie": "session=c01d"}


@pytest.fixture(autouse=True)
def _default_table() -> Iterator[None]:
    with default_table():
        yield


@pytest.fixture
def run(
    serve: Callable[..., Awaitable[Served]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Open:
    """Return a function that runs a page on channels."""
    monkeypatch.chdir(tmp_path)

    async def run(name: str) -> Page:
        page = Page(ROOT / "docs" / "howto" / f"{name}.md", serve)
        await page.run()
        return page

    return run


def value(event: DecodedEvent) -> Any:
    """Return the value that was sent as JSON."""
    assert event.json, event
    return json.loads(event.data)


def posts(app: web.Application) -> bool:
    """Return whether *app* has a route to post to, beside the client's own."""
    return any(
        route.method == "POST" and "/_sse/" not in str(route.resource)
        for route in app.router.routes()
    )


async def greeted(stream: EventStream) -> dict[str, Any]:
    """Return the stream's hello."""
    if stream.hello is None:
        await stream.next("sse-hello")
    assert stream.hello is not None
    return stream.hello


async def test_publish_to_channels(run: Open, tmp_path: Path) -> None:
    """A room has a history, and each way of publishing reaches who follows."""
    page = await run("publish-to-channels")
    names = page.names
    app = next(app for app in page.apps if posts(app))
    served = await page.served(app)
    said = ""
    for text in ("one", "two"):
        async with served.session.post(
            served.base + "/rooms/attic/say", json={"text": text}
        ) as response:
            said = (await response.json())["id"]
    async with served.stream("/rooms/attic") as stream:
        events = await stream.collect(2)
        assert [(e.type, value(e)["text"]) for e in events] == [
            ("said", "one"),
            ("said", "two"),
        ]
        assert events[-1].id == said

    served = await page.served()
    sse = served.sse
    assert 401 == (await served.get("/inbox"))[0]
    async with served.stream("/inbox", headers={"X-User": "ann"}) as stream:
        await greeted(stream)
        await sse.publish("everybody", "hi")
        await sse.publish("user:bob", "not hers")
        await sse.publish("user:ann", "psst")
        assert ["hi", "psst"] == [e.data for e in await stream.collect(2)]
    ann, bob = [{"X-User": user} for user in ("ann", "bob")]
    async with served.stream("/lounge", headers=ann) as stream:
        await greeted(stream)
        async with served.stream("/lounge", headers=bob) as other:
            await greeted(other)
        events = await stream.collect(2)
        assert [("joined", "bob"), ("left", "bob")] == [
            (e.type, e.data) for e in events
        ]
    async with served.stream("/disk") as stream:
        assert value(await stream.next())["free"] > 0

    imports, lines = sse.subscribe("imports"), sse.subscribe("lines")
    await names["import_rows"](sse, [{"row": 1}, {"row": 2}])
    assert [1, 2] == [(await anext(imports)).data["row"] for _ in range(2)]
    (tmp_path / "lines.txt").write_text("a\nb\n")
    assert 2 == await asyncio.to_thread(names["read_file"], sse, "lines.txt")
    assert ["a", "b"] == [(await anext(lines)).data for _ in range(2)]

    orders = sse.subscribe("order:7")
    for _ in range(2):
        await names["paid"](sse, 7)
    first = await names["surely"](sse, "order:7", "shipped", "s7")
    assert first == await names["surely"](sse, "order:7", "shipped", "s7")
    await sse.publish("order:7", "end")
    told = [(await anext(orders)).data for _ in range(3)]
    assert [{"paid": True}, "shipped", "end"] == told


async def test_snapshot_then_changes(run: Open) -> None:
    """The state is first, and what changes behind the moment it was asked for."""
    page = await run("snapshot-then-changes")
    in_stream, in_page = [app for app in page.apps if posts(app)]
    served = await page.served(in_stream)
    async with served.stream("/match") as stream:
        events = await stream.collect(2)
        scores = [value(event) for event in events]
        assert [("red", 3), ("blue", 2)] == [(s["team"], s["score"]) for s in scores]
        await greeted(stream)
        async with served.session.post(served.base + "/goal/blue") as response:
            assert 204 == response.status
        assert {"team": "blue", "score": 3} == value(await stream.next())
        await stream.resume()
        assert "continued" == (await greeted(stream))["resumed"]
        stream.last_event_id = re.sub(r"\.l\.", ".s.", stream.last_event_id)
        await stream.resume()
        assert [3, 3] == [value(event)["score"] for event in await stream.collect(2)]
        assert "unknown" == stream.gaps[-1]["reason"]

    served = await page.served(in_page)
    _, body = await served.get("/")
    assert b"<li>salt &amp; pepper</li>" in body
    found = re.search(r"EventSource\((.*?)\);", body.decode())
    assert found is not None
    async with served.session.post(served.base + "/add", data="tea") as response:
        assert 204 == response.status
    async with served.stream(json.loads(html.unescape(found[1]))) as stream:
        event = await stream.next()
        assert ("added", "tea") == (event.type, event.data)
        assert stream.hello is not None
        assert "continued" == stream.hello["resumed"]


async def test_filter_a_channel(run: Open) -> None:
    """A subscriber is given what it may see, resumes, and tells holes itself."""
    page = await run("filter-a-channel")
    served = await page.served()
    counts: dict[str, int] = {}
    counting = asyncio.create_task(page.names["count"](served.sse, counts))
    await asyncio.sleep(0)

    async def alert(level: int) -> None:
        await served.sse.publish("alerts", {"level": level, "kind": "disk"})

    async with served.stream("/alerts?level=3") as stream:
        await greeted(stream)
        for level in (1, 4, 2, 5):
            await alert(level)
        assert [4, 5] == [value(e)["level"] for e in await stream.collect(2)]
        stream.drop()
        for level in (6, 1):
            await alert(level)
        await stream.resume()
        assert 6 == value(await stream.next())["level"]
        assert "continued" == (await greeted(stream))["resumed"]
        stream.drop()
        for level in range(1001):
            await alert(level)
        await stream.resume()
        event = await stream.next("lost")
        assert {"reason": "expired"} == value(event)
        await stream.resume()
        assert 3 == value(await stream.next())["level"]
    async with served.stream("/prices/usd") as stream:
        await greeted(stream)
        cursor = await served.sse.publish("prices", {"price": 10})
        event = await stream.next()
        assert (cursor, 11.0) == (event.id, value(event)["price"])
    await served.close()
    await counting
    assert {"disk"} == counts.keys()


async def test_slow_clients(run: Open) -> None:
    """A client of `conflate` is given the newest of each key, and is told no gap."""
    page = await run("slow-clients")
    served = await page.served(page.apps[0])
    async with served.stream("/prices") as stream, served.stream("/chat") as chat:
        await greeted(stream)
        await greeted(chat)
        await page.names["trade"](served.sse, "ABC", 1.0)
        await served.sse.publish("chat", 0)
        await stream.next()
        await chat.next()
        stream.drop()
        chat.drop()
        for price in range(1, 151):
            await page.names["trade"](served.sse, "ABC", price)
            await page.names["trade"](served.sse, "XYZ", price)
            await served.sse.publish("chat", price)
        await stream.resume()
        newest = [value(event) for event in await stream.collect(2)]
        assert [("ABC", 150), ("XYZ", 150)] == [
            (e["symbol"], e["price"]) for e in newest
        ]
        assert [] == stream.gaps
        await chat.resume()
        await chat.next()
        assert "expired" == chat.gaps[0]["reason"]


async def test_revoke_a_user(run: Open) -> None:
    """Who was thrown out is ended and refused; other rights come by a reconnect."""
    page = await run("revoke-a-user")
    app = page.apps[0]
    names = page.names
    log_out = web.Application()
    log_out.router.add_post("/log-out", names["log_out"])
    app.add_subapp("/session", log_out)
    served = await page.served(app)
    async with (
        served.stream("/rooms/kitchen", headers=ANN) as room,
        served.stream("/work", headers=ANN) as work,
        served.stream("/rooms/kitchen", headers=BOB) as other,
    ):
        await greeted(room)
        await work.next()
        await greeted(other)
        await names["throw_out"](served.sse, "kitchen", "ann")
        await room.rest()
        assert "disconnected" == value(room.control[-1])["reason"]
        await names["join"](served.sse, "kitchen", "bob")
        await other.rest()
        assert "sse-end" not in [event.type for event in other.control]
        await other.resume()
        assert "continued" == (await greeted(other))["resumed"]
        async with served.session.post(
            served.base + "/session/log-out", headers=ANN
        ) as response:
            assert 204 == response.status
        await work.rest()
        assert "disconnected" == value(work.control[-1])["reason"]
    assert 401 == (await served.get("/work", headers=ANN))[0]
    assert 200 == (await served.session.head(served.base + "/work", headers=BOB)).status


async def test_choose_a_store(run: Open) -> None:
    """The first application keeps its events in a file, the last in memory."""
    page = await run("choose-a-store")
    first = await page.served(page.apps[0])
    assert isinstance(first.sse._hub.store, SQLiteStore)
    last = await page.served(page.apps[-1])
    assert isinstance(last.sse._hub.store, MemoryStore)
    subscription = last.sse.subscribe("a", after=await last.sse.cursor())
    for number in range(201):
        await last.sse.publish("a", number)
    with pytest.raises(ReplayGap, match="lost"):
        await anext(subscription)
    assert 1 == (await anext(subscription)).data


async def test_use_sqlite(run: Open) -> None:
    """An event of one worker is delivered by another, and outlives both."""
    page = await run("use-sqlite")
    create_app = page.names["create_app"]
    one, two = [await page._serve(create_app("shared.db")) for _ in range(2)]
    async with two.stream("/news") as stream:
        await greeted(stream)
        await one.session.post(one.base + "/tell", data="hello")
        assert "hello" == (await stream.next()).data
        place = stream.last_event_id
    await one.session.post(one.base + "/tell", data="missed")
    await asyncio.gather(one.close(), two.close())
    again = await page._serve(create_app("shared.db"))
    async with again.stream("/news", last_event_id=place) as stream:
        assert "missed" == (await stream.next()).data
        assert [] == stream.gaps


@needs_redis
async def test_use_redis(
    run: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user that the page makes may do all that is needed; an outage is told."""
    text = (ROOT / "docs" / "howto" / "use-redis.md").read_text("utf-8")
    command = re.search(r"^ACL SETUSER .*$", text, re.MULTILINE)
    assert command is not None
    with RedisServer(tmp_path / "redis", appendonly="yes") as server:

        def allow() -> None:
            assert b"+OK" in server.command(*command[0].split())

        allow()
        monkeypatch.setenv(
            "REDIS_URL", f"redis://sse:password@127.0.0.1:{server.port}/0"
        )
        page = await run("use-redis")
        create_app = page.names["create_app"]
        one, two = [await page._serve(create_app()) for _ in range(2)]
        async with two.stream("/news") as stream:
            await greeted(stream)

            async def tell(text: str) -> int:
                async with one.session.post(one.base + "/tell", data=text) as response:
                    return response.status

            assert 204 == await tell("hello")
            assert "hello" == (await stream.next()).data
            server.kill()
            assert 503 == await tell("nobody is there")
            server.start()
            allow()

            async with asyncio.timeout(10):
                while await tell("back") != 204:  # noqa: ASYNC110 -- nothing says it
                    await asyncio.sleep(0.05)
            assert "back" == (await stream.next(timeout=10)).data
            assert [] == stream.gaps
        await asyncio.gather(one.close(), two.close())
