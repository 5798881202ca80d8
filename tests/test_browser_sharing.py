"""Real browsers whose tabs share connections: one worker for all, or one line a tab.

Law: whatever happens to one tab, the others see each event once and in order; and what
is asserted of connections is counted at the server.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web

from aiohttp_sse_routes import Channels, SSERouteTableDef, get_sse, sse_response

from .browser.driver import Tab
from .browser.fixtures import quiet
from .browser.site import Place, Source, app_for_pages, numbers, table_of
from .browser.terminator import terminator_before
from .helpers import until

pytestmark = pytest.mark.timeout(60)

ALIKE = "/pages/alike"
CLASSIC = "/pages/classic"
STRICT = f"{CLASSIC}?strict"
FOUR = "window.seen = [1, 2, 3, 4].map((one) => watch(sse.many({one})));"
OPEN = "seen.every(({stream}) => stream.info.state === 'open')"


async def follow(tab: Tab, place: Place, code: str = FOUR, page: str = CLASSIC) -> None:
    """Have *tab* follow streams, until all are open."""
    await tab.go(place.base + page)
    await tab.run(code)
    await tab.until(OPEN)


async def settled(place: Place, count: int = 1, *, timeout: float = 10) -> None:
    """Wait until *count* connections carry all streams."""
    await until(
        lambda: place.carrying == count,
        timeout=timeout,
        what=f"{count} connections carry streams, not {place.carrying}",
    )


async def complete(tab: Tab, last: int) -> None:
    """Fail if a stream of *tab* does not come to *last* without a hole or a repeat."""
    await tab.until(f"seen.every(({{data}}) => data.at(-1) === {last})", timeout=20)
    for data in await tab.evaluate("seen.map(({data}) => data)"):
        assert numbers(last, first=data[0]) == data
    assert [] == await tab.evaluate("seen.flatMap(({gaps}) => gaps)")


async def test_eight_tabs(place: Place, tab: Tab, source: Source) -> None:
    """Eight tabs with four streams each have one connection, and all are complete.

    Another request is answered at once meanwhile. Of these tabs one is closed, one goes
    elsewhere, one hangs for five seconds, one is frozen: the others see nothing of it.
    (Firefox has no freezing that a test could ask for; there the tab is only not seen.)
    """
    await place.serve(app_for_pages(table_of(source)))
    tabs = [await tab.browser.open(beside=tab) for _ in range(8)]
    for one in tabs:
        await follow(one, place)
        assert place.carrying <= 2
    await settled(place)
    vias = await tabs[0].evaluate("seen.map(({stream}) => stream.info.via)")
    assert ["worker"] * 4 == vias
    source.release(50)
    for one in tabs:
        await complete(one, 50)
        assert "ok" == await one.evaluate(
            "Promise.race([fetch('/pages/other').then(() => 'ok'), "
            "new Promise((resolve) => setTimeout(resolve, 1000, 'late'))])"
        )
    first, second, hung, frozen, *others = tabs
    await first.close()
    source.release(50)
    await second.go(place.base + "/pages/other")
    source.release(50)
    hanging = asyncio.create_task(
        hung.run("const end = Date.now() + 5000; while (Date.now() < end);")
    )
    if tab.browser.name == "chromium":
        await frozen.freeze()
    source.release(50)
    for one in others:
        await complete(one, 200)
        assert [] == await one.evaluate("seen.flatMap(({errors}) => errors)")
    await hanging
    await complete(hung, 200)
    if tab.browser.name == "chromium":
        await frozen.freeze(False)
    await complete(frozen, 200)
    await settled(place)
    for one in (hung, frozen, *others):
        await quiet(one)
        await one.close()
    await second.close()
    await until(lambda: place.carrying == 0, timeout=10, what="no stream is open")


# Only Chromium lets a test end its workers; for Firefox see the next test.
@pytest.mark.parametrize("browser", ["chromium"], indirect=True)
async def test_the_worker_is_killed(place: Place, tab: Tab, source: Source) -> None:
    """Tabs whose worker is killed meet in a new one, and see no gap and no repeat."""
    await place.serve(app_for_pages(table_of(source)))
    tabs = [tab, *[await tab.browser.open(beside=tab) for _ in range(2)]]
    for one in tabs:
        await follow(one, place)
    source.release(50)
    for one in tabs:
        await complete(one, 50)
    for kills in (1, 2):
        assert 1 == await tab.kill_workers()
        source.release(50)
        for one in tabs:
            await complete(one, 50 + 50 * kills)
        await settled(place)
    source.release(50)
    for one in tabs:
        await complete(one, 200)
        assert ["worker"] * 4 == await one.evaluate(
            "seen.map(({stream}) => stream.info.via)"
        )
        await quiet(one)


# Firefox lets no test end a worker, but its processes can be ended.
@pytest.mark.parametrize("browser", ["firefox"], indirect=True)
async def test_the_worker_dies_with_a_tab(
    place: Place, tab: Tab, source: Source
) -> None:
    """Where the process of a tab dies, and the worker with it, the others go on."""
    await place.serve(app_for_pages(table_of(source)))
    host = await tab.browser.open(beside=tab)
    tabs = [tab, await tab.browser.open(beside=tab)]
    # The worker is where its first page is, and these are each in another process.
    for one in (host, *tabs):
        await follow(one, place)
    await settled(place)
    source.release(50)
    for one in tabs:
        await complete(one, 50)
    before = len(place.streams("/_sse/streams"))
    await host.crash()
    source.release(50)
    await until(lambda: len(place.streams("/_sse/streams")) > before, timeout=10)
    for one in tabs:
        await complete(one, 100)
        vias = await one.evaluate("seen.map(({stream}) => stream.info.via)")
        assert ["worker"] * 4 == vias
        await quiet(one)
    # Firefox takes its time to close what the process has had open.
    await settled(place, timeout=30)
    await host.close()


def rooms() -> SSERouteTableDef:
    """Return a route of channels whose members are told by a cookie."""
    table = SSERouteTableDef()

    @table.sse_route("/mine")
    async def mine(request: web.Request) -> Channels:
        user = request.cookies.get("user")
        if user is None:
            raise web.HTTPUnauthorized
        return Channels(f"user:{user}", history=5)

    return table


async def test_two_users(place: Place, tab: Tab) -> None:
    """After a logout and a login in one browser no event of the first gets to a tab.

    Tabs of one user share a stream; where no user is told, channels are not shared.
    """
    app = app_for_pages(rooms())
    await place.serve(app)
    tabs = {
        name: await tab.browser.open(beside=tab)
        for name in ("ann", "ann too", "bob", "bob too", "untold")
    }
    code = "window.seen = [watch(sse.mine())]"
    for name, one in tabs.items():
        user = name.partition(" ")[0]
        if user == "untold":
            await one.go(f"{place.base}/pages/module")
            await one.until("window.sse")
            await one.run(code)
            await one.until(OPEN)
        else:
            await follow(one, place, code, f"{CLASSIC}?user={user}")
    # The worker of each user, and the tab that shares with nobody.
    await settled(place, 3)
    vias = [await one.evaluate("seen[0].stream.info.via") for one in tabs.values()]
    assert ["worker"] * 4 + ["direct"] == vias
    sse = get_sse(app)
    for number in (1, 2, 3):
        await sse.publish("user:ann", f"ann {number}")
        await sse.publish("user:bob", f"bob {number}")
    for name, one in tabs.items():
        user = "bob" if name == "untold" else name.partition(" ")[0]
        await one.until("seen[0].data.length === 3")
        expected = [f"{user} {number}" for number in (1, 2, 3)]
        assert expected == await one.evaluate("seen[0].data")
        await quiet(one)
    # A new tab gets the history of who is logged in, though a stream runs already.
    new = await tab.browser.open(beside=tab)
    await follow(new, place, code, f"{CLASSIC}?user=ann")
    await new.until("seen[0].data.length === 3")
    await sse.publish("user:ann", "ann 4")
    await sse.publish("user:bob", "bob 4")
    await new.until("seen[0].data.at(-1) === 'ann 4'")
    expected = [f"ann {number}" for number in (1, 2, 3, 4)]
    assert expected == await new.evaluate("seen[0].data")
    assert expected == await tabs["ann too"].evaluate("seen[0].data")
    await settled(place, 3)


# Nothing in it is an engine's own.
@pytest.mark.parametrize("browser", ["chromium"], indirect=True)
async def test_a_quiet_stream(place: Place, tab: Tab) -> None:
    """A new tab shares a stream on which nothing comes by which the two could be told.

    The channel's place has moved by what was published to others.
    """
    app = app_for_pages(rooms())
    await place.serve(app)
    sse = get_sse(app)
    code = "window.seen = [watch(sse.mine())]"
    page = f"{CLASSIC}?user=ann"
    await follow(tab, place, code, page)
    await sse.publish("user:bob", "for another")
    other = await tab.browser.open(beside=tab)
    await follow(other, place, code, page)
    assert 2 == place.carrying
    await settled(place)
    for number in (1, 2, 3):
        await sse.publish("user:ann", number)
    for one in (tab, other):
        await one.until("seen[0].data.length === 3")
        assert [1, 2, 3] == await one.evaluate("seen[0].data")
        assert [] == await one.evaluate("seen[0].gaps")


async def test_a_new_tab_is_asked_for_what_it_may(place: Place, tab: Tab) -> None:
    """A stream that tabs share is given to nobody whom the server does not let in.

    Not to one either who says that it has come to a place where the others have been.
    """
    source = Source()
    table = SSERouteTableDef()

    def guard(request: web.Request) -> bool:
        return request.cookies.get("user") == "ann"

    @table.sse_route("/secret", shared=True, guard=guard)
    async def secret(run: Any) -> AsyncIterator[int]:
        async for number in source.numbers():
            yield number

    await place.serve(app_for_pages(table))
    code = "window.seen = [watch(sse.secret({}, {session: ''}))]"
    await follow(tab, place, code, f"{CLASSIC}?user=ann")
    other = await tab.browser.open(beside=tab)
    await other.go(f"{place.base}{CLASSIC}?user=bob")
    await other.run(code)
    assert "fatal" == await other.evaluate("seen[0].stream.closed")
    assert 403 == await other.evaluate("seen[0].stream.info.error.status")
    assert await other.evaluate("seen[0].stream.info.error instanceof Error")
    source.release(3)
    await complete(tab, 3)
    assert [] == await other.evaluate("seen[0].data")
    last = await tab.evaluate("seen[0].stream.lastEventId")
    options = f"{{session: '', lastEventId: '{last}'}}"
    await other.run(f"window.seen = [watch(sse.secret({{}}, {options}))]")
    assert "fatal" == await other.evaluate("seen[0].stream.closed")
    assert 403 == await other.evaluate("seen[0].stream.info.error.status")
    source.release(1)
    await complete(tab, 4)
    assert [] == await other.evaluate("seen[0].data")


async def test_two_builds(place: Place, tab: Tab, source: Source) -> None:
    """Pages of two builds of an application have a worker each, and both go on."""
    await place.serve(app_for_pages(table_of(source)))
    await follow(tab, place)
    table = table_of(source)

    @table.sse_route("/new")
    async def new(request: web.Request) -> AsyncIterator[int]:
        yield 1

    await place.serve(app_for_pages(table))
    other = await tab.browser.open(beside=tab)
    await follow(other, place)
    third = await tab.browser.open(beside=tab)
    await follow(third, place)
    await tab.until(f"{OPEN} && seen[0].gaps.length", timeout=20)
    await tab.run("for (const one of seen) one.gaps.length = 0")
    await settled(place, 2)
    source.release(50)
    for one in (tab, other, third):
        await complete(one, 50)
        await quiet(one)
    scripts = {asked.path for asked in place.asked if "/hub-" in asked.path}
    assert 2 == len(scripts)


async def test_the_streams_of_a_tab(place: Place, tab: Tab, source: Source) -> None:
    """Thirty-two streams that open together cost one request, and one more a second.

    A first stream has a connection of its own, and is on that of the others with them.
    """
    await place.serve(app_for_pages(table_of(source)))
    await tab.go(place.base + CLASSIC)
    await tab.run("window.seen = [watch(sse.private())]")
    await tab.until(OPEN)
    source.release(5)
    await complete(tab, 5)
    assert "direct" == await tab.evaluate("seen[0].stream.info.via")
    await tab.run("for (let i = 1; i < 32; i++) seen.push(watch(sse.private()))")
    await tab.until(OPEN)
    await tab.until("seen.every(({stream}) => stream.info.via === 'mux')")
    assert 1 == len(place.streams("/_sse/streams"))
    await settled(place)
    source.release(5)
    await complete(tab, 10)
    await tab.run("seen.push(watch(sse.private()))")
    await tab.until(OPEN)
    await settled(place, 2)
    await tab.run("seen.pop().stream.close()")
    await settled(place)
    assert 2 == len(place.streams("/_sse/streams"))
    place.reset()
    source.release(5)
    await complete(tab, 15)
    assert 3 == len(place.streams("/_sse/streams"))
    await tab.run("seen.forEach(({stream}) => stream.close())")
    await until(lambda: source.running == 0, timeout=10, what="the runs have ended")
    assert 0 == place.carrying
    await quiet(tab)


async def test_a_refused_stream(place: Place, tab: Tab, source: Source) -> None:
    """A stream that is refused has its status, and those beside it do not notice."""
    table = table_of(source)

    @table.sse_route("/forbidden")
    async def forbidden(request: web.Request) -> Channels:
        raise web.HTTPForbidden(text="not you")

    @table.sse_route("/short")
    async def short(request: web.Request) -> AsyncIterator[int]:
        yield 1
        yield 2

    await place.serve(app_for_pages(table))
    await tab.go(place.base + CLASSIC)
    await tab.run(
        "window.seen = [watch(sse.private()), watch(sse.private())];"
        "window.no = watch(sse.forbidden()); window.short = watch(sse.short());"
    )
    assert "fatal" == await tab.evaluate("no.stream.closed")
    error = "(({kind, status, body}) => [kind, status, body])(no.stream.info.error)"
    assert ["http", 403, "not you"] == await tab.evaluate(error)
    assert "done" == await tab.evaluate("short.stream.closed")
    assert [1, 2] == await tab.evaluate("short.data")
    await tab.until(OPEN)
    source.release(5)
    await complete(tab, 5)
    assert 1 == len(place.streams("/_sse/streams"))
    assert 1 == len(place.streams("/forbidden")) == len(place.streams("/short"))
    assert [] == await tab.evaluate("seen.flatMap(({errors}) => errors)")


async def test_without_the_endpoint(place: Place, tab: Tab, source: Source) -> None:
    """Where the endpoint is refused, each stream has a connection of its own."""

    @web.middleware
    async def refuse(request: web.Request, handler: Any) -> web.StreamResponse:
        if request.path == "/_sse/streams":
            raise web.HTTPForbidden
        answer: web.StreamResponse = await handler(request)
        return answer

    app = app_for_pages(table_of(source))
    app.middlewares.append(refuse)
    await place.serve(app)
    await follow(
        tab, place, "window.seen = [watch(sse.private()), watch(sse.shared())]"
    )
    source.release(5)
    await complete(tab, 5)
    assert ["direct", "worker"] == await tab.evaluate(
        "seen.map(({stream}) => stream.info.via)"
    )
    assert [] == await tab.evaluate("seen.flatMap(({errors}) => errors)")
    await settled(place, 2)


async def test_without_a_worker(place: Place, tab: Tab, source: Source) -> None:
    """Under a policy that forbids workers each tab has one connection, in silence."""
    await place.serve(app_for_pages(table_of(source)))
    other = await tab.browser.open(beside=tab)
    both = (tab, other)
    await asyncio.gather(*(follow(one, place, page=STRICT) for one in both))
    for one in both:
        assert [] == await one.evaluate("noise")
    await settled(place, 2)
    source.release(50)
    place.reset()
    source.release(50)
    for one in (tab, other):
        await complete(one, 100)
        assert ["mux"] * 4 == await one.evaluate(
            "seen.map(({stream}) => stream.info.via)"
        )


@pytest.mark.parametrize(
    "options",
    [
        "{share: 'off'}",
        "{headers: {'X-Some': 'thing'}}",
        "{fetch: (...all) => fetch(...all)}",
        "{credentials: 'omit'}",
    ],
)
async def test_not_shared(place: Place, tab: Tab, source: Source, options: str) -> None:
    """A stream with options of its own, or `share: "off"`, shares nothing."""
    await place.serve(app_for_pages(table_of(source)))
    two = "window.seen = [watch(sse.private()), watch(sse.shared())]"
    await follow(tab, place, f"sse.configure({options}); {two}")
    source.release(5)
    await complete(tab, 5)
    assert ["direct"] * 2 == await tab.evaluate(
        "seen.map(({stream}) => stream.info.via)"
    )
    assert [] == place.streams("/_sse/streams")
    assert 2 == place.carrying


async def test_what_is_opened_by_its_url(
    place: Place, tab: Tab, source: Source
) -> None:
    """The look-alike of `EventSource`, and `sse.open`, share as the functions do.

    Eight tabs of existing code have one connection, and another request is answered. A
    stream that a route does not let share, or that none has, has one of its own.
    """
    table = table_of(source)

    @table.sse_route("/alone", control_events=False)
    async def alone(request: web.Request) -> AsyncIterator[int]:
        async for number in source.numbers():
            yield number

    await place.serve(app_for_pages(table))
    tabs = [tab, *[await tab.browser.open(beside=tab) for _ in range(7)]]
    for one in tabs:
        await one.go(place.base + ALIKE)
        await one.run(
            "window.opens = 0; window.seen = follow('/many/a%2Fb?x=1');"
            "seen.source.addEventListener('open', () => opens++);"
        )
        await one.until("opens")
    await settled(place)
    source.release(5)
    expected = [str(number) for number in numbers(5)]
    for one in tabs:
        await one.until("seen.data.length === 5")
        assert expected == await one.evaluate("seen.data")
        assert [1, []] == await one.evaluate("[opens, seen.errors]")
        assert "ok" == await one.evaluate("fetch('/pages/other').then(() => 'ok')")
        await quiet(one)
    # A connection of its own for each that may share with nobody.
    await tab.run(
        "window.more = ['/many/x?y', '/shared', '/numbers', '/alone', '/none']"
        ".map((path) => sse.open(path));"
    )
    await tab.until("more.slice(0, 4).every(({info}) => info.state === 'open')")
    vias = await tab.evaluate("more.map(({info}) => info.via)")
    assert ["worker", "worker", "mux", "direct", "direct"] == vias
    assert "fatal" == await tab.evaluate("more[4].closed")


@pytest.mark.parametrize(
    ("page", "via"), [(CLASSIC, "worker"), (STRICT, "mux")], ids=["worker", "tab"]
)
async def test_a_handler_of_another(
    place: Place, tab: Tab, source: Source, page: str, via: str
) -> None:
    """What a route's path fits, and another handler has, comes as it does by itself.

    The streams beside it do not notice, and each tab asks for it anew: nobody knows
    whom such an answer is for.
    """
    served: list[str] = []

    async def special(request: web.Request) -> web.StreamResponse:
        async with sse_response(request) as stream:
            served.append(request.headers.get("Last-Event-ID", ""))
            count = len(served)
            await stream.send(f"for client {count}", id=str(count))
            await stream.wait()
        return stream

    app = web.Application()
    app.router.add_get("/many/special", special)
    tabs = [tab, await tab.browser.open(beside=tab)]
    await place.serve(app_for_pages(table_of(source), app=app))
    for number, one in enumerate(tabs, start=1):
        await follow(one, place, page=page)
        await one.run("window.special = watch(sse.open('/many/special'))")
        await one.until("special.data.length")
        assert [f"for client {number}"] == await one.evaluate("special.data")
        info = "(({state, via}) => [state, via])(special.stream.info)"
        assert ["open", "direct"] == await one.evaluate(info)
    source.release(5)
    for one in tabs:
        await complete(one, 5)
        assert [] == await one.evaluate("[special, ...seen].flatMap((it) => it.errors)")
        vias = await one.evaluate("seen.map(({stream}) => stream.info.via)")
        assert [via] * 4 == vias
    # It comes back by itself, from where it was, and does not ask if it may share.
    before = len(place.streams("/_sse/streams"))
    await tabs[1].run("special.stream.reconnect()")
    await tabs[1].until("special.data.length === 2")
    assert ["", "", "2"] == served
    assert "direct" == await tabs[1].evaluate("special.stream.info.via")
    assert before == len(place.streams("/_sse/streams"))
    # So does the look-alike of `EventSource`.
    await tab.run(
        "special.stream.close(); window.alike = new sse.EventSource('/many/special');"
        "window.heard = []; alike.onmessage = ({data}) => heard.push(data);"
    )
    await tab.until("heard.length")
    assert [["for client 4"], 1] == await tab.evaluate("[heard, alike.readyState]")
    source.release(5)
    for one in tabs:
        await complete(one, 10)
        assert [] == await one.evaluate("noise")
    await tabs[1].close()


# What it is about is the hub's; `tests/js` has the rest of it, step by step.
@pytest.mark.parametrize("browser", ["chromium"], indirect=True)
async def test_tabs_of_different_places(place: Place, tab: Tab, source: Source) -> None:
    """Tabs that have come to different places meet in a new worker.

    One of them has a connection beside the others' until it is where they are, each
    sees each event once, and one connection is left.
    """
    await place.serve(app_for_pages(table_of(source)))
    await follow(
        tab, place, "window.seen = [watch(sse.many({one: 1}, {share: 'off'}))]"
    )
    source.release(9)
    await complete(tab, 9)
    ids = await tab.evaluate("seen[0].events.map(({id}) => id)")
    tabs = [await tab.browser.open(beside=tab) for _ in range(2)]
    places = [ids[6], ids[2]]
    codes = [
        f"window.seen = [watch(sse.many({{one: 1}}, {{lastEventId: '{one}'}}))]"
        for one in places
    ]
    # The other way round the hub has what the second has missed.
    for one, code in zip(tabs, codes, strict=True):
        await follow(one, place, code)
    for one, first in zip(tabs, (8, 4), strict=True):
        await one.until("seen[0].data.at(-1) === 9")
        assert numbers(9, first=first) == await one.evaluate("seen[0].data")
    # The first tab's, and the one of those two.
    await settled(place, 2)
    asked = [one.last_event_id for one in place.streams("/many/1")]
    assert places == [one for one in asked if one]
    assert 2 == len(place.streams("/_sse/streams"))
    source.release(3)
    for one in tabs:
        await complete(one, 12)
        assert ["worker"] == await one.evaluate(
            "seen.map(({stream}) => stream.info.via)"
        )
        await quiet(one)
        await one.close()
    await settled(place, 1)


async def test_replayed(place: Place, tab: Tab, source: Source) -> None:
    """What was there before a connection is told as replayed, over tabs as well.

    A tab that comes later has what it missed replayed, by the hub or by the server; for
    the others it was live.
    """
    table = table_of(source)

    @table.sse_route("/past", shared=True, history=3, retry=500)
    async def past(run: Any) -> AsyncIterator[int]:
        async for number in source.numbers():
            yield number

    await place.serve(app_for_pages(table))
    kinds = ("past({}", "past({}, {share: 'off'}", "private({}")
    code = "window.streams = [" + ", ".join(f"sse.{kind})" for kind in kinds) + "];"
    code += (
        "window.all = streams.map((stream) => { const one = []; "
        "stream.onAny(({data, lastEventId, replayed}) => "
        "one.push([data, replayed, lastEventId])); return one; });"
    )
    is_open = "streams.every(({info}) => info.state === 'open')"
    told = "all.map((one) => one.map(([data, replayed]) => [data, replayed]))"

    def marked(first: int, *counts: int) -> list[list[Any]]:
        """Return numbers from *first* on: live, replayed, live, and so on."""
        flags = [flag for at, n in enumerate(counts) for flag in [at % 2 == 1] * n]
        return [[first + at, flag] for at, flag in enumerate(flags)]

    await tab.go(place.base + CLASSIC)
    await tab.run(code)
    await tab.until(is_open)
    source.release(3)
    await tab.until("all.every((one) => one.length === 3)")
    place.hub.cut_all()
    source.release(4)
    await tab.until("all.every((one) => one.length === 7)")
    place_of_fifth = await tab.evaluate("all[0][4][2]")
    source.release(1)
    await tab.until("all.every((one) => one.length === 8)")
    assert [marked(1, 3, 4, 1)] * 3 == await tab.evaluate(told)
    other = await tab.browser.open(beside=tab)
    await other.go(place.base + CLASSIC)
    await other.run(code.replace("{}", f"{{}}, {{lastEventId: '{place_of_fifth}'}}", 1))
    await other.until(f"{is_open} && all.every((one) => one.length >= 3)")
    source.release(1)
    for one in (tab, other):
        await one.until("all.every((one) => one.at(-1)[0] === 9)")
    assert [marked(1, 3, 4, 2)] * 3 == await tab.evaluate(told)
    by_hub, by_server, own = await other.evaluate(told)
    assert marked(6, 0, 3, 1) == by_hub == by_server
    # A run of its own, which has begun with it.
    assert marked(1, 9) == own
    await quiet(tab)
    await quiet(other)


async def test_http_2(
    place: Place, tab: Tab, source: Source, authority: trustme.CA, tmp_path: Path
) -> None:
    """Over HTTP/2 nothing need be shared: streams have a connection of its own kind.

    Two tabs with more streams than HTTP/1.1 would let through are complete.
    """
    await place.serve(app_for_pages(table_of(source)))
    other = await tab.browser.open(beside=tab)
    async with terminator_before(place.port, authority, tmp_path) as terminator:
        for one in (tab, other):
            await one.go(terminator.base + CLASSIC)
            await one.run(FOUR)
            await one.until(OPEN)
        source.cut_at[25] = place.reset
        source.release(50)
        for one in (tab, other):
            await complete(one, 50)
            vias = await one.evaluate("seen.map(({stream}) => stream.info.via)")
            assert ["direct"] * 4 == vias
            await quiet(one)
        # The next page has the script of the cache.
        await other.go(terminator.base + CLASSIC)
        await other.run(FOUR)
        await other.until(OPEN)
        assert [] == place.streams("/_sse/streams")
        assert 1 == len(set(terminator.carriers))
        assert 12 < len(terminator.carriers)


async def test_an_insecure_origin(place: Place, tab: Tab, source: Source) -> None:
    """Tabs of a site on plain HTTP, which is no secure context, share a connection."""
    await place.serve(app_for_pages(table_of(source)))
    place.base = place.base.replace("127.0.0.1", "page.test")
    other = await tab.browser.open(beside=tab)
    for one in (tab, other):
        await follow(one, place)
        assert not await one.evaluate("isSecureContext")
    await settled(place)
    source.release(50)
    for one in (tab, other):
        await complete(one, 50)
        await quiet(one)
