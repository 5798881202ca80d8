"""The thread of a process that follows what others append to an SQLite log.

Law: it only reads. It looks when it is rung up, and often enough without that; what it
finds is handed on as fast as the loop takes it.
"""

from __future__ import annotations

__all__ = ("Watcher",)

import contextlib
import logging
import sqlite3
import threading
from queue import SimpleQueue
from typing import Final

from .bell import Bell
from .file import connect, explain, identity
from .log import Run
from .outlet import Outlet
from .read import entries_after, moment
from .session import Epoch, Session
from .writer import Writer

_EVERY: Final = 0.02
"""Seconds after which it looks although nobody rang."""

_COUNT: Final = 250
_BYTES: Final = 1 << 20
_LOCKED: Final = 0.2

_logger = logging.getLogger("aiohttp_sse_routes")


class Watcher(threading.Thread):
    """Follows, until it is stopped.

    Args:
        path: Where the file is.
        session: Which file it is.
        writer: Who is told if it is another by now.
        outlet: Where entries are handed on.
        bell: Where it is rung up.
    """

    def __init__(
        self, path: str, session: Session, writer: Writer, outlet: Outlet, bell: Bell
    ) -> None:
        super().__init__(name="sse-sqlite-watcher", daemon=True)
        self._path = path
        self._session = session
        self._writer = writer
        self._outlet = outlet
        self._bell = bell
        self._db: sqlite3.Connection | None = None
        self._epoch: Epoch | None = None
        self._version = -1
        self._stopped = False
        self._failed = False
        self._taken: SimpleQueue[None] = SimpleQueue()

    def stop(self) -> None:
        """Have it end soon; from any thread."""
        self._stopped = True
        self._bell.ring()
        self._taken.put(None)

    def run(self) -> None:
        """See `threading.Thread.run`."""
        while not self._stopped:
            self._bell.wait(_EVERY)
            epoch = self._session.epoch
            if epoch is None:
                continue
            try:
                if identity(self._path) == epoch.identity:
                    self._look(epoch)
                    self._failed = False
                else:
                    self._writer.tell("look")
            except Exception as error:  # noqa: BLE001 -- logged, and tried again
                self._let_go()
                if not self._failed:
                    told = explain(self._path, error) or error
                    _logger.warning("what is new cannot be read now: %s", told)
                self._failed = True
        self._let_go()

    def _look(self, epoch: Epoch) -> None:
        """Hand on what is new, if anything is."""
        if self._db is None or epoch is not self._epoch:
            self._let_go()
            self._db = connect(self._path, timeout=_LOCKED)
            self._epoch = epoch
        (version,) = self._db.execute("PRAGMA data_version").fetchone()
        if version == self._version:
            return
        while not self._stopped:
            followed = self._outlet.followed
            with moment(self._db):
                entries, gone = entries_after(
                    self._db, followed, count=_COUNT, limit=_BYTES
                )
            if not entries:
                break
            run = Run(entries, None, gone)
            if not self._outlet.offer(epoch.number, [run], self._take_next):
                return
            self._taken.get()
        self._version = version

    def _take_next(self) -> None:
        self._taken.put(None)

    def _let_go(self) -> None:
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
        self._db, self._version = None, -1
