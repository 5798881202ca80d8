"""Real browsers against real servers: Chromium and Firefox, with our client or without.

Law: what a test asserts was seen in the page or at the server, and is waited for there;
nothing waits for time to pass. What a browser does of its own is believed, not assumed.
A page that met anything it was not to see, fails its test.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import hdrs, web

from aiohttp_sse_routes import ServerSentEvent, SharedRun, SSERouteTableDef
from aiohttp_sse_routes.cursor import is_end

from .browser.demo import demo
from .browser.driver import Browser, Tab
from .browser.fixtures import NETWORK, quiet
from .browser.site import Place, Source, app_for_pages, numbers, table_of
from .helpers import until
from .programs import EXAMPLES, default_table, run_program

# The first test in a browser waits for its start.
pytestmark = pytest.mark.timeout(60)

NATIVE = "/pages/native"
ALIKE = "/pages/alike"
CLASSIC = "/pages/classic"

# For tests of what comes after many cuts; the client's own delays are used elsewhere.
QUICK = "sse.configure({backoff: () => 50});"

# Firefox takes the 204 that ends a stream for a failure.
ENDED = "Error: Firefox can’t establish a connection to the server"


# -- the browser's own EventSource, and ours in its place ------------------------------


@pytest.mark.parametrize("page", [NATIVE, ALIKE])
async def test_native_events(place: Place, tab: Tab, page: str) -> None:
    """An `EventSource`, and ours, gets text, JSON, names and ids, and obeys `retry`.

    It comes back with the id of the last event after the time that the server gave,
    which is shorter than its own.
    """
    table = SSERouteTableDef()

    @table.sse_route("/mixed", retry=1000)
    async def mixed(request: web.Request) -> AsyncIterator[Any]:
        yield "text"
        yield {"json": [1, "ü…💩"]}
        yield "two\nlines"
        yield ServerSentEvent("9.5", event="price")
        await asyncio.Event().wait()

    await place.serve(app_for_pages(table))
    await tab.go(place.base + page)
    await tab.run("window.seen = follow('/mixed', 'price')")
    await tab.until("seen.named.length === 2")
    data = await tab.evaluate("seen.data")
    assert ["text", '{"json":[1,"ü…💩"]}', "two\nlines"] == data
    hello, price = await tab.evaluate("seen.named")
    assert "sse-hello" == hello["type"]
    assert ("price", "9.5") == (price["type"], price["data"])
    ids = [hello["id"], *await tab.evaluate("seen.ids"), price["id"]]
    assert 5 == len(set(ids))
    cut_at = asyncio.get_running_loop().time()
    place.cut()
    await tab.until("seen.named.length === 3")
    assert "continued" in (await tab.evaluate("seen.named.at(-1).data"))
    first, second = place.streams("/mixed")
    assert (None, price["id"]) == (first.last_event_id, second.last_event_id)
    # A quarter less than said, and less than the 3 s and 5 s of the browsers' own. Ours
    # is spread over all of it.
    least = 0.7 if page == NATIVE else 0.05
    assert least < second.at - cut_at < 2.9
    assert 3 == len(await tab.evaluate("seen.data"))
    await quiet(tab)


@pytest.mark.parametrize("page", [NATIVE, ALIKE])
async def test_native_resumes(
    place: Place, tab: Tab, source: Source, page: str
) -> None:
    """An `EventSource`, and ours, gets each event once and in order, over all cuts.

    Connections are cut in mid-stream, now so that what is under way comes, now so that
    it is lost; a private and a shared run are followed, and no gap is told.
    """
    await place.serve(app_for_pages(table_of(source)))
    await tab.go(place.base + page)
    if page == ALIKE:
        await tab.run(QUICK)
    await tab.run("window.seen = [follow('/numbers'), follow('/shared')]")
    await tab.until("seen.every(({named}) => named.length === 1)")
    for cut in (place.cut, place.reset, place.cut, place.reset):
        source.cut_at[source.released + 100] = cut
        source.release(200)
        last = f"'{source.released}'"
        await tab.until(f"seen.every(({{data}}) => data.at(-1) === {last})")
    for number in (0, 1):
        data = await tab.evaluate(f"seen[{number}].data.map(Number)")
        assert numbers(800) == data
        names = await tab.evaluate(f"seen[{number}].named.map(({{type}}) => type)")
        assert ["sse-hello"] * 5 == names
        # Each cut was an error that the browser comes back from.
        assert [0] * 4 == await tab.evaluate(f"seen[{number}].errors")
    await quiet(tab)


@pytest.mark.parametrize("page", [NATIVE, ALIKE])
async def test_native_gap(place: Place, tab: Tab, source: Source, page: str) -> None:
    """A gap comes as an event named `sse-gap`, and `onmessage` never sees it."""
    table = table_of(source, replay=10)

    @table.sse_route("/forgotten", resume=0, retry=500)
    async def forgotten(request: web.Request) -> AsyncIterator[int]:
        async for number in source.numbers():
            yield number

    await place.serve(app_for_pages(table))
    await tab.go(place.base + page)
    await tab.run("window.seen = [follow('/forgotten'), follow('/shared')]")
    await tab.until("seen.every(({named}) => named.length === 1)")
    source.release(5)
    await tab.until("seen.every(({data}) => data.length === 5)")
    place.cut()
    source.release(95)
    await tab.until("seen.every(({data}) => data.at(-1) === '100')")
    for number, reason, rest in (
        (0, "unknown", numbers(100)),
        (1, "expired", numbers(100, first=91)),
    ):
        data = await tab.evaluate(f"seen[{number}].data.map(Number)")
        assert numbers(5) + rest == data
        names = await tab.evaluate(f"seen[{number}].named.map(({{type}}) => type)")
        assert ["sse-hello", "sse-hello", "sse-gap"] == names
        gap = json.loads(await tab.evaluate(f"seen[{number}].named[2].data"))
        last = await tab.evaluate(f"seen[{number}].ids[4]")
        assert {"reason": reason, "after": last} == gap
    await quiet(tab)


async def test_native_end(place: Place, tab: Tab, source: Source) -> None:
    """After `sse-end` a browser asks once more, is answered 204, and stays away."""
    table = table_of(source)

    @table.sse_route("/short", retry=500)
    async def short(request: web.Request) -> AsyncIterator[int]:
        for number in numbers(3):
            yield number

    await place.serve(app_for_pages(table))
    await tab.go(place.base + NATIVE)
    await tab.run("window.seen = follow('/short')")
    await tab.until("seen.source.readyState === EventSource.CLOSED")
    # Long enough for another request, as a second stream shows, which is cut.
    await tab.run("window.other = follow('/numbers')")
    await tab.until("other.named.length === 1")
    place.cut()
    await tab.until("other.named.length === 2")
    first, second = place.streams("/short")
    assert (200, 204) == (first.status, second.status)
    assert is_end(second.last_event_id)
    assert ["1", "2", "3"] == await tab.evaluate("seen.data")
    names = await tab.evaluate("seen.named.map(({type}) => type)")
    assert ["sse-hello", "sse-end"] == names
    assert [0, 2] == await tab.evaluate("seen.errors")
    await quiet(tab, ENDED)


async def test_native_busy(
    place: Place, tab: Tab, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refusal over a limit is survived: the browser comes back when told, by itself.

    Its half a minute is shortened here.
    """
    monkeypatch.setattr("aiohttp_sse_routes.http.script.RETRY_LATER", 500)
    await place.serve(app_for_pages(table_of(source), max_connections=1))
    await tab.go(place.base + NATIVE)
    await tab.run("window.first = follow('/numbers')")
    await tab.until("first.named.length === 1")
    await tab.run("window.second = follow('/shared')")
    await tab.until("second.errors.length > 1")
    names = await tab.evaluate("second.named.map(({type}) => type)")
    assert {"sse-busy"} == set(names)
    assert {0} == set(await tab.evaluate("second.errors"))
    await tab.run("first.source.close()")
    source.release(1)
    await tab.until("second.named.at(-1).type === 'sse-hello'")
    source.release(1)
    await tab.until("second.data.length")
    assert 2 <= len([a for a in place.streams("/shared") if a.status == 200])
    await quiet(tab)


