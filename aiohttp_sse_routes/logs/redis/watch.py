"""Keeps following Redis: one session after another, with an ear open in each.

Law: first the ear, then the log: what is in neither is still to come. A log that goes
on while nothing is heard of it is noticed, and so is a silent connection. Whatever
fails is tried again, and told once.
"""

from __future__ import annotations

__all__ = ("Watch",)

import asyncio
import logging
import random
from typing import Final

from ...errors import StoreError, StoreUnavailable
from ..store import Store
from .ear import Ear
from .errors import Unusable
from .follow import Follow
from .remote import Remote
from .server import examine
from .wire import Server

_logger = logging.getLogger("aiohttp_sse_routes")

_CHECK: Final = 1.5
"""Seconds between looks whether anything was missed."""

_DEAF: Final = 3
"""Pings without an answer after which a connection hears nothing any more."""

_BACK_OFF: Final = (0.05, 1.0)
"""Seconds before it is tried again: at first, and at most; each a little random."""


class Watch:
    """Keeps a store's generation, and with a follower its entries, up to date.

    Args:
        store: Which is told.
        server: Where the log is.
        remote: The log.
        follows: Whether entries are wanted.

    Attributes:
        follow: What is known of the log.
    """

    def __init__(
        self, store: Store, server: Server, remote: Remote, *, follows: bool
    ) -> None:
        self.follow = Follow(store, remote, self.hurry, follows=follows)
        self._server = server
        self._remote = remote
        self._follows = follows
        self._news = asyncio.Event()
        self._hurried = False
        self._away = False
        self._examined = False
        self._task: asyncio.Task[None] | None = None
        self._first: asyncio.Future[None] | None = None

    async def open(self) -> None:
        """Begin; return when the log was reached, or could not be for now.

        Raises:
            StoreError: it will never be, as things are configured.
        """
        loop = asyncio.get_running_loop()
        self._first = loop.create_future()
        self._task = loop.create_task(self._run(self._first))
        await self._first

    async def close(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def hurry(self) -> None:
        """Look now what the log is."""
        self._hurried = True
        self._news.set()

    # -- one session after another -----------------------------------------------------

    async def _run(self, first: asyncio.Future[None]) -> None:
        pause, most = _BACK_OFF
        while True:
            error: Exception | None = None
            try:
                await self._session(first)
            except StoreError as failure:
                error = failure
            except Exception as failure:
                _logger.exception("following Redis at %s failed", self._server.name)
                error = failure
            if not self._away:
                pause = _BACK_OFF[0]
            if isinstance(error, Unusable) and not first.done():
                first.set_exception(StoreError(str(error)))
            elif isinstance(error, StoreError) and not self._away:
                _logger.error("%s; trying again until it can be", error)
            _settle(first)
            self._away = True
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
            pause = min(most, pause * 2)

    async def _session(self, first: asyncio.Future[None]) -> None:
        if not self._follows:
            await self._greet(first)
            while True:
                await self._wait(_CHECK)
                await self._look()
        ear = Ear(self._server, self._remote.channel, self._news.set)
        try:
            await ear.open()
            await self._greet(first)
            await self._listen(ear)
        finally:
            await ear.close()

    async def _greet(self, first: asyncio.Future[None]) -> None:
        await examine(self._remote, self._server, again=self._examined)
        self._examined = True
        await self._look()
        if self._away:
            _logger.info("Redis at %s is back", self._server.name)
        self._away = False
        _settle(first)

    async def _listen(self, ear: Ear) -> None:
        loop, follow = asyncio.get_running_loop(), self.follow
        expected, due = follow.head, loop.time() + _CHECK
        while True:
            await self._wait(due - loop.time())
            await follow.take(ear.take())
            if self._hurried:
                await self._look()
            if loop.time() < due:
                continue
            if ear.unanswered >= _DEAF or follow.head < expected:
                await self._look()
                raise StoreUnavailable(
                    f"Redis at {self._server.name} is not heard any more"
                )
            await ear.ping()
            expected = await follow.check()
            due = loop.time() + _CHECK

    async def _look(self) -> None:
        self._hurried = False
        await self.follow.look()

    async def _wait(self, seconds: float) -> None:
        """Wait for news, for so long."""
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            pass
        self._news.clear()


def _settle(first: asyncio.Future[None]) -> None:
    if not first.done():
        first.set_result(None)
