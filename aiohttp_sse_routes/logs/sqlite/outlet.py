"""The way from the threads of an SQLite store to the event loop.

Law: what is handed on is in order and once, whoever of the threads has it first: each
hands on all there is behind the place that it read at, and what has gone before is left
out. On the loop nothing waits for a thread.
"""

from __future__ import annotations

__all__ = ("Outlet", "Result", "settle")

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ..entry import Lineage
from ..store import Store
from .log import Run

_logger = logging.getLogger("aiohttp_sse_routes")


class Result(NamedTuple):
    """What became of an appeal to the log.

    Attributes:
        future: Who waits for it.
        value: What it is given, unless it failed.
        error: Why it failed.
    """

    future: asyncio.Future[Any]
    value: Any
    error: Exception | None = None

    def settle(self) -> None:
        """Tell who waits; on the loop."""
        if self.future.done():
            return
        if self.error is None:
            self.future.set_result(self.value)
        else:
            self.future.set_exception(self.error)


def settle(results: Sequence[Result]) -> None:
    """Tell all who wait; on the loop."""
    for result in results:
        result.settle()


class Outlet:
    """Hands on to one store, on one loop.

    Args:
        store: Whose.
        follows: Whether anybody follows; else results alone are handed on.

    Attributes:
        followed: The number through which all entries are handed on.
        follows: See above.
    """

    def __init__(self, store: Store, *, follows: bool) -> None:
        self.followed = 0
        self.follows = follows
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._epoch = 0
        self._generation = ""
        self._closed = False

    # -- in the threads ----------------------------------------------------------------

    def begin(self, epoch: int, lineage: Lineage, head: int) -> None:
        """Hand on that the log is at *head*, in the file numbered *epoch*.

        If the file was only opened again, all goes on where it was.
        """
        with self._lock:
            self._epoch = epoch
            if lineage.generation != self._generation:
                self._generation, self.followed = lineage.generation, head
                self.call(self._begin, lineage, head)

    def offer(self, epoch: int, runs: Sequence[Run], then: Callable[[], Any]) -> bool:
        """Hand on *runs*, which are all there is behind a place not above `followed`.

        Args:
            epoch: The number of the file that they are from.
            runs: They.
            then: What is to be done behind it, on the loop.

        Returns:
            Whether they were of the file that is used now.
        """
        with self._lock:
            if epoch != self._epoch or not self.follows:
                self.call(then)
                return False
            followed = self.followed
            if runs:
                self.followed = max(followed, runs[-1].entries[-1].seq)
            self.call(self._give, runs, followed, then)
        return True

    def call(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Have *function* called on the loop, behind what is handed on already."""
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            pass  # the loop is closed: nobody is left to be told

    # -- on the loop -------------------------------------------------------------------

    def close(self) -> None:
        """Hand on results alone from now on."""
        self._closed = True

    def _begin(self, lineage: Lineage, head: int) -> None:
        if not self._closed:
            self._guard(self._store.begin, lineage, head)

    def _give(
        self, runs: Sequence[Run], followed: int, then: Callable[[], Any]
    ) -> None:
        for entries, bounds, floors in () if self._closed else runs:
            gone = {name: floor for name, floor in floors.items() if floor > followed}
            if gone:
                self._guard(self._store.miss, gone)
            if entries[0].seq <= followed:
                entries = [entry for entry in entries if entry.seq > followed]
            if entries:
                self._guard(self._store.deliver, entries, bounds)
        then()

    def _guard(self, function: Callable[..., Any], *arguments: Any) -> None:
        try:
            function(*arguments)
        except Exception:
            _logger.exception("a store's follower failed")