async def test_native_garbage(place: Place, tab: Tab, source: Source) -> None:
    """An id that means nothing to the server is told as a gap, and ends no stream."""
    garbage = [
        "ü…💩 and  spaces",
        'a "b", <c>(d)</c>; {e}=f\\g\t%00',
        "sse1.r.AAAAAAAAAAAAAAAAAAAAAA.7",
        "x" * 1025,
        "y" * 6000,
    ]

    @web.middleware
    async def bring(request: web.Request, handler: Any) -> web.StreamResponse:
        number = request.query.get("garbage")
        if number is None or hdrs.LAST_EVENT_ID in request.headers:
            answer: web.StreamResponse = await handler(request)
            return answer
        body = f"retry: 500\nid: {garbage[int(number)]}\ndata: 0\n\n"
        return web.Response(text=body, content_type="text/event-stream")

    app = app_for_pages(table_of(source))
    app.middlewares.append(bring)
    await place.serve(app)
    await tab.go(place.base + NATIVE)
    source.release(3)
    count = len(garbage)
    await tab.run(
        f"window.seen = Array.from({{length: {count}}}, "
        "(_, index) => follow(`/numbers?garbage=${index}`))"
    )
    await tab.until("seen.every(({data}) => data.length === 4)")
    for number in range(count):
        assert [0, *numbers(3)] == await tab.evaluate(
            f"seen[{number}].data.map(Number)"
        )
        names = await tab.evaluate(f"seen[{number}].named.map(({{type}}) => type)")
        assert ["sse-hello", "sse-gap"] == names
    brought = {a.last_event_id for a in place.streams("/numbers")} - {None}
    assert set(garbage) == brought
    await quiet(tab)


