"""What all tests share: servers with production's settings, and nothing left behind.

Every test that serves runs in both ``handler_cancellation`` modes: aiohttp's own test
server forces the friendlier of the two.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import ClientSession, ClientTimeout, web

from aiohttp_sse_routes.testing import SettableClock

from .helpers import Served, no_generators_left, no_tasks_left


@pytest.fixture(params=[False, True], ids=["default", "cancelling"])
def handler_cancellation(request: pytest.FixtureRequest) -> bool:
    """Both modes of ``web.run_app(handler_cancellation=...)``."""
    value: bool = request.param
    return value


@pytest.fixture
def clock() -> SettableClock:
    """A clock that stands still."""
    return SettableClock()


@pytest.fixture
async def serve(
    handler_cancellation: bool,
) -> AsyncIterator[Callable[..., Awaitable[Served]]]:
    """Return a function that serves an application on a free port of loopback."""
    served: list[Served] = []
    before = asyncio.all_tasks()

    async def start(app: web.Application, **options: Any) -> Served:
        runner = web.AppRunner(
            app, handler_cancellation=handler_cancellation, access_log=None
        )
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, **options)
        await site.start()
        session = ClientSession(timeout=ClientTimeout(total=10))
        one = Served(app, runner, session, "https" if options else "http")
        served.append(one)
        return one

    yield start
    for one in served:
        await one.close()
        for client in one.raw_clients:
            client.close()
    await no_tasks_left(before)
    no_generators_left()
