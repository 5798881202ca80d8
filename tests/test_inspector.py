"""The inspector: who may see it, what it says, and that a browser shows it.

Law: the page is asked for as a browser does; what it shows is held against the streams
that a test has opened.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp_jinja2
import jinja2
import pytest
from aiohttp import web

from aiohttp_sse_routes import (
    Channels,
    ConfigurationError,
    SharedRun,
    SSERouteTableDef,
    setup,
)
from aiohttp_sse_routes.http import inspector as module

from .browser.driver import Tab
from .browser.site import Place
from .helpers import Served, app_of, until

Serve = Callable[..., Awaitable[Served]]

HOSTILE = "<img src=x onerror=alert(1)>"
PAGES = ("/_sse", "/_sse/", "/_sse/inspector/live")


def everybody(request: web.Request) -> bool:
    """Let everybody see it."""
    return True


def table_of() -> SSERouteTableDef:
    """Return a stream of each form."""
    table = SSERouteTableDef()

    @table.sse_route("/count/{start}", name="count.up")
    async def count(request: web.Request) -> AsyncIterator[dict[str, Any]]:
        for number in range(3):
            yield {"n": int(request.match_info["start"]) + number, "html": HOSTILE}
        await asyncio.Event().wait()

    count.__doc__ = HOSTILE

    @table.sse_route("/shared", shared=True)
    async def shared(run: SharedRun) -> AsyncIterator[str]:
        yield "one"
        await asyncio.Event().wait()

    @table.sse_route("/room")
    async def room(request: web.Request) -> Channels:
        return Channels("a")

    @table.sse_route("/echo", methods=("POST",))
    async def echo(request: web.Request) -> AsyncIterator[str]:
        text = await request.text()
        return words(text)

    return table


async def words(text: str) -> AsyncIterator[str]:
    """Yield the words of *text*."""
    for word in text.split():
        yield word


async def look_of(stream: Any) -> dict[str, Any]:
    """Return what the inspector says next."""
    found: dict[str, Any] = json.loads((await stream.next("look")).data)
    return found


# -- who may see it --------------------------------------------------------------------


async def test_without_a_guard_there_is_none(serve: Serve) -> None:
    """Nothing of it is mounted."""
    served = await serve(app_of(table_of()))
    for path in (*PAGES, "/_sse/inspector-0.js", "/_sse/inspector-0.css"):
        assert 404 == (await served.get(path))[0]


@pytest.mark.parametrize("refusal", ["false", "await", "raise"])
async def test_the_guard_is_asked_for_each(serve: Serve, refusal: str) -> None:
    """For the page and for its data, awaited if need be; False is 403."""
    allowed: list[bool] = [False]

    def says(request: web.Request) -> bool:
        if refusal == "raise" and not allowed[0]:
            raise web.HTTPUnauthorized
        return allowed[0]

    async def says_later(request: web.Request) -> bool:
        await asyncio.sleep(0)
        return allowed[0]

    guard: Any = says_later if refusal == "await" else says
    served = await serve(app_of(table_of(), inspector=guard))
    for path in PAGES:
        for method in ("GET", "HEAD"):
            async with served.session.request(method, served.base + path) as response:
                known = 405 if method == "HEAD" and path == PAGES[2] else 403
                expected = 401 if refusal == "raise" and known == 403 else known
                assert expected == response.status
    allowed[0] = True
    assert 200 == (await served.get("/_sse/"))[0]
    async with served.stream("/_sse/inspector/live") as stream:
        await stream.next("look")


async def test_the_guard_is_asked_again(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page that is open sees nothing more when its user may not any more."""
    monkeypatch.setattr(module, "_ASK_AGAIN", 1)
    monkeypatch.setattr(module, "_INTERVAL", 0.01)
    allowed = [True]
    served = await serve(app_of(table_of(), inspector=lambda request: allowed[0]))
    async with served.stream("/_sse/inspector/live") as stream:
        await stream.next("look")
        allowed[0] = False
        await until(lambda: served.sse.connections == 0)
    assert 403 == (await served.get("/_sse/inspector/live"))[0]


