"""A process's part in a lease: asking for it, renewing it, giving it back.

Law: one question at a time, in a task of its own that nothing of the generator's can
hold up but a blocked loop. A lease counts from when it was asked for, not from when the
answer came: whoever believes that it holds one is never the last to know that it is
over.
"""

from __future__ import annotations

__all__ = ("ASK", "LEASE", "Tenure")

import asyncio
import contextvars
import logging
import math
from collections.abc import Callable
from typing import Final

from ..errors import StoreError
from ..logs.entry import Fence
from ..logs.store import Store

_logger = logging.getLogger("aiohttp_sse_routes")

LEASE: Final = 6.0
"""Seconds that a lease is given for: who dies is followed by another within these, what
lies between two questions, and a moment for the start."""

ASK: Final = 2.0
"""Seconds between two questions: one may fail, and another, before a lease is over."""

_AGAIN: Final = 0.5
"""Seconds until a store that did not answer is asked again."""


class Tenure:
    """One lease, as this process asks for it.

    Args:
        store: Who gives it.
        name: What it is for.
        holder: Who this process is.
        needed: Says whether to go on asking; what is held is kept in any case.
        on_answer: Told after each question, whatever came of it.
        on_end: Told when nothing is asked any more.

    Attributes:
        fence: The proof, while it is held.
        answered: Done when the store has answered, or failed to, for the first time.
        away: Whether it has failed to, the last time.
        rival: Whether another was found to hold it.
        unwanted: Seconds for which, as of the last answer, no other has wanted it.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        holder: str,
        *,
        needed: Callable[[], bool],
        on_answer: Callable[[], None],
        on_end: Callable[[], None],
    ) -> None:
        self.fence: Fence | None = None
        self.away = False
        self.rival = False
        self.unwanted = math.inf
        self._loop = asyncio.get_running_loop()
        self.answered: asyncio.Future[None] = self._loop.create_future()
        self._store = store
        self._name = name
        self._holder = holder
        self._needed = needed
        self._on_answer = on_answer
        self._on_end = on_end
        self._until = 0.0
        self._poked = asyncio.Event()
        self._returning = False
        self.task: asyncio.Task[None] | None = None

    def ask(self) -> None:
        """Ask at once, and go on as long as is needed."""
        self._poked.set()
        if self.task is None:
            self.rival = False
            if self.answered.done():
                self.answered = self._loop.create_future()
            self.task = self._loop.create_task(
                self._run(),
                name=f"sse-lease {self._name[1:]}",
                context=contextvars.Context(),
            )

    def wake(self) -> None:
        """See whether asking is needed any more."""
        self._poked.set()

    def give_back(self) -> None:
        """Give it back, so that another need not wait until it has run out."""
        self._returning = True
        self.ask()

    async def _run(self) -> None:
        try:
            while True:
                self._poked.clear()
                if self._returning:
                    await self._release()
                if not self._needed() and self.fence is None:
                    break
                await self._question()
                if not self._returning:
                    # Else nothing is to be begun under what is given back next.
                    self._on_answer()
                await self._rest()
        finally:
            self.task = None
            if not self.answered.done():
                self.answered.set_result(None)
            self._on_end()

    async def _question(self) -> None:
        asked = self._loop.time()
        limit = self._until if self.fence is not None else asked + LEASE
        try:
            async with asyncio.timeout_at(limit):
                lease = await self._store.lease(
                    self._name, self._holder, LEASE, wanted=self.rival
                )
                if lease.number is None and not self.rival:
                    # The holder is to know; what one wants for oneself counts not.
                    self.rival = True
                    lease = await self._store.lease(
                        self._name, self._holder, LEASE, wanted=True
                    )
        except (StoreError, TimeoutError) as exc:
            self.away = True
            _logger.debug("the lease %r cannot be had now: %s", self._name, exc)
            if self.fence is not None and self._loop.time() >= self._until:
                self.fence = None
        else:
            self.away = False
            self.rival = lease.number is None
            self.unwanted = lease.wanted
            self._until = asked + LEASE
            held = lease.number is not None
            self.fence = Fence(self._name, lease.number or 0) if held else None
        if not self.answered.done():
            self.answered.set_result(None)

    async def _rest(self) -> None:
        seconds = _AGAIN if self.away else ASK
        if self.fence is not None:
            seconds = max(0.0, min(seconds, self._until - self._loop.time()))
        try:
            async with asyncio.timeout(seconds):
                await self._poked.wait()
        except TimeoutError:
            pass

    async def _release(self) -> None:
        self._returning = False
        fence, self.fence = self.fence, None
        if fence is None:
            return
        try:
            async with asyncio.timeout(_AGAIN):
                await self._store.release(fence)
        except (StoreError, TimeoutError) as exc:
            _logger.debug("the lease %r runs out by itself: %s", self._name, exc)
