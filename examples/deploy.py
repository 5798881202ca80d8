"""Served by gunicorn, with aiohttp's worker.

    pip install gunicorn
    cd examples && gunicorn --config gunicorn.conf.py deploy:app
    curl -N http://localhost:8080/clock

Stop gunicorn while curl runs: the stream ends cleanly, the `finally` has its moment,
and gunicorn is gone in about a second. Start it again, and a browser is back.
"""

import asyncio
import time
from collections.abc import AsyncIterator

from aiohttp import web

from aiohttp_sse_routes import setup, sse_route


@sse_route("/clock")
async def clock(request: web.Request) -> AsyncIterator[dict[str, float]]:
    try:
        while True:
            yield {"now": time.time()}
            await asyncio.sleep(1)
    finally:
        print("the clock stops")


app = web.Application()
# What gunicorn waits for at the end is graceful_timeout, less than which this must be.
setup(app, shutdown_grace=2)

if __name__ == "__main__":
    web.run_app(app)
