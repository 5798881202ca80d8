"""Rechecks: whether those who were let in may still be.

Law: the guard, and the coroutine of a channel route, are asked again as they were at
first, on a request without traces. Only a clear refusal ends a stream: an error of the
check itself is logged, and changes nothing.
"""

from __future__ import annotations

__all__ = ("Rechecks", "Verdict")

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Literal

from .connection import Connection
from .script import spread

_logger = logging.getLogger("aiohttp_sse_routes")

Verdict = Literal["keep", "refused", "changed"]
"""What becomes of a connection: ``changed`` is to come back and be given what it may
have now."""


class Rechecks:
    """The connections that are asked about again and again.

    Args:
        end: Ends a connection; the second argument says whether it may come back.
    """

    def __init__(self, end: Callable[[Connection, bool], None]) -> None:
        self._end = end
        self._watched: dict[Connection, _Watched] = {}

    def add(
        self,
        connection: Connection,
        check: Callable[[], Awaitable[Verdict]],
        seconds: float,
        now: float,
    ) -> None:
        """Ask *check* about *connection* each *seconds*, spread by a quarter."""
        self._watched[connection] = _Watched(check, seconds, now + spread(seconds))

    def remove(self, connection: Connection) -> None:
        """Ask about *connection* no more."""
        watched = self._watched.pop(connection, None)
        if watched is not None and watched.task is not None:
            watched.task.cancel()

    def tick(self, now: float) -> None:
        """Begin what is due; who is being asked about is not asked about twice."""
        for connection, watched in self._watched.items():
            if now >= watched.due and watched.task is None:
                watched.due = now + spread(watched.seconds)
                watched.task = asyncio.get_running_loop().create_task(
                    self._ask(connection, watched), name="sse-recheck"
                )

    async def _ask(self, connection: Connection, watched: _Watched) -> None:
        try:
            verdict = await watched.check()
        except Exception:
            _logger.exception("a recheck failed; the stream goes on")
            verdict = "keep"
        finally:
            watched.task = None
        if verdict != "keep" and connection in self._watched:
            self._end(connection, verdict == "changed")


class _Watched:
    """A connection that is asked about."""

    def __init__(
        self, check: Callable[[], Awaitable[Verdict]], seconds: float, due: float
    ) -> None:
        self.check = check
        self.seconds = seconds
        self.due = due
        self.task: asyncio.Task[None] | None = None
