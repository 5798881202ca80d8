"""Pages of a user's, in a real Chromium: htmx, React, and a page with its data.

Law: as in test_browser. htmx and React are what npm has, served by the test.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import aiohttp_jinja2
import jinja2
import pytest
from aiohttp import ClientSession, web

from aiohttp_sse_routes import Channels, SSERouteTableDef, get_sse, setup

from .browser.driver import Browser, Tab, why_not
from .browser.site import Place
from .helpers import until
from .programs import EXAMPLES, default_table, run_program

pytestmark = pytest.mark.timeout(60)

MODULES = Path(__file__).parent / "browser" / "node_modules"
PAGES = Path(__file__).parent / "browser" / "pages"
HTMX = {"htmx.js": "htmx.org/dist/htmx.js", "sse.js": "htmx-ext-sse/sse.js"}

BAD_GATEWAY = (
    b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
)


@pytest.fixture(scope="module", name="browser")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser, started once."""
    reason = why_not("chromium")
    if reason is None and not (MODULES / "react").is_dir():
        reason = "htmx and React are not installed (make node)"
    if reason is not None:
        pytest.skip(reason)
    browser = Browser("chromium", tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


# -- htmx -----------------------------------------------------------------------------


@pytest.fixture
def todos(tmp_path: Path) -> Iterator[web.Application]:
    """The application of examples/htmx.py, with htmx."""
    for name, source in HTMX.items():
        shutil.copy(MODULES / source, tmp_path / name)
    with default_table():
        yield run_program(EXAMPLES / "htmx.py", tmp_path).app


ITEMS = "[...document.querySelectorAll('li')].map((item) => item.textContent)"


async def add(place: Place, text: str) -> None:
    """Add an item, as another program does."""
    async with (
        ClientSession() as session,
        session.post(place.base + "/todos", data={"text": text}) as response,
    ):
        assert 204 == response.status


async def shows(tab: Tab, *items: str) -> None:
    """Wait until the page lists the first two items and then *items*, each once."""
    found = json.dumps(["milk", "salt & pepper", *items], separators=(",", ":"))
    await tab.until(f"JSON.stringify({ITEMS}) === {json.dumps(found)}", timeout=25)


async def test_htmx(
    browser: Browser, place: Place, tab: Tab, todos: web.Application
) -> None:
    """What one adds by htmx's form all see, as the HTML that a template makes of it."""
    await place.serve(todos)
    other = await browser.open()
    for one in (tab, other):
        await one.go(place.base + "/")
        await shows(one)
    await until(lambda: 2 == place.hub.connections)
    await tab.run("document.querySelector('input').value = '<b>bread</b> & butter'")
    await tab.click("button")
    for one in (tab, other):
        await shows(one, "<b>bread</b> & butter")
    assert 0 == await tab.evaluate("document.querySelectorAll('b').length")
    assert "" == await tab.evaluate("document.querySelector('input').value")
    await other.close()


async def test_htmx_loses_nothing(
    place: Place, tab: Tab, todos: web.Application
) -> None:
    """Nothing is missing or there twice after a cut, a 502 and what came meanwhile."""
    await place.serve(todos)
    await tab.go(place.base + "/")
    await until(lambda: 1 == place.hub.connections)
    await add(place, "one")
    await shows(tab, "one")
    place.cut()
    await add(place, "two")
    await shows(tab, "one", "two")
    sse = get_sse(todos)
    await place.unplug()
    await place.answer(BAD_GATEWAY)
    await sse.publish(
        "todos", sse.render("todo.html", todos, {"text": "three"}, event="todo")
    )
    await until(lambda: place.refused, timeout=15)
    await place.plug()
    # By now it waits for longer; so it does not have to.
    await tab.run("dispatchEvent(new Event('online'))")
    await shows(tab, "one", "two", "three")
    await add(place, "four")
    await shows(tab, "one", "two", "three", "four")


async def test_htmx_asks_anew_after_a_gap(
    place: Place, tab: Tab, tmp_path: Path, todos: web.Application
) -> None:
    """A page that is told a gap has the list anew, and goes on from there."""
    await place.serve(todos)
    await tab.go(place.base + "/")
    await until(lambda: 1 == place.hub.connections)
    await add(place, "forgotten")
    await shows(tab, "forgotten")
    # The program is started again, and the memory store has forgotten everything.
    with default_table():
        again = run_program(EXAMPLES / "htmx.py", tmp_path).app
        await place.serve(again)
        await shows(tab)
        await add(place, "new")
        await shows(tab, "new")
        await place.shut_down()


# -- React ----------------------------------------------------------------------------

HOOKS = "useEffect, useLayoutEffect, useRef, useState"
REACT = f"export const {{ {HOOKS} }} = globalThis.React;\n"


def rooms_for_react() -> web.Application:
    """Return an application with rooms, React, and the hook."""
    table = SSERouteTableDef()

    @table.sse_route("/rooms/{room}", retry=500)
    async def room(request: web.Request) -> Channels:
        # With a history it does not matter when a page has come.
        return Channels(request.match_info["room"], history=10)

    async def page(request: web.Request) -> web.Response:
        text = (PAGES / "react.html").read_text("utf-8")
        return web.Response(text=text, content_type="text/html")

    async def hook(request: web.Request) -> web.Response:
        text = (EXAMPLES / "react_use_sse.js").read_text("utf-8")
        return web.Response(text=text, content_type="text/javascript")

    async def react(request: web.Request) -> web.Response:
        return web.Response(text=REACT, content_type="text/javascript")

    app = web.Application()
    app.router.add_get("/", page)
    app.router.add_get("/react/use_sse.js", hook)
    app.router.add_get("/react/react.js", react)
    for name in ("react", "react-dom", "scheduler"):
        app.router.add_static(f"/npm/{name}", MODULES / name)
    setup(app, table)
    return app


async def test_react(place: Place, tab: Tab) -> None:
    """A component has the events of its stream, and the state, and closes what it left.

    In StrictMode, which makes effects twice, one connection is asked for.
    """
    app = rooms_for_react()
    sse = get_sse(app)
    await place.serve(app)
    await tab.go(place.base + "/")
    await tab.until("window.ready")
    await tab.run("show({room: 'a', sign: '+'})")
    await tab.until("states.at(-1) === 'open'")
    assert ["connecting", "open"] == await tab.evaluate("states")
    assert ["/rooms/a"] == [a.path for a in place.asked if "rooms" in a.path]
    await sse.publish("a", "one")
    await tab.until("text.textContent === '+one'")

    # Other handlers: those that were rendered last are called, by the same stream.
    await tab.run("window.before = renders; show({room: 'a', sign: '-'})")
    await tab.until("renders > before")
    await sse.publish("a", "two")
    await sse.publish("a", "x", event="constructor")
    await sse.publish("a", "x", event="toString")
    await sse.publish("a", "three")
    await tab.until("text.textContent === '+one -two constructor -three'")
    assert ["/rooms/a"] == [a.path for a in place.asked if "rooms" in a.path]

    # Another room: another stream, and the one before is closed.
    await tab.run("show({room: 'b', sign: ''})")
    await sse.publish("b", "four")
    await tab.until("text.textContent.endsWith('-three four')")
    assert 1 == len(place.streams("/rooms/b"))
    await until(lambda: 1 == place.hub.connections)
    await sse.publish("a", "nobody hears it")

    # A cut: the state says so, and nothing is lost.
    place.cut()
    await sse.publish("b", "five")
    await tab.until("text.textContent.endsWith('four five')")
    assert "waiting" in await tab.evaluate("states")

    await tab.run("show(null)")
    await until(lambda: 0 == place.hub.connections)
    assert [] == await tab.evaluate("noise")
    assert 0 == await tab.evaluate("gaps")


# -- a page with its data --------------------------------------------------------------

PAGE = """<!doctype html>
<ul>{% for item in items %}<li>{{ item }}</li>{% endfor %}</ul>
{{ sse_client() }}
<script>
const cursor = {{ cursor|tojson }};
const items = new Map({{ versions|tojson }});
const seen = [];
// Called by the test, which decides how long it takes from rendering to opening.
function open(options) {
  window.stream = sse.room({room: 42}, options);
  stream.on("message", ({name, version}) => {
    seen.push(name + version);
    items.set(name, version);
  });
  stream.onGap((gap) => seen.push(gap));
}
</script>
"""


async def test_a_page_loses_nothing_between_its_data_and_its_stream(
    place: Place, tab: Tab
) -> None:
    """The cursor was taken before the query: from there on the page has every change.

    Whatever changes between the two, or until the page opens its stream, comes once.
    """
    app = web.Application()
    state = {"a": 1}
    table = SSERouteTableDef()

    @table.sse_route("/rooms/{room}")
    async def room(request: web.Request) -> Channels:
        return Channels(f"room:{request.match_info['room']}")

    async def change(name: str) -> None:
        state[name] = state.get(name, 0) + 1
        data = {"name": name, "version": state[name]}
        await get_sse(app).publish("room:42", data)

    @aiohttp_jinja2.template("page.html")
    async def page(request: web.Request) -> dict[str, object]:
        cursor = await get_sse(request).cursor("room:42")
        await change("b")  # between the place and the query
        versions = list(state.items())
        await change("c")  # between the query and the answer
        return {"cursor": cursor, "items": list(state), "versions": versions}

    aiohttp_jinja2.setup(app, loader=jinja2.DictLoader({"page.html": PAGE}))
    app.router.add_get("/", page)
    setup(app, table)
    await place.serve(app)
    await change("a")  # before the page: it is in its data
    await tab.go(place.base + "/")
    await change("a")  # before the stream is opened
    await change("d")
    await tab.run("open({lastEventId: cursor})")
    await tab.until("seen.length >= 4")
    await change("a")
    await tab.until("seen.at(-1) === 'a4'")
    assert ["b1", "c1", "a3", "d1", "a4"] == await tab.evaluate("seen")
    assert state == dict(await tab.evaluate("[...items]"))

    # Without the cursor all that is lost: this is what it is for.
    await tab.reload()
    await change("e")
    await tab.run("open({})")
    await tab.until("stream.info.state === 'open'")
    await change("f")
    await tab.until("seen.length")
    assert ["f1"] == await tab.evaluate("seen")