OUTLIVED = {
    "refused": None,
    "bad-gateway": (
        b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    ),
}


@pytest.mark.parametrize("outage", OUTLIVED)
async def test_alike_outlives(
    place: Place, tab: Tab, source: Source, outage: str
) -> None:
    """Ours comes back from what ends a browser's own for ever; each error is told.

    At the end of a stream it is closed, without asking again.
    """
    table = table_of(source)

    @table.sse_route("/short")
    async def short(request: web.Request) -> AsyncIterator[int]:
        yield 1

    await place.serve(app_for_pages(table))
    await tab.go(place.base + ALIKE)
    await tab.run("window.seen = follow('/numbers')")
    await tab.until("seen.source.readyState === EventSource.OPEN")
    source.release(3)
    await tab.until("seen.data.length === 3")
    await place.unplug()
    answer = OUTLIVED[outage]
    if answer is not None:
        await place.answer(answer)
    source.release(3)
    await tab.until("seen.errors.length > 1")
    assert {0} == set(await tab.evaluate("seen.errors"))
    await place.plug()
    await tab.until("seen.data.length === 6", timeout=20)
    assert numbers(6) == await tab.evaluate("seen.data.map(Number)")
    await tab.run("window.count = seen.errors.length; seen.source.close()")
    assert 2 == await tab.evaluate("seen.source.readyState")
    await tab.run("window.short = follow('/short')")
    await tab.until("short.errors.length")
    assert [2] == await tab.evaluate("short.errors")
    assert ["1"] == await tab.evaluate("short.data")
    names = await tab.evaluate("short.named.map(({type}) => type)")
    assert ["sse-hello", "sse-end"] == names
    assert 1 == len(place.streams("/short"))
    assert await tab.evaluate("count === seen.errors.length")
    await quiet(tab)


# -- pages -----------------------------------------------------------------------------


async def test_loading_ends(place: Place, tab: Tab, source: Source) -> None:
    """A silent stream, or one that is never answered, does not keep a page loading."""
    table = SSERouteTableDef()

    @table.sse_route("/silent")
    async def silent(request: web.Request) -> AsyncIterator[int]:
        async for number in source.numbers():
            yield number

    async def never(request: web.Request) -> web.Response:
        await asked.wait()
        return web.Response()

    asked = asyncio.Event()
    app = app_for_pages(table)
    app.router.add_get("/never", never)
    await place.serve(app)
    await tab.go(place.base + "/pages/loading")
    assert await tab.evaluate("loaded && document.readyState === 'complete'")
    assert await tab.evaluate(
        "performance.getEntriesByType('navigation')[0].loadEventEnd > 0"
    )
    await tab.until("streams[0].info.state === 'open'")
    await until(lambda: len(place.streams("/never")) == 2)
    # They were opened while the page loaded.
    await quiet(tab)
    asked.set()


# -- the generated client --------------------------------------------------------------


@pytest.mark.parametrize("page", ["classic", "module"])
async def test_client(place: Place, tab: Tab, source: Source, page: str) -> None:
    """The client runs under a strict CSP and Trusted Types, and tells what there is.

    JSON comes parsed and text as it is; the states are told; `close()` ends the run at
    once; a stream that has ended is closed as done, without another request.
    """
    table = table_of(source)

    @table.sse_route("/mixed")
    async def mixed(request: web.Request) -> AsyncIterator[Any]:
        yield {"json": [1, "ü…💩"]}
        yield "123"
        yield 123
        yield ServerSentEvent({"at": 9.5}, event="price")

    await place.serve(app_for_pages(table))
    await tab.go(f"{place.base}/pages/{page}")
    await tab.run(
        "window.seen = watch(sse.mixed()); window.prices = []; "
        "seen.stream.on('price', (price) => prices.push(price));"
    )
    assert "done" == await tab.evaluate("seen.stream.closed")
    assert [{"json": [1, "ü…💩"]}, "123", 123] == await tab.evaluate("seen.data")
    assert [{"at": 9.5}] == await tab.evaluate("prices")
    states = await tab.evaluate("seen.states.map(({state}) => state)")
    assert ["connecting", "open", "closed"] == states

    await tab.run("window.seen = watch(sse.private())")
    source.release(3)
    await tab.until("seen.data.length === 3")
    assert 1 == source.running
    await tab.run("seen.stream.close()")
    await until(lambda: source.running == 0, timeout=10, what="the run has ended")
    assert "client" == await tab.evaluate("seen.stream.closed")
    assert [] == await tab.evaluate("[...seen.gaps, ...seen.errors]")
    assert 1 == len(place.streams("/mixed"))
    await quiet(tab)
    # The policy is in force: the page may not do what the client does without.
    for forbidden in ("document.body.innerHTML = '<p>'", "setTimeout('1')"):
        code = f"(() => {{ try {{ {forbidden} }} catch {{ return 'refused' }} }})()"
        assert "refused" == await tab.evaluate(code)


