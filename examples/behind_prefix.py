"""Behind a proxy that serves the application below a prefix of its own.

    python examples/behind_prefix.py
    nginx -p . -c examples/nginx.conf       and open http://localhost:8080/live/

The application is written as if it stood at `/`, and the proxy takes the prefix away
before it asks. Only the URLs in its pages need it: `public_prefix` puts it before those
of `{{ sse_client() }}` and `{{ sse_url() }}`, and the generated client finds the rest
from where its own script came.
"""

import asyncio
import time
from collections.abc import AsyncIterator

import aiohttp_jinja2
import jinja2
from aiohttp import web

from aiohttp_sse_routes import setup, sse_route

PAGE = """<!doctype html>
<title>Clock</title>
<p id="now">-</p>
<p><a href="{{ sse_url("clock") }}">the stream itself</a>
{{ sse_client() }}
<script>
  sse.clock().on("message", ({now}) => {
    document.getElementById("now").textContent = new Date(now * 1000);
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
    return {}


app = web.Application()
aiohttp_jinja2.setup(app, loader=jinja2.DictLoader({"page.html": PAGE}))
app.router.add_get("/", index)
setup(app, public_prefix="/live")

if __name__ == "__main__":
    web.run_app(app, host="127.0.0.1", port=8081)