def generating(request: web.Request) -> Any:
    """Be no guard: nothing of it would run."""
    yield


@pytest.mark.parametrize("guard", [True, "yes", dict, lambda: True, generating])
def test_what_is_no_guard_is_an_error(guard: Any) -> None:
    """At setup, which names the option and the fix; True above all."""
    with pytest.raises(ConfigurationError, match="setup: inspector="):
        setup(web.Application(), table_of(), inspector=guard)


async def test_another_origin_is_told_nothing(serve: Serve) -> None:
    """An origin that may read the streams may not read the inspector."""
    origin = "https://other.example"
    app = app_of(table_of(), inspector=everybody, allow_origins=[origin])
    served = await serve(app)
    for path, allowed in (
        ("/_sse/", False),
        ("/_sse/inspector/live", False),
        ("/_sse/client.js", True),
        ("/room", True),
    ):
        url = served.base + path
        async with served.session.get(url, headers={"Origin": origin}) as response:
            assert ("Access-Control-Allow-Origin" in response.headers) is allowed


# -- the page --------------------------------------------------------------------------


@pytest.mark.parametrize("public_prefix", ["", "/behind"])
async def test_the_page(serve: Serve, public_prefix: str) -> None:
    """It loads two files by hash, with its nonce, and nothing else may run."""
    served = await serve(
        app_of(table_of(), inspector=everybody, public_prefix=public_prefix)
    )
    nonces, text = set(), ""
    for _ in range(2):
        async with served.session.get(f"{served.base}/_sse/") as response:
            text = await response.text()
            policy = response.headers["Content-Security-Policy"]
            assert "no-store" == response.headers["Cache-Control"]
        found = re.search(r"script-src 'nonce-([\w-]{22})'", policy)
        assert found is not None
        nonces.add(found[1])
        assert "require-trusted-types-for 'script'" in policy
        assert 2 == text.count(f'nonce="{found[1]}"')
        assert "unsafe" not in policy
    assert 2 == len(nonces)
    assert ["></script>"] == re.findall(r"(?s)<script[^>]*(>.*?</script>)", text)
    urls = re.findall(rf'"{public_prefix}(/_sse/inspector-[0-9a-f]{{16}}\.\w+)"', text)
    assert [".css", ".js"] == [url[-4:].lstrip("0123456789abcdef") for url in urls]
    for url in urls:
        async with served.session.get(served.base + url) as response:
            assert "immutable" in response.headers["Cache-Control"]
            assert response.content_type in ("text/css", "text/javascript")
        other = re.sub("-[0-9a-f]{16}", "-0", url)
        async with served.session.get(served.base + other) as response:
            assert (200, "no-store") == (
                response.status,
                response.headers["Cache-Control"],
            )
    async with served.session.get(
        f"{served.base}/_sse", allow_redirects=False
    ) as response:
        assert f"{public_prefix}/_sse/" == response.headers["Location"]


async def test_a_template_of_the_users_comes_first(serve: Serve) -> None:
    """As those of the client; what it is given is escaped."""
    app = web.Application()
    templates = {"sse_routes/inspector.html.j2": "<p>mine {{ base }} {{ '<' }}</p>"}
    aiohttp_jinja2.setup(app, loader=jinja2.DictLoader(templates))
    setup(app, table_of(), inspector=everybody)
    served = await serve(app)
    assert (200, b"<p>mine /_sse &lt;</p>") == await served.get("/_sse/")


# -- what it says ----------------------------------------------------------------------