@pytest.mark.parametrize("page", ["classic", "module"])
async def test_client_resumes(
    place: Place, tab: Tab, source: Source, page: str
) -> None:
    """The client gets each event once and in order, over many cuts in mid-stream."""
    await place.serve(app_for_pages(table_of(source)))
    await tab.go(f"{place.base}/pages/{page}")
    await tab.run(f"{QUICK} window.seen = [watch(sse.private()), watch(sse.shared())]")
    await tab.until("seen.every(({stream}) => stream.info.state === 'open')")
    for cut in (place.cut, place.reset) * 5:
        source.cut_at[source.released + 100] = cut
        source.release(200)
        last = source.released
        await tab.until(f"seen.every(({{data}}) => data.at(-1) === {last})")
    for number in (0, 1):
        assert numbers(2000) == await tab.evaluate(f"seen[{number}].data")
        assert [] == await tab.evaluate(f"seen[{number}].gaps")
        kinds = await tab.evaluate(f"seen[{number}].errors")
        assert ["network"] * 10 == kinds
    await quiet(tab)


@pytest.mark.parametrize("deploy", [True, False], ids=["deploy", "crash"])
async def test_client_survives_a_restart(
    place: Place, tab: Tab, source: Source, deploy: bool
) -> None:
    """Over a restart of the server the client comes back, and is told what is lost.

    The new server knows neither the run nor the log: the page hears of one gap, at its
    place, and then what the new server has.
    """
    await place.serve(app_for_pages(table_of(source)))
    await tab.go(place.base + CLASSIC)
    await tab.run("window.seen = [watch(sse.private()), watch(sse.shared())]")
    await tab.until("seen.every(({stream}) => stream.info.state === 'open')")
    source.release(5)
    await tab.until("seen.every(({data}) => data.length === 5)")
    if not deploy:
        await place.unplug()
    await place.shut_down()
    # It was refused once, and will try again.
    await tab.until(
        "seen.every(({stream: {info}}) => info.state === 'waiting' && info.attempt > 1)"
    )
    new = Source()
    await place.serve(app_for_pages(table_of(new)))
    await tab.until("seen.every(({gaps}) => gaps.length)", timeout=20)
    new.release(3)
    await tab.until("seen.every(({data}) => data.length === 8)")
    for number, reason in ((0, "unknown"), (1, "reset")):
        assert numbers(5) + numbers(3) == await tab.evaluate(f"seen[{number}].data")
        (gap,) = await tab.evaluate(f"seen[{number}].gaps")
        assert (reason, 5) == (gap["reason"], gap["at"])
        assert gap["after"] == await tab.evaluate(f"seen[{number}].events[4].id")
    await quiet(tab)


OUTAGES = {
    "refused": None,
    "bad-gateway": (
        b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\n"
        b"Content-Length: 12\r\nConnection: close\r\n\r\n<h1>502</h1>"
    ),
    "closed": b"",
}


@pytest.mark.parametrize("outage", OUTAGES)
async def test_client_survives_an_outage(
    place: Place, tab: Tab, source: Source, outage: str
) -> None:
    """While nobody, a proxy's 502 or a closed connection answers, nothing is lost.

    The server is behind it all the time, and its streams go on.
    """
    await place.serve(app_for_pages(table_of(source)))
    await tab.go(place.base + CLASSIC)
    await tab.run(f"{QUICK} window.seen = [watch(sse.private()), watch(sse.shared())]")
    await tab.until("seen.every(({stream}) => stream.info.state === 'open')")
    source.release(5)
    await tab.until("seen.every(({data}) => data.length === 5)")
    await place.unplug()
    answer = OUTAGES[outage]
    if answer is not None:
        await place.answer(answer)
    source.release(100)
    await tab.until("seen.every(({stream: {info}}) => info.attempt > 2)")
    assert answer is None or place.refused >= 2
    await place.plug()
    source.release(100)
    await tab.until("seen.every(({data}) => data.at(-1) === 205)", timeout=20)
    for number in (0, 1):
        assert numbers(205) == await tab.evaluate(f"seen[{number}].data")
        assert [] == await tab.evaluate(f"seen[{number}].gaps")
        kinds = await tab.evaluate(f"seen[{number}].errors")
        expected = "http" if outage == "bad-gateway" else "network"
        assert {"network", expected} == set(kinds)
    await quiet(tab)


FOLLOWING = "/pages/following"

SLOW_DOWN = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 600\r\n"
    b"Content-Length: 0\r\nConnection: close\r\n\r\n"
)


async def leave_and_come_back(tab: Tab, place: Place, source: Source) -> list[bool]:
    """Leave the following page, and go back; five numbers come meanwhile.

    Return for each time that the page was shown whether it came from the cache.
    """
    await tab.go(place.base + "/pages/other")
    await until(lambda: place.hub.connections == 0, what="no stream is open")
    source.release(5)
    await tab.run("history.back()")
    shown: list[bool] = await tab.until(
        f"location.pathname === '{FOLLOWING}' && shown.length && shown"
    )
    await tab.until("seen.every(({stream}) => stream.info.state === 'open')")
    source.release(5)
    return shown


