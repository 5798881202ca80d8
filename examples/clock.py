"""A clock: one generator for each client.

    python examples/clock.py
    curl -N http://localhost:8080/clock

Stop curl, come back within 15 seconds with the last id that you saw, and you are in
the same generator again, with what you missed before what is new:

    curl -N -H "Last-Event-ID: THE-ID" http://localhost:8080/clock
"""

import asyncio
import time
from collections.abc import AsyncIterator

from aiohttp import web

from aiohttp_sse_routes import setup, sse_route


@sse_route("/clock")
async def clock(request: web.Request) -> AsyncIterator[dict[str, float]]:
    while True:
        yield {"now": time.time()}
        await asyncio.sleep(1)


app = web.Application()
setup(app)

if __name__ == "__main__":
    web.run_app(app)
