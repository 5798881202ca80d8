"""The one thread of a process that writes to an SQLite log.

Law: all that waits is done in one transaction, and told when that is committed. What
fails is told to who asked for it, or is tried again; the thread goes on.
"""

from __future__ import annotations

__all__ = ("Job", "Writer")

import asyncio
import contextlib
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Final, Literal, NamedTuple

from ...errors import LeaseLost, StoreError, StoreUnavailable
from ..entry import Bounds
from .bell import Bell
from .boot import leave
from .file import Trouble, explain
from .host import Host
from .log import Batch, Run, due
from .outlet import Outlet, Result, settle
from .read import entries_after
from .session import Session

_MOST: Final = 500
"""Jobs of one transaction: what they take is what the next ones wait."""

_STEP: Final = 500
"""Old entries that are dropped in one transaction."""

_NEAR: Final = 50
"""How many entries of others are handed on with one's own."""

_logger = logging.getLogger("aiohttp_sse_routes")


class Job(NamedTuple):
    """Something to be done in a transaction.

    Attributes:
        future: Who waits for it.
        apply: Does it.
        channel: Which channel has to be loaded for it.
        until: Until when it may wait, by `time.monotonic`.
    """

    future: asyncio.Future[Any]
    apply: Callable[[Batch], Any]
    channel: str | None
    until: float


Word = Literal["look", "tidy", "end"]


