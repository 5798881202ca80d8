"""A page that uses the browser's own EventSource, without the generated client.

    python examples/page_eventsource.py     and open http://localhost:8080

EventSource sends the last id back by itself, so that short breaks are replayed here
too. What it lacks is said in docs/howto/eventsource-and-htmx.md: it gives up for good
on a status other than 200, for instance.
"""

import asyncio
import os
from collections.abc import AsyncIterator

from aiohttp import web

from aiohttp_sse_routes import SharedRun, setup, sse_route

PAGE = """<!doctype html>
<title>Load</title>
<p>Load of the last minute: <output id="load">-</output>
<p id="note"></p>
<script>
  const source = new EventSource("/load");
  const element = (id) => document.getElementById(id);
  source.onmessage = (event) => {
    element("load").textContent = JSON.parse(event.data).load;
  };
  source.addEventListener("sse-gap", (event) => {
    element("note").textContent = "events were lost: " + JSON.parse(event.data).reason;
  });
  source.addEventListener("sse-end", () => source.close());
  source.onerror = () => {
    const gone = source.readyState === EventSource.CLOSED;
    element("note").textContent = gone ? "closed for good" : "reconnecting";
  };
</script>
"""


@sse_route("/load", shared=True, history=1)
async def load(run: SharedRun) -> AsyncIterator[dict[str, float]]:
    while True:
        yield {"load": os.getloadavg()[0]}
        await asyncio.sleep(1)


async def index(request: web.Request) -> web.Response:
    return web.Response(text=PAGE, content_type="text/html")


app = web.Application()
app.router.add_get("/", index)
setup(app)

if __name__ == "__main__":
    web.run_app(app)
