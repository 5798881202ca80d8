"""The pytest plugin: fixtures whose names begin with ``sse_``, without configuration.

Law: it is imported at the start of every test run of its environment, so it imports
nothing but pytest, and pytest-asyncio if that is there. It is installed as a package of
its own, ``pytest_aiohttp_sse_routes``, for a module within aiohttp_sse_routes could not
be imported without all of that, and aiohttp.
"""

from __future__ import annotations

__all__ = (
    "pytest_collection_modifyitems",
    "sse_clock",
    "sse_nothing_left",
    "sse_proxy",
    "sse_stream",
)

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest

try:
    from pytest_asyncio import fixture as async_fixture
except ImportError:
    # Then nobody gets as far as to an asynchronous fixture.
    async_fixture = pytest.fixture  # type: ignore[assignment]

if TYPE_CHECKING:
    from aiohttp_sse_routes.testing import (
        EventStream,
        FaultProxy,
        SettableClock,
        nothing_left,
    )

_LAST = "sse_nothing_left"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let `sse_nothing_left` look when all other fixtures of a test have ended.

    What is set up first ends last. Those of a wider scope stay before it: what they
    have begun is no test's.
    """
    for item in items:
        names: list[str] = getattr(item, "fixturenames", [])
        if _LAST not in names:
            continue
        info = getattr(item, "_fixtureinfo", None)
        known = getattr(info, "name2fixturedefs", {})
        names.remove(_LAST)
        place = 0
        while place < len(names) and _is_wider(known.get(names[place])):
            place += 1
        names.insert(place, _LAST)


def _is_wider(fixtures: Any) -> bool:
    return bool(fixtures) and fixtures[-1].scope != "function"


@pytest.fixture
def sse_clock() -> SettableClock:
    """A clock for ``setup(app, clock=sse_clock)``: ``await sse_clock.advance(15)``."""
    from aiohttp_sse_routes.testing import SettableClock

    return SettableClock()


@pytest.fixture
def _sse_loop(request: pytest.FixtureRequest) -> None:
    """Say what is missing, where nobody would run an asynchronous fixture."""
    if not request.config.pluginmanager.hasplugin("asyncio"):
        pytest.fail(
            "sse_stream, sse_proxy and sse_nothing_left need an event loop: "
            "pip install pytest-aiohttp (or pytest-asyncio)",
            pytrace=False,
        )


@pytest.fixture
def _sse_client(request: pytest.FixtureRequest, _sse_loop: None) -> Any:
    """Return pytest-aiohttp's ``aiohttp_client``; None where it is not there."""
    try:
        return request.getfixturevalue("aiohttp_client")
    except pytest.FixtureLookupError:
        return None


@async_fixture
async def _sse_served(_sse_client: Any) -> AsyncIterator[_Served]:
    async with AsyncExitStack() as stack:
        yield _Served(_sse_client, stack)


@async_fixture
async def sse_stream(
    _sse_served: _Served,
) -> AsyncIterator[Callable[..., Awaitable[EventStream]]]:
    """Return what opens a stream, and cuts it when the test is over.

    As in ``stream = await sse_stream(app, "/clock")``. The first argument is an
    application, which is served; or a test client, a client session or a fault proxy.
    The others are those of ``EventStream``.
    """
    from aiohttp_sse_routes.testing import EventStream

    async with AsyncExitStack() as stack:

        async def open_stream(target: Any, path: Any, **options: Any) -> EventStream:
            client = await _sse_served.client(target)
            return await stack.enter_async_context(EventStream(client, path, **options))

        yield open_stream


@async_fixture
async def sse_proxy(
    _sse_served: _Served,
) -> AsyncIterator[Callable[..., Awaitable[FaultProxy]]]:
    """Return what puts a proxy before a server, and ends it when the test is over.

    As in ``proxy = await sse_proxy(app)``. The argument is an application, which is
    served; or a test client or server, a URL or a port.
    """
    from aiohttp_sse_routes.testing import FaultProxy

    async with AsyncExitStack() as stack:

        async def put_before(target: Any) -> FaultProxy:
            client = await _sse_served.client(target)
            return await stack.enter_async_context(FaultProxy(client))

        yield put_before


@async_fixture
async def sse_nothing_left(_sse_loop: None) -> AsyncIterator[nothing_left]:
    """Fail the test if a task or a generator is left when all has ended.

    It looks behind all other fixtures of the test, whatever their order.
    """
    from aiohttp_sse_routes.testing import nothing_left

    async with nothing_left() as watch:
        yield watch


class _Served:
    """The applications of a test, each with one client.

    Args:
        make: pytest-aiohttp's ``aiohttp_client``, if it is there.
        stack: Ends what is made here.
    """

    def __init__(self, make: Any, stack: AsyncExitStack) -> None:
        self._make = make
        self._stack = stack
        self._clients: dict[Any, Any] = {}

    async def client(self, target: Any) -> Any:
        """Return a client for *target*, if it is an application; else *target*."""
        from aiohttp import web
        from aiohttp.test_utils import TestClient, TestServer

        if not isinstance(target, web.Application):
            return target
        if target not in self._clients:
            if self._make is not None:
                client = await self._make(target)
            else:
                client = TestClient(TestServer(target))
                await self._stack.enter_async_context(client)
            self._clients[target] = client
        return self._clients[target]