async def test_what_it_says(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Routes, counts, connections and logs; not the stream that says so."""
    monkeypatch.setattr(module, "_INTERVAL", 0.05)
    served = await serve(app_of(table_of(), inspector=everybody, max_connections=2))
    async with (
        served.stream("/room") as room,
        served.stream("/count/7") as count,
        served.stream("/_sse/inspector/live") as live,
    ):
        await served.sse.publish("a", "news")
        await room.next()
        for _ in range(3):
            await count.next()
        routes = json.loads((await live.next("routes")).data)
        assert ["count.up", "shared", "room", "echo"] == [r["name"] for r in routes]
        assert ["private", "shared", "coroutine", "coroutine"] == [
            r["form"] for r in routes
        ]
        assert (["start"], HOSTILE) == (routes[0]["parameters"], routes[0]["doc"])
        look = await look_of(live)
        while look["total"]["events"] < 4:
            look = await look_of(live)
        assert served.sse.stats() == look["routes"]
        assert 2 == look["total"]["open"]
        assert {"room": 1, "count.up": 3} == {
            c["route"]: c["events"] for c in look["connections"]
        }
        assert ["a"] in [c["channels"] for c in look["connections"]]
        kept = {row["log"]: row for row in look["kept"]}
        assert 1 == kept["channels, MemoryStore"]["count"]
        assert (1, 3) == (kept["private runs"]["count"], kept["private runs"]["events"])
        # The limit is reached by the two, and an inspector is let in all the same.
        assert b"sse-busy" in (await served.get("/room"))[1]
        async with served.stream("/_sse/inspector/live") as other:
            assert 2 == (await look_of(other))["total"]["open"]


async def test_it_ends_at_shutdown(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """At once, and its handler need not be cancelled."""
    served = await serve(app_of(table_of(), inspector=everybody))
    async with served.stream("/_sse/inspector/live") as live:
        await live.next("look")
        with caplog.at_level(logging.INFO, "aiohttp_sse_routes"):
            await served.runner.cleanup()
    assert [] == [r for r in caplog.records if vars(r).get("sse_event") == "expel"]


# -- in a browser ----------------------------------------------------------------------


@pytest.mark.timeout(60)
async def test_in_a_browser(place: Place, tab: Tab) -> None:
    """It shows routes and counts, opens a stream with its parameters, and resumes it.

    Under its own policy, with Trusted Types, and nothing that came is markup.
    """
    await place.serve(app_of(table_of(), inspector=everybody))
    await tab.go(f"{place.base}/_sse/")
    await tab.until("document.querySelectorAll('#routes tbody tr').length === 4")
    assert "count.up" in await tab.evaluate(
        "document.querySelector('#routes tbody tr').textContent"
    )
    assert HOSTILE == await tab.evaluate(
        "document.querySelector('#try-doc').textContent"
    )
    await tab.run("document.querySelector('[name=\":start\"]').value = '7'")
    await tab.run(
        "document.forms[0].dispatchEvent(new Event('input', {bubbles: true}))"
    )
    curl = await tab.evaluate("document.querySelector('#try-curl').textContent")
    assert f"curl -N '{place.base}/count/7'" == curl
    await tab.click("[name=open]")
    await tab.until("document.querySelectorAll('#try-events li').length === 4")
    shown = await tab.evaluate(
        "[...document.querySelectorAll('#try-events li')].map(li => li.innerText)"
    )
    assert "sse-hello" in shown[3]
    assert all(
        f'"n": {9 - i}' in text and HOSTILE in text for i, text in enumerate(shown[:3])
    )
    open_now = "document.querySelector('#totals [data-label=Open]').textContent"
    await tab.until(f"{open_now} === '1'")
    await tab.click("[name=resume]")
    await tab.until("document.querySelectorAll('#try-events li').length === 5")
    assert '"resumed": "continued"' in await tab.evaluate(
        "document.querySelector('#try-events li').innerText"
    )
    await tab.click("[name=stop]")
    detached = "document.querySelector('#totals [data-label=Detached]').textContent"
    await tab.until(f"{detached} === '1'")
    assert 0 == await tab.evaluate("document.images.length")
    assert [] == await tab.messages()