async def test_client_goes_back_to_a_page(
    place: Place, tab: Tab, source: Source
) -> None:
    """A page that was left has no stream, and goes on when it is come back to.

    Chromium kept the page: nothing is lost or told. Firefox keeps no page that has a
    stream open when it is left: it loads the page again, which starts anew.
    """
    await place.serve(app_for_pages(table_of(source)))
    await tab.go(place.base + FOLLOWING)
    await tab.until("seen.every(({stream}) => stream.info.state === 'open')")
    source.release(5)
    await tab.until("seen.every(({data}) => data.length === 5)")
    shown = await leave_and_come_back(tab, place, source)
    await tab.until("seen.every(({data}) => data.at(-1) === 15)")
    kept = tab.browser.name == "chromium"
    assert ([False, True] if kept else [False]) == shown
    assert numbers(15) == await tab.evaluate("seen[0].data")
    shared = numbers(15) if kept else numbers(15, first=11)
    assert shared == await tab.evaluate("seen[1].data")
    for path in ("/numbers", "/shared"):
        _, second = place.streams(path)
        assert kept == (second.last_event_id is not None)
    assert [] == await tab.evaluate("seen.flatMap(({gaps}) => gaps)")
    assert await tab.evaluate("sessionStorage.getItem('told')") is None
    await quiet(tab)


async def test_client_wakes_in_a_page_gone_back_to(
    place: Place, tab: Tab, source: Source
) -> None:
    """A page from the back-forward cache connects at once, however long it was to wait.

    Its streams had been told to come back in ten minutes; no browser minds those.
    """
    await place.serve(app_for_pages(table_of(source)))
    await tab.go(place.base + FOLLOWING)
    await tab.until("seen.every(({stream}) => stream.info.state === 'open')")
    source.release(5)
    await tab.until("seen.every(({data}) => data.length === 5)")
    await place.unplug()
    await place.answer(SLOW_DOWN)
    await tab.until("seen.every(({stream: {info}}) => info.retryInMs >= 600000)")
    await place.plug()
    assert [False, True] == await leave_and_come_back(tab, place, source)
    await tab.until("seen.every(({data}) => data.at(-1) === 15)")
    for number in (0, 1):
        assert numbers(15) == await tab.evaluate(f"seen[{number}].data")
        assert [] == await tab.evaluate(f"seen[{number}].gaps")
    await quiet(tab)


async def test_client_over_a_reload(place: Place, tab: Tab, source: Source) -> None:
    """A reloaded page starts anew, and no gap is told."""
    await place.serve(app_for_pages(table_of(source)))
    await tab.go(place.base + FOLLOWING)
    for _ in range(3):
        await tab.until("seen.every(({stream}) => stream.info.state === 'open')")
        source.release(5)
        last = source.released
        await tab.until(f"seen.every(({{data}}) => data.at(-1) === {last})")
        assert numbers(last) == await tab.evaluate("seen[0].data")
        assert numbers(last, first=last - 4) == await tab.evaluate("seen[1].data")
        assert [] == await tab.evaluate("seen.flatMap(({gaps}) => gaps)")
        await tab.reload()
    await quiet(tab)


async def test_client_over_a_reload_with_its_run(
    place: Place, tab: Tab, source: Source
) -> None:
    """With `persist` a reloaded page gets its run from the start, and no other page."""
    await place.serve(app_for_pages(table_of(source)))
    persistent = place.base + "/pages/persistent"
    await tab.go(persistent)
    for count in (5, 10, 15):
        await tab.until("seen[0].stream.info.state === 'open'")
        source.release(5)
        await tab.until(f"seen[0].data.at(-1) === {count}")
        assert numbers(count) == await tab.evaluate("seen[0].data")
        assert [] == await tab.evaluate("seen[0].gaps")
        assert 1 == source.running
        await tab.reload()
    other = await tab.browser.open(beside=tab)
    await other.go(persistent)
    await other.until("seen[0].data.at(-1) === 15")
    await until(lambda: source.running == 2, what="another page has another run")
    await tab.until("seen[0].data.at(-1) === 15")
    # What was closed is not for the next page.
    await tab.run("seen[0].stream.close()")
    await until(lambda: source.running == 1, timeout=10, what="the run has ended")
    await tab.reload()
    await until(lambda: source.running == 2, timeout=10, what="a new run began")
    assert [] == await tab.evaluate("seen[0].gaps")
    await quiet(tab)


