"""The documentation is true: its code runs, and it leaves out nothing that is public."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from .helpers import Served
from .pages import DOCS, ROOT, Page, all_pages, blocks_of
from .programs import default_table

pytestmark = pytest.mark.parametrize("handler_cancellation", [False], indirect=True)

STAND_INS: dict[str, dict[str, Any]] = {}


@pytest.fixture(autouse=True)
def _default_table() -> Iterator[None]:
    with default_table():
        yield


@pytest.fixture
def run(serve: Callable[..., Awaitable[Served]]) -> Callable[..., Awaitable[Page]]:
    """Return a function that runs a page and serves what it has set up."""

    async def run(name: str) -> Page:
        page = Page(ROOT / name, serve, STAND_INS.get(name, {}))
        await page.run()
        return page

    return run


def _with_python() -> list[str]:
    return [
        str(path.relative_to(ROOT))
        for path in all_pages()
        if any(block.language == "python" for block in blocks_of(path))
    ]


@pytest.mark.parametrize("name", _with_python())
async def test_the_code_of_each_page_runs(
    run: Callable[[str], Awaitable[Page]], name: str
) -> None:
    """The Python of a page runs in order, and its applications start and end."""
    page = await run(name)
    for served in await page.all_served():
        status, script = await served.get("/_sse/client.js")
        assert status == 200
        assert b"createSse" in script
