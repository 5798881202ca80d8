"""A page with the generated client: one call in a Jinja template, and a few lines.

    python examples/page_jinja.py           and open http://localhost:8080

`{{ sse_client() }}` is the script tag. The script makes `window.sse`, which has a
function for each route. Stop the server and start it again: the page says so, comes
back by itself, and is told that the events of the old process are gone.
"""

import asyncio
import time
from collections.abc import AsyncIterator

import aiohttp_jinja2
import jinja2
from aiohttp import web

from aiohttp_sse_routes import setup, sse_route

PAGE = """<!doctype html>
<title>{{ title }}</title>
<p><output id="now">-</output> (<span id="state"></span>)
<ul id="gaps"></ul>
{{ sse_client() }}
<script>
  const element = (id) => document.getElementById(id);
  const clock = sse.clock();
  clock.on("message", ({now}) => {
    element("now").textContent = new Date(now * 1000).toLocaleTimeString();
  });
  clock.onState(({state}) => {
    element("state").textContent = state;
  });
  clock.onGap(({reason}) => {
    const item = document.createElement("li");
    item.textContent = `events were lost: ${reason}`;
    element("gaps").append(item);
  });
</script>
"""


@sse_route("/clock")
async def clock(request: web.Request) -> AsyncIterator[dict[str, float]]:
    while True:
        yield {"now": time.time()}
        await asyncio.sleep(1)


@aiohttp_jinja2.template("page.html")
async def index(request: web.Request) -> dict[str, str]:
    return {"title": "Clock"}


app = web.Application()
aiohttp_jinja2.setup(app, loader=jinja2.DictLoader({"page.html": PAGE}))
app.router.add_get("/", index)
setup(app)

if __name__ == "__main__":
    web.run_app(app)
