"""Real browsers over what networks and servers do: each event once and in order.

Law: the events are kept in a file, so that a server that is started again has them. How
long something is broken is the test's to say; what follows is waited for. The faults
befall several servers side by side, for some of them take ten seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
from aiohttp import web

from aiohttp_sse_routes import Channels, SQLiteStore, SSERouteTableDef, get_sse
from aiohttp_sse_routes.testing import FaultProxy, nothing_left, until

from .browser.driver import Browser, Tab
from .browser.site import Place, app_for_pages, numbers

pytestmark = pytest.mark.timeout(90)


class Feed:
    """A server whose events outlive it, a proxy before it, and a page that follows.

    Args:
        place: Where the server is.
        proxy: What the page speaks with.
        tab: The page's.
        data: The file of the events.
    """

    def __init__(self, place: Place, proxy: FaultProxy, tab: Tab, data: Path) -> None:
        self.place = place
        self.proxy = proxy
        self.tab = tab
        self._data = data
        self._last = 0

    async def start(self) -> None:
        """Start the server, for the first time or again."""
        table = SSERouteTableDef()

        # The client is as patient as twice the heartbeat and ten seconds.
        @table.sse_route("/feed", heartbeat=0.5, retry=500)
        async def feed(request: web.Request) -> Channels:
            return Channels("feed")

        self._app = app_for_pages(table, store=SQLiteStore(self._data))
        await self.place.serve(self._app)

    async def say(self, count: int = 5) -> None:
        """Publish *count* more numbers."""
        for _ in range(count):
            self._last += 1
            await get_sse(self._app).publish("feed", self._last)

    async def follow(self) -> None:
        """Open the page: one stream shares a connection of tabs, two have their own."""
        await self.tab.go(str(self.proxy.url / "pages/classic" % {"user": "ann"}))
        await self.tab.run(
            "window.seen = [watch(sse.feed()), watch(sse.feed({}, {share: 'off'})), "
            "watch(sse.feed({}, {share: 'off', stallTimeoutMs: 2000, "
            "connectTimeoutMs: 2000}))]; window.hints = [];"
            "seen[2].stream.onError(({kind, message}) => hints.push([kind, message]));"
        )
        await self.tab.until(
            "seen.every(({stream}) => stream.info.state === 'open')", timeout=25
        )
        vias = await self.tab.evaluate("seen.map(({stream}) => stream.info.via)")
        assert ["worker", "direct", "direct"] == vias

    async def complete(self) -> None:
        """Fail if the page has not every number once, in order, and no error."""
        done = f"seen.every(({{data}}) => data.at(-1) === {self._last})"
        await self.tab.until(done, timeout=25)
        for data in await self.tab.evaluate("seen.map(({data}) => data)"):
            assert numbers(self._last) == data
        assert [] == await self.tab.evaluate("seen.flatMap(({gaps}) => gaps)")
        assert [] == await self.tab.evaluate("noise")


async def restart(feed: Feed, seconds: float) -> None:
    """The server ends, and is started again."""
    await feed.place.shut_down()
    await asyncio.sleep(seconds)
    await feed.start()


async def short_restart(feed: Feed) -> None:
    """A restart that takes a second."""
    await restart(feed, 1)


async def long_restart(feed: Feed) -> None:
    """A restart that takes ten seconds."""
    await restart(feed, 10)


async def bad_gateway(feed: Feed) -> None:
    """A proxy answers 502 for five seconds."""
    feed.proxy.answer(502, body="<h1>502</h1>", headers={"Content-Type": "text/html"})
    feed.proxy.cut()
    await feed.say()
    await asyncio.sleep(5)
    assert feed.proxy.answered >= 2
    await feed.proxy.go_on()


async def reset_within_an_event(feed: Feed) -> None:
    """Connections are reset in the midst of an event, again and again."""
    for cut in range(30, 130, 20):
        count = feed.proxy.cuts + 1
        feed.proxy.cut_after(cut)
        await feed.say(2)
        await until(partial(_has_cut, feed, count), timeout=20)


def _has_cut(feed: Feed, count: int) -> bool:
    return feed.proxy.cuts >= count


async def stalled(feed: Feed) -> None:
    """Nothing comes through any more, and nobody says so."""
    feed.proxy.stall()
    await feed.say()
    # What was asked for meanwhile is held as well.
    await feed.tab.until("seen[2].errors.includes('stalled')", timeout=10)
    await feed.proxy.go_on()


async def cut_when_idle(feed: Feed) -> None:
    """A proxy cuts connections on which nothing comes for a moment."""
    feed.proxy.cut_idle(0.2)
    await until(lambda: feed.proxy.cuts >= 6, timeout=20)
    await feed.say()
    await feed.proxy.go_on()


async def buffered(feed: Feed) -> None:
    """A proxy keeps back what does not fill its buffer."""
    feed.proxy.buffer(2048)
    feed.place.cut()
    for _ in range(30):
        await feed.say(10)
    await feed.proxy.go_on()


async def buffered_whole(feed: Feed) -> None:
    """A proxy keeps back a stream until it has ended, but for its head.

    The client is told what that may be, and has what comes when the proxy lets it.
    Firefox tells a page of no answer before its first byte: there it is not in time.
    """
    feed.proxy.buffer(heads=True)
    feed.place.cut()
    await feed.say()
    hint = "hints.find(([, message]) => message.endsWith(': does a proxy buffer?'))"
    kind = "stalled" if feed.tab.browser.name == "chromium" else "timeout"
    await feed.tab.until(f"{hint}?.[0] === '{kind}'", timeout=20)
    await feed.say()
    # What it has kept comes with the end, and is none the less each event once.
    feed.place.cut()
    await feed.say()
    await feed.proxy.go_on()


Fault = Callable[[Feed], Awaitable[None]]
FAULTS: tuple[Fault, ...] = (
    short_restart,
    long_restart,
    bad_gateway,
    reset_within_an_event,
    stalled,
    cut_when_idle,
    buffered,
    buffered_whole,
)


async def test_sleep(browser: Browser, place: Place, tab: Tab, tmp_path: Path) -> None:
    """A machine that has slept finds its connections dead, and goes on from its places.

    The processes of the browser stand still meanwhile, and nobody tells them that their
    connections are gone.
    """
    async with FaultProxy(place.port) as proxy:
        feed = Feed(place, proxy, tab, tmp_path / "events.db")
        await feed.start()
        await tab.go(str(proxy.url / "pages/classic" % {"user": "ann"}))
        await tab.run(
            "window.seen = ['auto', 'auto', 'off'].map((share) => "
            "watch(sse.feed({}, {share, stallTimeoutMs: 2000})));"
        )
        await tab.until("seen.every(({stream}) => stream.info.state === 'open')")
        vias = await tab.evaluate("seen.map(({stream}) => stream.info.via)")
        assert ["mux", "mux", "direct"] == vias
        await feed.say()
        await feed.complete()
        with browser.asleep():
            proxy.forget()
            await feed.say()
            await asyncio.sleep(4)
        await feed.say()
        await feed.complete()
        one, another, own = await tab.evaluate("seen.map(({errors}) => errors)")
        # What a browser tries first may be another connection of before, dead as well.
        assert "stalled" == own[0]
        # The first that finds out takes the other along.
        assert {"stalled"} <= {*one, *another}
        assert {*own, *one, *another} <= {"stalled", "timeout"}


async def test_faults(browser: Browser, tmp_path: Path) -> None:
    """Over each of the faults the list of events is 1, 2, 3, and nothing is thrown."""

    async def befall(fault: Fault) -> None:
        place = Place()
        tab = await browser.open()
        name = getattr(fault, "__name__", "")
        try:
            async with FaultProxy(place.port) as proxy:
                feed = Feed(place, proxy, tab, tmp_path / f"{name}.db")
                await feed.start()
                await feed.follow()
                await feed.say()
                await fault(feed)
                await feed.say()
                await feed.complete()
        except BaseException as exc:
            exc.add_note(f"{name}: {await tab.messages()}\n{place.asked}")
            raise
        finally:
            await tab.close()
            await place.close()

    async with nothing_left():
        results = await asyncio.gather(*map(befall, FAULTS), return_exceptions=True)
        failed = [result for result in results if isinstance(result, BaseException)]
        if failed:
            raise BaseExceptionGroup("faults that were not survived", failed)