async def test_client_offline(place: Place, tab: Tab, source: Source) -> None:
    """A page that is cut off the network goes on when it is back, with nothing lost."""
    await place.serve(app_for_pages(table_of(source)))
    await tab.go(place.base + CLASSIC)
    await tab.run("window.seen = [watch(sse.private()), watch(sse.shared())]")
    await tab.until("seen.every(({stream}) => stream.info.state === 'open')")
    source.release(5)
    await tab.until("seen.every(({data}) => data.length === 5)")
    await tab.offline(True)
    place.reset()
    source.release(5)
    await tab.until("seen[0].stream.info.attempt > 0")
    await tab.offline(False)
    await tab.until("seen.every(({data}) => data.at(-1) === 10)", timeout=20)
    for number in (0, 1):
        assert numbers(10) == await tab.evaluate(f"seen[{number}].data")
        assert [] == await tab.evaluate(f"seen[{number}].gaps")
    await quiet(tab)


async def test_comments_over_a_shared_connection(
    place: Place, tab: Tab, source: Source
) -> None:
    """What is written for people comes to its own stream, also by the worker."""
    table = SSERouteTableDef()

    @table.sse_route("/spoken/{word}", shared=True)
    async def spoken(run: SharedRun) -> AsyncIterator[ServerSentEvent]:
        word = run.match_info["word"]
        async for number in source.numbers():
            yield ServerSentEvent(number, comment=f"{word} {number}")

    await place.serve(app_for_pages(table))
    await tab.go(place.base + CLASSIC)
    await tab.run(
        "window.comments = []; window.seen = ['a', 'b'].map((word) => {"
        " const stream = sse.spoken({word});"
        " stream.onComment((text) => comments.push(word + ': ' + text));"
        " return watch(stream); })"
    )
    await tab.until("seen.every(({stream}) => stream.info.state === 'open')")
    source.release(2)
    await tab.until("seen.every(({data}) => data.length === 2)")
    ways = await tab.evaluate("seen.map(({stream}) => stream.info.via)")
    assert ["worker", "worker"] == ways
    said = sorted(await tab.evaluate("comments"))
    assert ["a: a 1", "a: a 2", "b: b 1", "b: b 2"] == said
    await quiet(tab)


async def test_client_pauses_in_a_hidden_page(
    place: Place, tab: Tab, source: Source
) -> None:
    """`pause: "hidden"`: no connection behind another tab, and nothing lost by that.

    What its connection said can be read: the headers, and what is written for people.
    """
    table = table_of(source)

    @table.sse_route("/spoken", shared=True)
    async def spoken(run: SharedRun) -> AsyncIterator[ServerSentEvent]:
        async for number in source.numbers():
            yield ServerSentEvent(number, comment=f"number {number}")

    await place.serve(app_for_pages(table))
    await tab.go(place.base + CLASSIC)
    await tab.run(
        "window.seen = watch(sse.spoken({}, {pause: 'hidden', share: 'off'}));"
        "window.comments = []; seen.stream.onComment((text) => comments.push(text))"
    )
    source.release(2)
    await tab.until("seen.data.length === 2")
    headers = "seen.stream.info.headers.get('X-Accel-Buffering')"
    assert "no" == await tab.evaluate(headers)
    other = await tab.browser.open(beside=tab)
    await other.go(place.base + NATIVE)
    await other.show()
    await tab.until("document.hidden")
    await until(lambda: 0 == place.hub.connections)
    source.release(3)
    assert "waiting" == await tab.evaluate("seen.stream.info.state")
    assert await tab.evaluate("seen.stream.info.headers === null")
    await tab.show()
    await tab.until("seen.data.length === 5")
    assert numbers(5) == await tab.evaluate("seen.data")
    said = [f"number {number}" for number in numbers(5)]
    assert said == await tab.evaluate("comments")
    assert [] == await tab.evaluate("seen.gaps")
    assert 2 == len(place.streams("/spoken"))
    await quiet(tab)


async def test_client_is_silent_when_a_page_is_left(
    place: Place, tab: Tab, source: Source
) -> None:
    """A page that is being left hears of no error, however slowly the next one comes.

    Firefox breaks its connections at once, Chromium when the next page has come.
    """
    app = app_for_pages(table_of(source))
    come = asyncio.Event()

    async def next_page(request: web.Request) -> web.Response:
        await come.wait()
        return web.Response(text="<title>next</title>", content_type="text/html")

    async def let_it_come(request: web.Request) -> web.Response:
        come.set()
        return web.Response(status=204)

    app.router.add_get("/next", next_page)
    app.router.add_post("/come", let_it_come)
    await place.serve(app)
    await tab.go(place.base + FOLLOWING)
    await tab.until("seen.every(({stream}) => stream.info.state === 'open')")
    # The page itself says when it has waited for long enough.
    await tab.run(
        "addEventListener('beforeunload', () => setTimeout(() => "
        "fetch('/come', {method: 'POST', keepalive: true}), 300));"
    )
    await tab.go(place.base + "/next")
    assert await tab.evaluate("sessionStorage.getItem('told')") is None
    assert await tab.evaluate("sessionStorage.getItem('noise')") is None