class Writer(threading.Thread):
    """Writes, until it is told to end.

    Args:
        path: Where the file is.
        session: The file.
        host: Whose time it is.
        bounds: What a channel holds.
        outlet: Where what happens is handed on.
        bell: The process's own.
        opened: Called on the loop, once, when the file was tried for the first time:
            with the error if it can not be used as it was configured.

    Attributes:
        trouble: Why the file could not be used the last time; None if it could.
    """

    def __init__(
        self,
        path: str,
        session: Session,
        host: Host,
        bounds: Bounds,
        outlet: Outlet,
        bell: Bell,
        opened: Callable[[StoreError | None], None],
    ) -> None:
        super().__init__(name="sse-sqlite-writer", daemon=True)
        self.trouble: Trouble | None = None
        self._path = path
        self._session = session
        self._host = host
        self._bounds = bounds
        self._outlet = outlet
        self._bell = bell
        self._opened: Callable[[StoreError | None], None] | None = opened
        self._queue: SimpleQueue[Job | Word] = SimpleQueue()
        self._jobs: deque[Job] = deque()
        self._words: set[Word] = set()
        self._alone = 0  # so many jobs have a transaction each
        self._tries = 0  # in vain, since it went well
        self._gone: list[str] = []

    def ask(self, job: Job) -> None:
        """Have *job* done; from any thread."""
        self._queue.put(job)

    def tell(self, word: Word) -> None:
        """Have it look for its file, tidy up, or end; from any thread."""
        self._queue.put(word)

    # -- the thread --------------------------------------------------------------------

    def run(self) -> None:
        """See `threading.Thread.run`."""
        while "end" not in self._words or self._jobs:
            jobs: list[Job] = []
            try:
                if self._session.moved:
                    self._session.leave()
                if self._session.db is None:
                    self._session.open()
                    self._went_well()
                elif self._jobs:
                    jobs = self._next_jobs()
                    self._write(self._session.db, jobs)
                    self._went_well()
                elif "tidy" in self._words:
                    self._tidy(self._session.db)
            except Exception as error:  # noqa: BLE001 -- all are told or logged
                self._failed(jobs, error)
            if self._opened is not None:
                self._tell_opened()
            self._take()
        self._session.end()

    def _take(self) -> None:
        """Take what is asked for; wait for it if there is nothing to do."""
        self._words.discard("look")
        pause: float | None = None
        if self._session.db is None or self._jobs or self._words:
            pause = min(0.5, 0.025 * 2.0**self._tries) if self._tries else 0
        if "end" in self._words:
            pause = 0
        try:
            if pause != 0:
                self._sort(self._queue.get(timeout=pause))
            while len(self._jobs) < _MOST:
                self._sort(self._queue.get_nowait())
        except Empty:
            pass

    def _sort(self, item: Job | Word) -> None:
        if isinstance(item, Job):
            self._jobs.append(item)
        else:
            self._words.add(item)

    def _next_jobs(self) -> list[Job]:
        count = 1 if self._alone else min(_MOST, len(self._jobs))
        self._alone = max(0, self._alone - 1)
        return [self._jobs.popleft() for _ in range(count)]

    # -- transactions ------------------------------------------------------------------

    def _write(self, db: sqlite3.Connection, jobs: Sequence[Job]) -> None:
        """Do *jobs* in one transaction, hand on what they did, and wake others."""
        self._session.begin(db)
        batch = Batch(db, self._host, self._bounds)
        batch.load([job.channel for job in jobs if job.channel is not None])
        others = self._others(db, batch.head)
        results = [_result(job, batch) for job in jobs]
        batch.finish()
        if self._gone:
            leave(db, self._gone)
        db.execute("COMMIT")
        if self._session.moved or self._session.epoch is None:
            # Nobody will find there what was just committed.
            raise Trouble(f"{self._path} was moved or deleted: try again", passing=True)
        then = partial(settle, results)
        if others is None:
            self._outlet.call(then)
            self._bell.ring()
        else:
            self._outlet.offer(self._session.epoch.number, [*others, *batch.runs], then)
        if batch.runs:
            own = self._bell.address
            self._gone = self._bell.ring_others(a for a in batch.processes if a != own)

    def _others(self, db: sqlite3.Connection, head: int) -> list[Run] | None:
        """Return what others have appended meanwhile; None if it is much.

        Then it is left, with one's own behind it, to the thread that follows.
        """
        followed = self._outlet.followed
        if not self._outlet.follows or followed == head:
            return []
        if head - followed > _NEAR:
            return None
        entries, gone = entries_after(db, followed, count=_NEAR, limit=1 << 62)
        return [Run(entries, None, gone)] if entries else []

    def _tidy(self, db: sqlite3.Connection) -> None:
        """Drop what is too old, a step at a time."""
        if not due(db, self._host, self._bounds):
            self._words.discard("tidy")
            return
        self._session.begin(db)
        batch = Batch(db, self._host, self._bounds)
        batch.tidy(_STEP)
        batch.finish()
        db.execute("COMMIT")

    # -- troubles ----------------------------------------------------------------------

    def _failed(self, jobs: Sequence[Job], error: Exception) -> None:
        """Tell why *jobs*, or whatever was done, failed; or have them tried again."""
        db = self._session.db
        if db is not None and db.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                db.execute("ROLLBACK")
        trouble = explain(self._path, error)
        if trouble is None and len(jobs) == 1:
            failure = StoreError(f"{self._path} does not take this: {error}")
            failure.__cause__ = error
            self._settle([Result(jobs[0].future, None, failure)])
            return
        self._jobs.extendleft(reversed(jobs))
        if trouble is None and jobs:
            # The fault of one of them, and not of the others.
            self._alone = len(jobs)
            return
        if trouble is None:
            _logger.error("the writer of %s failed", self._path, exc_info=error)
            trouble = Trouble(f"{self._path} cannot be used: {error}", passing=True)
        self._note(trouble)

    def _note(self, trouble: Trouble) -> None:
        """Have done what can wait be tried again, and tell the others."""
        if not self._tries:
            _logger.warning("%s", trouble)
        self._tries += 1
        self.trouble = trouble
        self._words.discard("tidy")
        if not trouble.local:
            self._session.leave()
        now = time.monotonic()
        waiting = deque[Job]()
        results = []
        for job in self._jobs:
            if job.until > now and "end" not in self._words:
                waiting.append(job)
            else:
                failure = StoreUnavailable(trouble.text)
                results.append(Result(job.future, None, failure))
        self._jobs = waiting
        self._settle(results)

    def _went_well(self) -> None:
        if self._tries:
            _logger.info("%s can be used again", self._path)
        self._tries = 0
        self.trouble = None

    def _tell_opened(self) -> None:
        trouble, told = self.trouble, self._opened
        self._opened = None
        assert told is not None
        if trouble is None or trouble.passing:
            self._outlet.call(told, None)
        else:
            self._outlet.call(told, StoreError(trouble.text))

    def _settle(self, results: Sequence[Result]) -> None:
        self._outlet.call(settle, results)


def _result(job: Job, batch: Batch) -> Result:
    try:
        return Result(job.future, job.apply(batch))
    except LeaseLost as error:
        return Result(job.future, None, error)
