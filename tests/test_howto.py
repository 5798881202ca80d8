"""What the pages say is so: their programs are served, and tried from outside."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import shutil
import sqlite3
import ssl
import subprocess
import sys
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import trustme
from aiohttp import ClientConnectionError, web

from aiohttp_sse_routes import (
    SSE_KEY,
    Channels,
    SQLiteStore,
    SSERouteTableDef,
    setup,
)
from aiohttp_sse_routes.decoder import DecodedEvent

from .helpers import Served, until
from .pages import ROOT, Page, blocks_of
from .programs import default_table
from .scripted import scripted, stream

pytestmark = pytest.mark.parametrize("handler_cancellation", [False], indirect=True)

Open = Callable[[str], Awaitable[Page]]

needs_node = pytest.mark.skipif(
    shutil.which("node") is None, reason="the scripts of pages are run by node"
)

ANN = {"Authorization": "Bearer 3f786850e387"}
BOB = {"Authorization": "Bearer 89e6c98d9288"}
LOST = "sse1.r.AAAAAAAAAAAAAAAAAAAAAA.2"


@pytest.fixture(autouse=True)
def _default_table() -> Iterator[None]:
    with default_table():
        yield


@pytest.fixture
def run(
    serve: Callable[..., Awaitable[Served]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> Open:
    """Return a function that runs a page."""
    monkeypatch.chdir(tmp_path)
    # A page may say how to be told less: it is undone at the end.
    caplog.set_level(logging.NOTSET, "aiohttp_sse_routes")

    async def run(name: str) -> Page:
        page = Page(ROOT / name, serve)
        await page.run()
        return page

    return run


def value(event: DecodedEvent) -> Any:
    """Return the value that was sent as JSON."""
    assert event.json, event
    return json.loads(event.data)


async def test_readme(run: Open) -> None:
    """The README's clock ticks, and its shared stream has a history."""
    page = await run("README.md")
    served = await page.served()
    async with served.stream("/clock") as stream:
        assert "now" in value(await stream.next())
    async with served.stream("/load") as first:
        event = await first.next()
        async with served.stream("/load") as second:
            assert await second.next() == event


async def test_refuse_a_client(run: Open) -> None:
    """Guard, coroutine and generator refuse as the page says, and resume likewise."""
    served = await (await run("docs/howto/refuse-a-client.md")).served()
    for method in ("GET", "HEAD"):
        async with served.session.request(method, served.base + "/news") as response:
            assert response.status == 401
    async with served.stream("/news", headers=ANN) as stream:
        assert (await stream.next()).data == "hello"

    assert (await served.get("/report/7"))[0] == 401
    assert (await served.get("/report/7", headers=BOB))[0] == 404
    assert (await served.get("/report/8", headers=ANN))[0] == 404
    async with served.stream("/report/7", headers=ANN) as stream:
        assert [event.data for event in await stream.rest()] == [
            "first line",
            "second line",
        ]

    assert (await served.get("/rooms/attic"))[0] == 404
    async with served.stream("/rooms/garden") as stream:
        assert (await stream.next()).data == "welcome"


async def test_send_json(run: Open) -> None:
    """The order arrives as the page shows it, and `dumps` is asked for all but text."""
    page = await run("docs/howto/send-json.md")
    shown = [b.text.strip() for b in blocks_of(page.path) if b.language == "json"]
    served = await page.served(page.plain())
    async with served.stream("/orders") as stream:
        order = await stream.next()
        assert order.json
        assert order.data == shown[0]
    served = await page.served(page.apps[0])
    async with served.stream("/orders") as stream:
        # json.dumps knows no dataclass: `default=str` makes a text of all of it.
        assert value(await stream.next()).startswith("Order(id=UUID(")


async def test_name_events(run: Open) -> None:
    """Events have the names that the page gives them, one by one and by type."""
    served = await (await run("docs/howto/name-events.md")).served()
    async with served.stream("/disk") as stream:
        assert [event.type for event in await stream.rest()] == ["free", "warning"]
    async with served.stream("/market") as stream:
        assert [event.type for event in await stream.rest()] == [
            "price",
            "halt",
            "correction",
            "message",
        ]


