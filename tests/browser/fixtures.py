"""What tests with browsers share; `tests/conftest.py` makes it known to all of them.

Law: a browser is started once a session, whatever tests need it, and each test has a
port and tabs of its own, in which nothing is left behind.
"""

from __future__ import annotations

__all__ = ("NETWORK", "browser", "quiet", "serve", "source", "tab")

from collections.abc import AsyncIterator, Iterator
from typing import Final

import pytest

from aiohttp_sse_routes.testing import nothing_left

from .driver import Browser, Tab, why_not
from .site import Place, Source

NETWORK: Final = "Failed to load resource"
"""How the browsers' own lines about the network begin, which no page can prevent."""


@pytest.fixture(scope="session", params=["chromium", "firefox"])
def browser(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Browser]:
    """A browser, started once."""
    name: str = request.param
    reason = why_not(name)
    if reason is not None:
        pytest.skip(reason)
    browser = Browser(name, tmp_path_factory.mktemp(name))
    yield browser
    browser.close()


@pytest.fixture(name="place")
async def serve() -> AsyncIterator[Place]:
    """A port for applications, which leave nothing behind."""
    async with nothing_left():
        place = Place()
        yield place
        await place.close()


@pytest.fixture
async def tab(browser: Browser, place: Place) -> AsyncIterator[Tab]:
    """A tab of its own."""
    tab = await browser.open()
    yield tab
    print(*await tab.messages(), *place.asked, sep="\n")  # noqa: T201 -- if it failed
    await tab.close()


@pytest.fixture
def source() -> Source:
    """What the streams yield."""
    return Source()


async def quiet(tab: Tab, *lines: str) -> None:
    """Fail if the page met what it is not to see, but *lines* of the browser's own."""
    assert [] == await tab.evaluate("noise")
    messages = await tab.messages()
    assert [] == [m for m in messages if not m["text"].startswith((NETWORK, *lines))]
