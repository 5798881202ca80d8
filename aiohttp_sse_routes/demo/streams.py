"""The streams of the demo, as a user of the package writes them.

Law: a handler says what is streamed and how it is shared, and nothing else; the page
shows its source. Each event has a number of its own, ``n``, so that the page can prove
that none is missing and none comes twice without a look at the ids.
"""

from __future__ import annotations

__all__ = (
    "FOLLOWED",
    "JOB_SECONDS",
    "POOL",
    "TREE",
    "job",
    "log",
    "machine",
    "room",
    "routes",
)

from collections.abc import AsyncIterator
from concurrent.futures import Executor
from contextlib import aclosing
from pathlib import Path
from typing import Final

from aiohttp import web

from aiohttp_sse_routes import Channels, SharedRun, SSERouteTableDef

from .chat import ROOM
from .hashing import index
from .machine import NoMeter, Sample, samples
from .tail import Line, Notice, follow
from .threads import in_thread
from .tree import Progress, Scan, Summary, Tree

FOLLOWED: Final = web.AppKey("followed", Path)
"""The file that is followed."""

TREE: Final = web.AppKey("tree", Tree)
"""The files that are hashed."""

POOL: Final = web.AppKey("pool", Executor)
"""The threads that hash."""

JOB_SECONDS: Final = web.AppKey("job_seconds", float)
"""How long a job takes at least, so that there is time to cut it."""

EVERY: Final = 0.1
"""Seconds between two events of a job, if it is slowed down."""

routes = SSERouteTableDef()


@routes.sse_route("/machine", shared=True, history=120, resume=300)
async def machine(run: SharedRun) -> AsyncIterator[Sample]:
    """What this machine does, once a second, for all who look."""
    try:
        async with aclosing(in_thread(samples(), every=1)) as steps:
            async for sample in steps:
                yield sample
    except NoMeter as reason:
        raise web.HTTPNotImplemented(text=str(reason)) from None


@routes.sse_route(
    "/log", shared=True, history=50, resume=300, events={"notice": Notice}
)
async def log(run: SharedRun) -> AsyncIterator[Line | Notice]:
    """The lines of a file as it grows, for all who look."""
    path = run.app[FOLLOWED]
    async with aclosing(in_thread(follow(path), every=0.2)) as looks:
        async for found in looks:
            for line in found:
                yield line


@routes.sse_route(
    "/job",
    resume=600,
    replay=1000,
    replay_bytes=500_000,
    events={"scan": Scan, "progress": Progress, "summary": Summary},
)
async def job(request: web.Request) -> AsyncIterator[Scan | Progress | Summary]:
    """Hash a tree of files: a job of this client's own, which outlives connections."""
    app, seconds = request.app, request.app[JOB_SECONDS]
    every = EVERY if seconds else 0
    steps = index(app[TREE], events=round(seconds / EVERY))
    return in_thread(steps, every=every, pool=app[POOL])


@routes.sse_route("/room")
async def room(request: web.Request) -> Channels:
    """What is said in the room; who comes in gets the last hundred messages."""
    return Channels(ROOM, history=100)
