"""The file of an SQLite log, in the hands of the one thread that writes to it.

Law: nobody else opens it for the first time, tells that it is another one by now, or
goes on with that. Every failure is raised as it came; `explain` says what it means.
"""

from __future__ import annotations

__all__ = ("Epoch", "Session", "Where")

import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Callable
from typing import Final, NamedTuple, TypeVar

from .bell import Bell
from .boot import enter, leave
from .file import Identity, connect, identity, placed, prepare
from .host import Host
from .outlet import Outlet
from .read import head, lineage
from .stale import Files, discard, files

T = TypeVar("T")

_PATIENCE: Final = 3.0
"""Seconds that another process's transaction may take before it is a trouble."""

_SHORTEST: Final = 0.0002
_LONGEST: Final = 0.005

_logger = logging.getLogger("aiohttp_sse_routes")


class Where(NamedTuple):
    """How the file is used.

    Attributes:
        path: Where it is.
        durable: Whether a commit waits for the disk.
    """

    path: str
    durable: bool


class Epoch(NamedTuple):
    """A file, from when it was opened until it is another.

    Attributes:
        number: Different from that of any other epoch of the process's.
        identity: Which file it is.
        generation: The log's in it.
    """

    number: int
    identity: Identity
    generation: str


class Session:
    """A connection that may write, as long as there can be one.

    Args:
        where: The file.
        host: Whose boot and time it is.
        outlet: Who is told where the log is when it was opened.
        bell: The process's own; its address stands for the process in the log.

    Attributes:
        db: The connection; None while there is none.
        epoch: The file that it is to; None while there is none. Any thread may look.
    """

    def __init__(self, where: Where, host: Host, outlet: Outlet, bell: Bell) -> None:
        self.db: sqlite3.Connection | None = None
        self.epoch: Epoch | None = None
        self._where = where
        self._host = host
        self._outlet = outlet
        self._bell = bell
        self._epochs = 0
        self._files = Files("", None, ())
        self._generation: str | None = None

    def open(self) -> None:
        """Open the file, make it a log if it is new, and take part in it."""
        path = self._where.path
        placed(path)
        # SQLite's other files are beside that to which a symbolic link leads.
        real = os.path.realpath(path)
        durable = self._where.durable
        db = _patiently(lambda: connect(path, timeout=0, durable=durable))
        try:
            _patiently(lambda: prepare(db, path))
            self.begin(db)
            enter(db, self._host, self._bell, self._replaced(real))
            db.execute("COMMIT")
            generations, place = lineage(db), head(db)
        except BaseException:
            _close(db)
            raise
        self.db, self._files = db, files(real)
        self._generation = generations.generation
        self._epochs += 1
        self._outlet.begin(self._epochs, generations, place)
        self.epoch = Epoch(self._epochs, self._files.main, self._generation)

    def begin(self, db: sqlite3.Connection) -> None:
        """Begin a transaction as the only one that writes."""
        _patiently(lambda: db.execute("BEGIN IMMEDIATE"))

    def _replaced(self, real: str) -> str | None:
        """Return the generation of the file before, if that at *real* is another."""
        return None if identity(real) == self._files.main else self._generation

    @property
    def moved(self) -> bool:
        """Whether the file that is open is no longer the one at its path."""
        return self.db is not None and identity(self._where.path) != self._files.main

    def leave(self) -> None:
        """Let go of the file: it is another by now, or may not be as it was."""
        db, self.db, self.epoch = self.db, None, None
        if db is None:
            return
        if identity(self._where.path) != self._files.main:
            _logger.warning(
                "%s was moved or deleted while it was in use: going on with what is "
                "there now",
                self._where.path,
            )
            discard(self._files)
        _close(db)

    def end(self) -> None:
        """Take leave of the log, which is then all in the one file if nobody uses it.

        What fails is left as after a crash, from which the next one recovers.
        """
        db, self.db, self.epoch = self.db, None, None
        if db is None:
            return
        with contextlib.suppress(sqlite3.Error):
            self.begin(db)
            leave(db, [self._bell.address])
            db.execute("COMMIT")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        _close(db)


def _close(db: sqlite3.Connection) -> None:
    with contextlib.suppress(sqlite3.Error):
        if db.in_transaction:
            db.execute("ROLLBACK")
    with contextlib.suppress(sqlite3.Error):
        db.close()


def _patiently(do: Callable[[], T]) -> T:
    """Return what *do* returns, which may have to wait for another process.

    SQLite's own waiting sleeps up to 0.1 s, many times as long as a transaction takes.
    """
    until = time.monotonic() + _PATIENCE
    pause = _SHORTEST
    while True:
        try:
            return do()
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() > until:
                raise
        time.sleep(pause)
        pause = min(_LONGEST, pause * 1.5)