async def test_end_a_stream(run: Open, capsys: pytest.CaptureFixture[str]) -> None:
    """A stream ends for good, or for now; and its generator ends with it."""
    served = await (await run("docs/howto/end-a-stream.md")).served()
    async with served.stream("/countdown") as stream:
        assert len(await stream.rest()) == 3
        assert json.loads(stream.control[-1].data) == {"reason": "finished"}
        await stream.resume()
        assert stream.status == 204

    async with served.stream("/market") as stream:
        await stream.rest()
        assert stream.retry == 600_000
        await stream.resume()
        assert (await stream.next()).data == "the last price of today"
        assert stream.hello is not None
        assert stream.hello["resumed"] == "fresh"
        assert stream.gaps == []

    async with served.stream("/feed") as stream:
        await stream.next()
    printed = ""

    def over() -> bool:
        nonlocal printed
        printed += capsys.readouterr().out
        return "over" in printed

    await until(over, timeout=1, what="the finally ran")


async def test_keep_a_database_session(
    run: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A generator's session lasts as long as the run; a middleware's does so too."""
    opened = _count_connections(monkeypatch)
    with contextlib.closing(sqlite3.connect(tmp_path / "notes.db")) as db, db:
        db.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT)")
        db.executemany("INSERT INTO notes (text) VALUES (?)", [("a",), ("b",)])
    page = await run("docs/howto/keep-a-database-session.md")
    app = next(app for app in page.apps if page.names["with_db"] in app.middlewares)
    served = await page.served(app)
    async with served.stream("/tail") as stream:
        assert [event.data for event in await stream.collect(2)] == ["a", "b"]
        assert opened.count("notes.db") == 1
        await stream.resume()
        with contextlib.closing(sqlite3.connect(tmp_path / "notes.db")) as db, db:
            db.execute("INSERT INTO notes (text) VALUES ('c')")
        assert (await stream.next()).data == "c"
        # One for the run, one for the connection that has resumed it.
        assert opened.count("notes.db") == 2
    served = await page.served()
    async with served.stream("/notes") as stream:
        assert [event.data for event in await stream.rest()] == ["a", "b", "c"]
    async with served.stream("/looks") as stream:
        assert [event.data for event in await stream.collect(3)] == ["a", "b", "c"]


async def test_resume_by_yourself(run: Open) -> None:
    """A place in the URL is what `last_event_id` returns, and nothing is missing."""
    served = await (await run("docs/howto/resume-by-yourself.md")).served()
    url = served.sse.url("rows", after=41)
    assert url == "/rows?last_event_id=41"
    async with served.stream(url) as stream:
        event = await stream.next()
        assert ("42", "after 41") == (event.id, event.data)
        assert stream.hello is not None
        assert stream.hello["resumed"] == "continued"
        assert stream.gaps == []


async def test_post_streams(run: Open) -> None:
    """A POST is streamed, and is not made again when its run has gone."""
    served = await (await run("docs/howto/post-streams.md")).served()
    async with served.stream("/count", method="POST", data="so it goes") as stream:
        assert [value(event)["word"] for event in await stream.rest()] == [
            "so",
            "it",
            "goes",
        ]
    assert (await served.get("/count"))[0] == 405
    async with served.stream(
        "/order", method="POST", data={"item": "tea"}, last_event_id=LOST
    ) as stream:
        assert await stream.rest() == []
        assert stream.gaps[0]["reason"] == "unknown"
        assert json.loads(stream.control[-1].data) == {"reason": "gone"}


async def test_limits(run: Open) -> None:
    """One client too many is told to come later, by its own address."""
    page = await run("docs/howto/limits.md")
    routes = SSERouteTableDef()

    @routes.sse_route("/endless")
    async def endless(request: web.Request) -> AsyncIterator[str]:
        yield "hush"
        await asyncio.Event().wait()

    app = page.apps[1]
    app.add_routes(routes)
    served = await page.served(app)
    one, another = {"X-Real-IP": "192.0.2.1"}, {"X-Real-IP": "192.0.2.2"}
    async with contextlib.AsyncExitStack() as streams:
        for _ in range(20):
            stream = served.stream("/endless", headers=one)
            await (await streams.enter_async_context(stream)).next()
        async with served.stream("/endless", headers=one) as late:
            assert late.status == 200
            assert (await late.next("sse-busy")).data == '{"reason":"limit"}'
            assert late.retry is not None
            assert 22_500 <= late.retry <= 37_500
        async with served.stream("/endless", headers=another) as other:
            await other.next()


@needs_node
async def test_use_the_client(run: Open, tmp_path: Path) -> None:
    """The scripts of the page do what it says, in the client of its application."""
    page = await run("docs/howto/use-the-client.md")
    lines = await _run_scripts(page, await page.served(), tmp_path)
    assert [
        ["kitchen", lines[0][1]],
        ["ann"],
        ["message", {"room": "garden", "since": None}],
        ["joined", "ann"],
    ] == lines


@needs_node
async def test_name_events_in_a_page(run: Open, tmp_path: Path) -> None:
    """The names reach the page's handlers."""
    page = await run("docs/howto/name-events.md")
    lines = await _run_scripts(page, await page.served(), tmp_path)
    assert [[17], ["nearly full"]] == lines


@needs_node
async def test_post_streams_in_a_page(run: Open, tmp_path: Path) -> None:
    """The page's loop has each word of what it sent."""
    page = await run("docs/howto/post-streams.md")
    lines = await _run_scripts(page, await page.served(), tmp_path)
    assert [[1, "so"], [2, "it"], [3, "goes"]] == lines


async def test_behind_a_proxy(run: Open) -> None:
    """The prefix is in the URLs of pages."""
    page = await run("docs/howto/behind-a-proxy.md")
    served = await page.served(page.apps[-1])
    assert served.sse._pages.client_url == "/live/_sse/client.js"


async def test_deploy(run: Open, tmp_path: Path) -> None:
    """The functions of the page call `run_app` with what it takes."""
    page = await run("docs/howto/deploy.md")
    authority = trustme.CA()
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    issued = authority.issue_cert("localhost")
    issued.cert_chain_pems[0].write_to_path(certificate)
    issued.private_key_pem.write_to_path(key)
    with patch.object(web, "run_app") as run_app:
        page.names["serve_with_tls"](str(certificate), str(key))
        assert isinstance(run_app.call_args.kwargs["ssl_context"], ssl.SSLContext)
        page.names["serve_with_uvloop"]()
        loop = run_app.call_args.kwargs["loop"]
        assert type(loop).__module__.startswith("uvloop")
        loop.close()
    create_app = page.names["create_app"]
    for _ in range(2):
        served = await page._serve(create_app())
        async with served.stream("/clock") as stream:
            assert (await stream.next()).data == "tick"


async def test_shutdown(run: Open, caplog: pytest.LogCaptureFixture) -> None:
    """A `finally` has the grace that the page gives it, and no more is said."""
    page = await run("docs/howto/shutdown.md")
    app = next(
        app for app in page.apps if app[SSE_KEY]._hub.settings.shutdown_grace > 1
    )
    served = await page.served(app)
    async with served.stream("/import") as stream:
        await stream.next()
        await asyncio.gather(served.runner.cleanup(), stream.rest())
        assert stream.retry is not None
        assert 2_250 <= stream.retry <= 3_750
    assert [] == [r for r in caplog.records if r.levelname == "WARNING"]


async def test_watch_it_run(run: Open) -> None:
    """Figures, metrics, also on a worker's own port, and an inspector with a guard."""

    async def find_user(authorization: str | None) -> types.SimpleNamespace | None:
        name = {ANN["Authorization"]: "ann", BOB["Authorization"]: "bob"}
        known = name.get(authorization or "")
        return types.SimpleNamespace(name=known) if known else None

    page = await run("docs/howto/watch-it-run.md")
    page.names["find_user"] = find_user
    figures, metrics, workers, inspected = await page.all_served()
    async with figures.stream("/ticks") as stream:
        await stream.next()
        row = json.loads((await figures.get("/figures"))[1])["ticks"]
        assert (1, 1, 1) == (row["open"], row["opened"], row["events"])
        text = page_block("docs/howto/watch-it-run.md", "json")
        shown = json.loads(text)
        assert [*shown] == [*row]
        for name in ("closed", "gaps", "slow"):
            assert shown[name] == row[name], name
    line = b'sse_connections_open{route="ticks"} 0.0'
    assert line in (await metrics.get("/metrics"))[1]
    for port in range(9101, 9133):
        with contextlib.suppress(ClientConnectionError):
            url = f"http://127.0.0.1:{port}/metrics"
            async with workers.session.get(url) as response:
                if line in await response.read():
                    break
    else:
        pytest.fail("no worker has its metrics")
    for headers, status in (({}, 403), (BOB, 403), (ANN, 200)):
        assert status == (await inspected.get("/_sse/", headers=headers))[0]


def page_block(name: str, language: str) -> str:
    """Return the first block of *language* in a page."""
    return next(b.text for b in blocks_of(ROOT / name) if b.language == language)


async def test_cors(run: Open) -> None:
    """A listed origin may read, and another gets an answer without the headers."""
    served = await (await run("docs/howto/cors.md")).served()
    allowed = "Access-Control-Allow-Origin"
    for method in ("GET", "OPTIONS"):
        for origin in ("https://shop.example.org", "https://evil.example.org"):
            async with served.session.request(
                method, served.base + "/prices", headers={"Origin": origin}
            ) as response:
                assert response.status == (200 if method == "GET" else 204)
                assert response.headers["Vary"] == "Origin"
                listed = origin == "https://shop.example.org"
                assert response.headers.get(allowed) == (origin if listed else None)
    async with served.session.get(
        served.base + "/_sse/client.js", headers={"Origin": "https://shop.example.org"}
    ) as response:
        # A browser refuses a module of another origin without this header.
        assert response.headers[allowed] == "https://shop.example.org"


async def test_content_security_policy(run: Open) -> None:
    """The nonce of the header is that of both scripts, and a new one each time."""
    served = await (await run("docs/howto/content-security-policy.md")).served()
    seen = set()
    for _ in range(2):
        async with served.session.get(served.base + "/") as response:
            policy = response.headers["Content-Security-Policy"]
            match = re.search(r"'nonce-([\w-]+)'", policy)
            assert match is not None
            page = await response.text()
            assert page.count(f'nonce="{match[1]}"') == page.count("<script") == 2
            seen.add(match[1])
    assert len(seen) == 2


async def test_eventsource_and_htmx(run: Open) -> None:
    """Fragments are escaped and named; without control events a header tells a gap."""
    served = await (await run("docs/howto/eventsource-and-htmx.md")).served()
    async with served.stream("/plain", last_event_id=LOST) as stream:
        assert stream.response is not None
        assert stream.response.headers["SSE-Resume"] == "gap"
        await stream.rest()
        assert stream.control == []
    async with served.stream("/notes") as stream:
        assert [(event.type, event.data) for event in await stream.rest()] == [
            ("note", "<li>milk</li>"),
            ("note", "<li>salt &amp; pepper</li>"),
        ]
    _, body = await served.get("/")
    assert b'sse-connect="/notes"' in body


@pytest.mark.usefixtures("handler_cancellation")
async def test_test_your_streams(tmp_path: Path) -> None:
    """The tests that the page shows pass, as those of a user's file do."""
    page = blocks_of(ROOT / "docs/howto/test-your-streams.md")
    parts: dict[str, str] = {}
    for block in page:
        parts[block.language] = parts.get(block.language, "") + block.text
    (tmp_path / "test_page.py").write_text(parts["python"])
    (tmp_path / "pytest.ini").write_text(
        parts["ini"] + "asyncio_default_fixture_loop_scope = function\n"
    )
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    count = parts["python"].count("async def test_")
    assert count > 10
    assert f"{count} passed" in done.stdout, done.stdout + done.stderr


async def test_follow_a_stream(run: Open) -> None:
    """The page's functions follow its stream, as they say."""
    page = await run("docs/howto/follow-a-stream.md")
    served = await page.served()
    url = served.base + "/orders"
    assert await page.names["follow"](url) == [1, 2, 3]
    assert await page.names["is_there"](url)
    assert not await page.names["is_there"](served.base + "/nowhere")
    assert (await page.names["first_order"](url)).number == 1
    async with scripted(stream(": still here\n\n", end="hold")) as other:
        assert await page.names["heartbeat"](other.base) == "still here"


async def test_move_from_aiohttp_sse(run: Open) -> None:
    """Both forms of the page tell the time."""
    page = await run("docs/howto/move-from-aiohttp-sse.md")
    for path, app in (("/hello", page.apps[0]), ("/hello2", page.plain())):
        served = await page.served(app)
        async with served.stream(path) as stream:
            assert re.search(r"\d\d:\d\d:\d\d", (await stream.next()).data)


async def test_compared_with_aiohttp_sse(run: Open) -> None:
    """The clock that is written by hand works, as far as it goes, and so does ours."""
    page = await run("docs/explanation/compared-with-aiohttp-sse.md")
    by_hand, ours, rooms = [await page.served(app) for app in page.apps]
    for served in (by_hand, ours):
        async with served.stream("/clock") as stream:
            await stream.next()
            await stream.resume()
            await stream.next()
            numbers = [str(event.id).rpartition(".")[2] for event in stream.events]
            assert numbers == ["1", "2"]
    for task in [run.task for run in page.names["RUNS"].values()]:
        task.cancel()
    await rooms.sse.publish("room:42", "hi")
    async with rooms.stream("/rooms/42") as stream:
        assert (await stream.next()).data == "hi"


async def test_publish_from_elsewhere(
    run: Open, serve: Callable[..., Awaitable[Served]], tmp_path: Path
) -> None:
    """What is published in each way of the page comes in a stream, and once."""
    page = await run("docs/howto/publish-from-elsewhere.md")
    app = web.Application()
    table = SSERouteTableDef()

    @table.sse_route("/all")
    async def follow(request: web.Request) -> Channels:
        return Channels("news", "order:7", "imports")

    # A store of its own, on the file that the page's own application has open.
    setup(app, table, store=SQLiteStore(tmp_path / "events.db"))
    served = await serve(app)
    async with served.stream("/all") as stream:
        await stream.next("sse-hello")
        await page.names["announce"]("closed on Sunday")
        for _ in range(2):
            await asyncio.to_thread(page.names["send_invoice"], "task 1", 7)
        await page.names["publish_rows"]([{"row": 1}, {"row": 2}])
        assert [
            {"text": "closed on Sunday"},
            {"order": 7, "invoice": "2026-00007"},
            {"row": 1},
            {"row": 2},
        ] == [value(event) for event in await stream.collect(4)]

    page.names["TOKEN"] = "6b86b273"
    served = await page.served()
    headers = {"Authorization": "Bearer 6b86b273", "Idempotency-Key": "1"}
    async with served.stream("/news") as stream:
        assert {"text": "closed on Sunday"} == value(await stream.next())
        cursors = []
        for _ in range(2):
            async with served.session.post(
                served.base + "/publish/news", json=["from elsewhere"], headers=headers
            ) as response:
                assert response.status == 201
                cursors.append((await response.json())["id"])
        event = await stream.next()
        assert ["from elsewhere"] == value(event)
        assert [event.id] * 2 == cursors


async def test_several_workers(
    run: Open, serve: Callable[..., Awaitable[Served]]
) -> None:
    """Two applications of the page, each with its store, are one log to clients."""
    page = await run("docs/howto/several-workers.md")
    one = await page.served()
    two = await serve(page.names["create_app"]())
    async with one.stream("/news") as here, two.stream("/news") as there:
        for number, served in enumerate((one, two, one)):
            url = served.base + "/news"
            async with served.session.post(url, data=str(number)) as response:
                assert response.status == 201
        for stream in (here, there):
            texts = [value(event)["text"] for event in await stream.collect(3)]
            assert ["0", "1", "2"] == texts
        here.url = two.base + "/news"
        await here.resume()
        await here.next("sse-hello")
        assert here.hello is not None
        assert here.hello["resumed"] == "continued"


async def test_chat_room(run: Open) -> None:
    """The tutorial's chat has its page, its rooms, and what was said to the end."""
    page = await run("docs/tutorial/chat-room.md")
    served = await page.served()
    _, body = await served.get("/")
    assert b'import sse from "/_sse/client.js"' in body
    _, client = await served.get("/_sse/client.js")
    assert b'"room":["/rooms/{room}"' in client.replace(b" ", b"")
    async with served.stream("/rooms/lobby") as stream:
        assert {"name": "Ann", "text": "I was here"} == value(await stream.next())


async def _run_scripts(page: Page, served: Served, folder: Path) -> list[Any]:
    """Run the scripts of a page, and return what they write to the console."""
    blocks = [b.text for b in blocks_of(page.path) if b.language == "js"]
    _, client = await served.get("/_sse/client.js")
    (folder / "client.mjs").write_bytes(client)
    script = _SCRIPT.replace("BASE", json.dumps(served.base))
    script = script.replace("BLOCKS", "\n".join(blocks))
    (folder / "page.mjs").write_text(script, "utf-8")
    process = await asyncio.create_subprocess_exec(
        "node", "page.mjs", cwd=folder, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(15):
        output, _ = await process.communicate()
    assert process.returncode == 0
    lines: list[Any] = json.loads(output)
    return lines


_SCRIPT = """
import { createSse } from "./client.mjs";

const sse = createSse(BASE);
const opened = [];
for (const name of Object.keys(sse)) {
  if (!sse[name].meta) continue;
  const open = sse[name];
  sse[name] = (...args) => {
    const stream = open(...args);
    opened.push(stream);
    return stream;
  };
}
const lines = [];
const write = (...args) => lines.push(args);
const console = { log: write, warn: write };
const element = { set textContent(text) { if (text) write(text); } };
const document = { getElementById: () => element };
const show = () => {};
const token = async () => "t";
const location = {};
const run = async () => {
BLOCKS
};
await run();
await Promise.all(opened.map((stream) => stream.closed));
process.stdout.write(JSON.stringify(lines));
process.exit();
"""


def _count_connections(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note each database that is opened."""
    opened: list[str] = []
    connect = sqlite3.connect

    def counted(database: Any, **options: Any) -> sqlite3.Connection:
        opened.append(database)
        connection: sqlite3.Connection = connect(database, **options)
        return connection

    monkeypatch.setattr(sqlite3, "connect", counted)
    return opened
