"""A shared stream: the load of this machine, measured once for all who follow.

    python examples/load.py                 (not on Windows, which has no load average)
    curl -N http://localhost:8080/load

Start curl a second time: the newcomer is given the last minute at once, then the same
events as everybody else. The generator starts with the first client and ends when
nobody has been there for 15 seconds.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from aiohttp import web

from aiohttp_sse_routes import SharedRun, setup, sse_route


@dataclass
class Load:
    at: float
    one: float
    five: float
    fifteen: float


@sse_route("/load", shared=True, history=60, events={"load": Load})
async def load(run: SharedRun) -> AsyncIterator[Load]:
    while True:
        yield Load(time.time(), *os.getloadavg())
        await asyncio.sleep(1)


app = web.Application()
setup(app)

if __name__ == "__main__":
    web.run_app(app)