async def test_tabs(place: Place, tab: Tab, source: Source) -> None:
    """A tab that is closed ends its streams at the server; those of another go on.

    The shared run is one stream for both.
    """
    await place.serve(app_for_pages(table_of(source)))
    other = await tab.browser.open(beside=tab)
    for one in (tab, other):
        await one.go(place.base + FOLLOWING)
        await one.until("seen.every(({stream}) => stream.info.state === 'open')")
    await until(lambda: place.hub.connections == 3, what="three streams are open")
    source.release(5)
    for one in (tab, other):
        await one.until("seen.every(({data}) => data.length === 5)")
    await other.close()
    await until(lambda: place.hub.connections == 2, what="two streams are open")
    source.release(5)
    await tab.until("seen.every(({data}) => data.length === 10)")
    for number in (0, 1):
        assert numbers(10) == await tab.evaluate(f"seen[{number}].data")
        assert [] == await tab.evaluate(f"seen[{number}].errors")
    await quiet(tab)


# -- other origins ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        "{credentials: 'include'}",
        "{headers: () => ({Authorization: 'Bearer ann'})}",
    ],
    ids=["credentials", "authorization"],
)
async def test_client_from_another_origin(
    place: Place, tab: Tab, source: Source, options: str
) -> None:
    """A page of another origin that is let in resumes with credentials or a token."""
    there = Place()
    try:
        table = SSERouteTableDef()

        def guard(request: web.Request) -> bool:
            who = request.cookies.get("user"), request.headers.get("Authorization")
            return who in (("ann", None), (None, "Bearer ann"))

        @table.sse_route("/guarded", guard=guard, retry=500)
        async def guarded(request: web.Request) -> AsyncIterator[int]:
            async for number in source.numbers():
                yield number

        await place.serve(app_for_pages(table_of(source)))
        await there.serve(app_for_pages(table, allow_origins=[place.base]))
        if "include" in options:
            await tab.go(f"{there.base}/pages/other?user=ann")
        await tab.go(f"{place.base}/pages/classic?anywhere")
        await tab.run(
            f"window.seen = [1, 2].map(() => watch(sse.open('{there.base}/guarded', "
            f"{options})))"
        )
        await tab.until("seen.every(({stream}) => stream.info.state === 'open')")
        source.cut_at[100] = there.reset
        source.release(200)
        await tab.until("seen.every(({data}) => data.at(-1) === 200)", timeout=20)
        for number in (0, 1):
            assert numbers(200) == await tab.evaluate(f"seen[{number}].data")
            assert [] == await tab.evaluate(f"seen[{number}].gaps")
        await quiet(tab)
        await tab.run(
            f"window.no = watch(sse.open('{there.base}/guarded', "
            "{headers: {Authorization: 'Bearer bob'}}))"
        )
        assert "fatal" == await tab.evaluate("no.stream.closed")
        assert 403 == await tab.evaluate("no.stream.info.error.status")
    finally:
        await there.close()


# -- an example with a page ------------------------------------------------------------


async def test_the_chat_example(place: Place, tab: Tab, tmp_path: Path) -> None:
    """Its page shows what is said, as text, and sends what it could not when it can."""
    seen = "[...document.querySelectorAll('#messages li')].map((e) => e.textContent)"

    async def serve_chat() -> None:
        with default_table():
            program = run_program(EXAMPLES / "chat.py", tmp_path / "chat.db")
            # The browser asks for it by itself.
            program.app.router.add_get("/favicon.ico", no_icon)
            await place.serve(program.app)

    async def no_icon(request: web.Request) -> web.Response:
        return web.Response(status=204)

    async def send(text: str) -> None:
        for field, value in (("name", "Ann"), ("text", text)):
            code = f"document.getElementById('{field}').value = {json.dumps(value)}"
            await tab.run(code)
        await tab.click("button")

    await serve_chat()
    await tab.go(place.base)
    await tab.until("document.getElementById('state').textContent === 'open'")
    assert "lobby" == await tab.evaluate("document.title")
    await send("hello")
    await send("<img src=x onerror=alert(1)>")
    await tab.until(f"{seen}.length === 2")
    await place.shut_down()
    await tab.until("document.getElementById('state').textContent === 'waiting'")
    await send("meanwhile")
    await serve_chat()
    await tab.until(f"{seen}.length === 3", timeout=25)
    told = ["Ann hello", "Ann <img src=x onerror=alert(1)>", "Ann meanwhile"]
    assert told == await tab.evaluate(seen)
    await tab.reload()
    await tab.until(f"{seen}.length === 3")
    assert told == await tab.evaluate(seen)
    messages = await tab.messages()
    assert [] == [m for m in messages if NETWORK not in m["text"]]


# -- the demo --------------------------------------------------------------------------


SAID = "[...document.querySelectorAll('#said-here .text')].map((e) => e.textContent)"
ON_ITS_WAY = "[...document.querySelectorAll('#outbox .text')].map((e) => e.textContent)"
OPEN = "document.querySelector('#room-wire .state').dataset.state === 'open'"
SCORE = "[...document.querySelectorAll('#score dd')].map((e) => e.textContent)"


