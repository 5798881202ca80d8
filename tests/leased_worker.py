"""A worker of an application with one shared run: a real process, to be killed.

Law: run as ``python -m tests.leased_worker PORT KIND PLACE``; what it yields says which
process has yielded it.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import sys
from collections.abc import AsyncIterator

from aiohttp import web

from aiohttp_sse_routes import SharedRun, SSERouteTableDef, setup
from aiohttp_sse_routes.logs.redis import RedisStore
from aiohttp_sse_routes.logs.sqlite import SQLiteStore
from aiohttp_sse_routes.logs.store import Store

NAME = "ticks"
PATH = "/ticks"
EVERY = 0.01

table = SSERouteTableDef()


@table.sse_route(PATH, name=NAME, shared=True, resume=0.5, replay=100_000)
async def ticks(run: SharedRun) -> AsyncIterator[str]:
    """Yield ``PROCESS.COUNT``, a hundred times a second."""
    for count in itertools.count():
        yield f"{os.getpid()}.{count}"
        await asyncio.sleep(EVERY)


def store_of(kind: str, place: str) -> Store:
    """Return the store at *place*."""
    return RedisStore(place) if kind == "redis" else SQLiteStore(place)


def main(port: str, kind: str, place: str) -> None:
    """Serve until a signal comes."""
    logging.basicConfig(level=logging.WARNING)
    app = web.Application()
    setup(app, table, store=store_of(kind, place))
    web.run_app(app, host="127.0.0.1", port=int(port), print=None, access_log=None)


if __name__ == "__main__":
    main(*sys.argv[1:])
