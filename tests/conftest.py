"""What all tests share: servers with production's settings, and nothing left behind.

Every test that serves runs in both ``handler_cancellation`` modes: aiohttp's own test
server forces the friendlier of the two.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import ClientSession, ClientTimeout, web

from aiohttp_sse_routes.streams import debts, delivery, feed, slices
from aiohttp_sse_routes.testing import SettableClock, nothing_left

from .browser.fixtures import browser, source, tab
from .browser.fixtures import serve as place
from .helpers import Served
from .lifecycle import Run, Site
from .stores import contract_redis, make_store, stores

# Fixtures of the tests with browsers, and of those of what every store promises.
__all__ = (
    "browser",
    "contract_redis",
    "make_store",
    "place",
    "source",
    "stores",
    "tab",
)


# Where pytest-xdist is not there, nobody asks.
@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Have tests stay together that share what is slow to start."""
    from .in_parallel import Scheduler

    return Scheduler(config, log)


@pytest.fixture(params=[False, True], ids=["default", "cancelling"])
def handler_cancellation(request: pytest.FixtureRequest) -> bool:
    """Both modes of ``web.run_app(handler_cancellation=...)``."""
    value: bool = request.param
    return value


@pytest.fixture(params=["at once", "owed"])
def turns_that_are_short(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let each turn of the loop be too short for all writes, or not."""
    if request.param == "owed":
        for module in (debts, delivery, feed):
            monkeypatch.setattr(module, "CHECK_EVERY", 1)
        monkeypatch.setattr(slices, "SLICE", 5e-6)


@pytest.fixture
def clock(sse_clock: SettableClock) -> SettableClock:
    """A clock that stands still: the kit's, by a shorter name."""
    return sse_clock


@pytest.fixture
async def serve(
    handler_cancellation: bool,
) -> AsyncIterator[Callable[..., Awaitable[Served]]]:
    """Return a function that serves an application on a free port of loopback."""
    served: list[Served] = []

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

    async with nothing_left():
        yield start
        for one in served:
            await one.close()
            for client in one.raw_clients:
                client.close()


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """Who has signed the servers' certificates."""
    return trustme.CA()


@pytest.fixture
def site_of(authority: trustme.CA, tmp_path: Path) -> Callable[[str], Site]:
    """Return a function that makes a site of ``tcp``, ``tls`` or ``unix``."""
    return lambda transport: Site(transport, authority, tmp_path)


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Run a scenario on a loop of each kind."""
    factory: Any = asyncio.new_event_loop
    if request.param == "uvloop":
        factory = pytest.importorskip("uvloop").new_event_loop

    def start(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(scenario())

    return start
