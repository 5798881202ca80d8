"""Work that others may break off.

Law: whoever waits for the work is told that it is over only when it is: what it holds
has been freed by then, whether it was done, broken off, or given up by who waited.
"""

from __future__ import annotations

__all__ = ("Interruptible",)

import asyncio
from collections.abc import Coroutine
from typing import Any


class Interruptible:
    """Does one piece of work after another."""

    def __init__(self) -> None:
        self._stop: asyncio.Future[None] | None = None

    async def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Do *work*, and raise what it raises; return early if it is broken off."""
        loop = asyncio.get_running_loop()
        task = loop.create_task(work)
        task.add_done_callback(_retrieved)
        self._stop = stop = loop.create_future()
        try:
            await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._stop = None
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
        if not task.cancelled():
            task.result()

    def interrupt(self) -> None:
        """Break off what is done now, if anything is."""
        if self._stop is not None and not self._stop.done():
            self._stop.set_result(None)


def _retrieved(task: asyncio.Task[None]) -> None:
    """Look at what *task* raised, also where nobody waits for it any more."""
    if not task.cancelled():
        task.exception()