async def say(tab: Tab, text: str) -> None:
    """Write *text* in the room's field, and send it."""
    await tab.show()
    await tab.run(f"document.querySelector('#text').value = {json.dumps(text)}")
    await tab.click("#composer button")


async def heard(tab: Tab, *texts: str) -> None:
    """Wait until *texts* and nothing else were said, and nothing is on its way."""
    await tab.show()
    await tab.until(f"{OPEN} && {SAID}.length >= {len(texts)}", timeout=25)
    await tab.until(f"{ON_ITS_WAY}.length === 0")
    assert list(texts) == await tab.evaluate(SAID)


async def test_demo(browser: Browser, tmp_path: Path) -> None:
    """The demo loads, fits, and shows after a cut that nothing is missing or twice."""

    def shown(name: str) -> str:
        return f"document.querySelector('#score [data-text={name}]').textContent"

    async with demo(tmp_path / "chat.db") as running:
        for width in (1280, 390):
            tab = await browser.open(width=width)
            try:
                await tab.go(running.base)
                await tab.until(f"{shown('seen')} > 10")
                await tab.click("#cut")
                await tab.until(f"{shown('reconnects')} >= 3")
                seen = int(await tab.evaluate(shown("seen")))
                await tab.until(f"{shown('seen')} > {seen} + 5")
                for name in ("missing", "repeated", "gaps"):
                    assert "0" == await tab.evaluate(shown(name))
                said = await tab.evaluate("document.querySelector('#said').textContent")
                assert "3 connections cut." == said
                page = await tab.evaluate("document.documentElement.scrollWidth")
                assert page <= width
                await tab.screenshot(tmp_path / f"demo-{browser.name}-{width}.png")
                lines = [m for m in await tab.messages() if NETWORK not in m["text"]]
                assert [] == lines
            finally:
                await tab.close()


async def test_demo_in_eight_tabs(browser: Browser, tmp_path: Path) -> None:
    """More tabs than a browser opens connections all go on, each when it is seen."""
    running_now = (
        "[...document.querySelectorAll('.state')].every((e) => "
        "['open', 'closed'].includes(e.dataset.state))"
    )
    async with demo(tmp_path / "chat.db") as running:
        tabs: list[Tab] = []
        try:
            for path in ("/", "/chat") * 4:
                tabs.append(await browser.open(beside=tabs[0] if tabs else None))
                await tabs[-1].show()
                await tabs[-1].go(running.base + path)
                await tabs[-1].until(running_now)
            for tab in tabs:
                await tab.show()
                await tab.until(running_now)
                seen, *faults = await tab.evaluate(SCORE)
                if tab in tabs[::2]:
                    await tab.until(f"{SCORE}[0] > {seen}")
                    seen, *faults = await tab.evaluate(SCORE)
                assert ["0", "0", "0"] == faults[:3]
            await say(tabs[-1], "from the eighth")
            await heard(tabs[1], "from the eighth")
        finally:
            for tab in tabs:
                await tab.close()


@pytest.mark.parametrize("how", ["kill", "end"])
async def test_the_chat_survives_a_restart(
    browser: Browser, tmp_path: Path, how: str
) -> None:
    """Open pages go on by themselves, with what was said and what is said meanwhile.

    Each message is there once, text is text, and the pages fit a phone.
    """
    html = "<img src=x onerror=alert(1)>"
    async with demo(tmp_path / "chat.db") as running:
        tabs = [await browser.open(width=width) for width in (1280, 390)]
        one, two = tabs
        try:
            for tab in tabs:
                await tab.show()
                await tab.go(running.base + "/chat")
                await tab.until(OPEN)
            await say(one, "hello")
            await heard(two, "hello")
            await say(two, html)
            await heard(one, "hello", html)
            await (running.kill() if how == "kill" else running.end())
            for tab in tabs:
                await tab.until(f"!({OPEN})")
            await say(one, "meanwhile")
            await one.until(f"{ON_ITS_WAY}[0] === 'meanwhile'")
            await running.start()
            for tab in tabs:
                await heard(tab, "hello", html, "meanwhile")
            await two.click("#cut")
            said = "document.querySelector('#said').textContent"
            await two.until(f"{said} === '1 connection cut.'")
            await say(two, "after")
            new = await browser.open(beside=one)
            tabs.append(new)
            await new.show()
            await new.go(running.base + "/chat")
            for tab in tabs:
                await heard(tab, "hello", html, "meanwhile", "after")
                # Drawn at leisure: messages, missing, repeated, gaps.
                await tab.until(f"{SCORE}.slice(0, 4).join() === '4,0,0,0'")
            for tab, width in ((one, 1280), (two, 390)):
                page = await tab.evaluate("document.documentElement.scrollWidth")
                assert page <= width
                await tab.show()
                await tab.screenshot(tmp_path / f"chat-{browser.name}-{width}.png")
            for tab in tabs:
                lines = [m for m in await tab.messages() if NETWORK not in m["text"]]
                assert [] == lines
        finally:
            for tab in tabs:
                await tab.close()
