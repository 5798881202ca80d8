"""A list that everybody sees grow: fragments of HTML as events, for htmx.

    python examples/htmx.py FOLDER      and open http://localhost:8080 in two windows

FOLDER has `htmx.js` (htmx 2) and `sse.js` (its SSE extension), as their packages have
them. Add something, stop the server, start it again: nothing is missing or there twice.
htmx takes what is given by `createEventSource`; the generated client's class survives
what ends the browser's own for good, as a proxy's 502.
"""

import sys

import aiohttp_jinja2
import jinja2
from aiohttp import web

from aiohttp_sse_routes import Channels, get_sse, setup, sse_route

FOLDER = sys.argv[1] if len(sys.argv) > 1 else "static"
TODOS = ["milk", "salt & pepper"]
TEMPLATES = {
    "todo.html": "<li>{{ text }}</li>",
    "page.html": """<!doctype html>
<title>To do</title>
<script src="/static/htmx.js"></script>
<script src="/static/sse.js"></script>
{{ sse_client() }}
<script>htmx.createEventSource = (url) => new sse.EventSource(url);</script>
<main hx-ext="sse" sse-connect="{{ sse_url('changes', after=cursor) }}"
      hx-get="/" hx-trigger="sse:sse-gap" hx-select="main" hx-swap="outerHTML"
      hx-disinherit="*">
  <ul sse-swap="todo" hx-swap="beforeend">
    {% for text in todos %}{% include "todo.html" %}{% endfor %}
  </ul>
  <form hx-post="/todos" hx-swap="none" hx-on::after-request="this.reset()">
    <input name="text" required autofocus> <button>Add</button>
  </form>
</main>
""",
}


@sse_route("/changes")
async def changes(request: web.Request) -> Channels:
    return Channels("todos")


async def add(request: web.Request) -> web.Response:
    text = str((await request.post())["text"])
    TODOS.append(text)  # first the state, then the change
    sse = get_sse(request)
    item = sse.render("todo.html", request, {"text": text}, event="todo")
    await sse.publish("todos", item)
    return web.Response(status=204)


@aiohttp_jinja2.template("page.html")
async def page(request: web.Request) -> dict[str, object]:
    cursor = await get_sse(request).cursor("todos")  # first the place, then the state
    return {"cursor": cursor, "todos": TODOS}


app = web.Application()
aiohttp_jinja2.setup(app, loader=jinja2.DictLoader(TEMPLATES))
app.router.add_get("/", page)
app.router.add_post("/todos", add)
app.router.add_static("/static", FOLDER)
setup(app)

if __name__ == "__main__":
    web.run_app(app)
