"""The store of one host: a log in an SQLite file, shared by all its processes.

Law: nothing here touches the file; threads of the store's own do, from `open` to
`close`. What `append` has returned for is in the file, whatever becomes of the process.
"""

from __future__ import annotations

__all__ = ("SQLiteStore",)

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from ...errors import ConfigurationError, StoreError, StoreUnavailable
from ..entry import Appended, Bounds, Draft, Fence, Lease, Page
from ..store import Follower, Store
from . import read
from .bell import Bell
from .host import Host
from .log import Batch
from .outlet import Outlet
from .reader import Reader
from .session import Session, Where
from .watcher import Watcher
from .writer import Job, Writer

T = TypeVar("T")

_MEMORY: Final = 67_108_864


class SQLiteStore(Store):
    """Keeps channels' events in an SQLite file, for all processes of a host.

    An event that was published is there after the process was killed. After a loss of
    power the last ones may not be, unless *durable*; clients that were given such are
    told ``sse-gap`` ``reset``, and all others go on where they were.

    The file has to be on a local disk. It is made if it is not there, with two others
    beside it, ``-wal`` and ``-shm``, while it is open. A process opens it after it was
    forked, as an application that owns the store does.

    Args:
        path: Where the file is; its directory has to be there.
        max_events: The most events of a channel.
        max_age: The most seconds that an event is kept.
        max_bytes: The most bytes of a channel; None for no bound of its own.
        wait: Seconds that an append, or a lease, waits while the file cannot be written
            (its disk is full, say) before `StoreUnavailable` is raised. A lock counts
            only when another program has kept it for 3 s.
        memory: The most bytes of the newest events of all channels that each process
            keeps in memory besides.
        durable: Whether an append returns only when the event is on the disk, so that
            it outlives a loss of power. It takes as long as the disk does.

    Raises:
        ConfigurationError: an argument is wrong.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_events: int = 1000,
        max_age: float = 3600,
        max_bytes: int | None = None,
        wait: float = 0.0,
        memory: int = _MEMORY,
        durable: bool = False,
    ) -> None:
        self._path = _checked_path(path)
        if isinstance(wait, bool) or not isinstance(wait, int | float) or not wait >= 0:
            raise ConfigurationError(
                f"SQLiteStore(wait={wait!r}) must be a number of seconds, 0 or more"
            )
        if isinstance(memory, bool) or not isinstance(memory, int) or memory < 0:
            raise ConfigurationError(
                f"SQLiteStore(memory={memory!r}) must be a number of bytes, 0 or more"
            )
        if not isinstance(durable, bool):
            raise ConfigurationError(
                f"SQLiteStore(durable={durable!r}) must be True or False"
            )
        super().__init__(Bounds(max_events, max_age, max_bytes), memory=memory)
        self._wait = wait
        self._durable = durable
        self._host = Host()
        self._open: _Open | None = None

    async def open(
        self, follower: Follower | None, *, now: Callable[[], float]
    ) -> None:
        """See `Store.open`. The time is the host's, not *now*."""
        if self._open is not None:
            raise StoreError(
                f"the SQLiteStore of {self._path} is open already: give each "
                "application one of its own"
            )
        self.lineage = None
        self._follower = follower
        # Where one boot is not told from the next, what it may have lost is not known.
        where = Where(self._path, self._durable or not self._host.boot)
        opened = _Open(self, where, self._host, follows=follower is not None)
        self._open = opened
        try:
            await opened.first
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """See `Store.close`. What was asked for is done first."""
        opened, self._open = self._open, None
        self._follower = None
        if opened is not None and opened.pid == os.getpid():
            await opened.close()

    async def append(
        self,
        channel: str,
        drafts: Sequence[Draft],
        *,
        idempotency_key: str | None = None,
        fence: Fence | None = None,
        bounds: Bounds | None = None,
    ) -> Appended:
        """See `Store.append`."""
        apply = partial(
            Batch.append,
            channel=channel,
            drafts=drafts,
            idempotency_key=idempotency_key,
            fence=fence,
            bounds=bounds,
        )
        done: Appended = await self._ask(apply, channel)
        return done

    async def read(
        self, channels: Sequence[str], after: int, through: int, *, limit: int
    ) -> Page:
        """See `Store.read`."""
        return await self._read(read.page, channels, after, through, limit)

    async def newest(self, channels: Sequence[str], count: int, through: int) -> int:
        """See `Store.newest`."""
        return await self._read(read.newest, channels, count, through)

    async def head(self) -> int:
        """See `Store.head`."""
        return await self._read(read.head)

    async def lease(
        self, name: str, holder: str, seconds: float, *, wanted: bool
    ) -> Lease:
        """See `Store.lease`."""
        apply = partial(
            Batch.lease, name=name, holder=holder, seconds=seconds, wanted=wanted
        )
        lease: Lease = await self._ask(apply, None)
        return lease

    async def release(self, fence: Fence) -> None:
        """See `Store.release`."""
        await self._ask(partial(Batch.release, fence=fence), None)

    def tick(self, now: float) -> None:
        """See `Store.tick`. Has what is too old dropped, of quiet channels too."""
        super().tick(now)
        if self._open is not None and self._open.pid == os.getpid():
            self._open.writer.tell("tidy")

    def _opened(self) -> _Open:
        if self._open is None:
            raise StoreError(f"the SQLiteStore of {self._path} is not open")
        if self._open.pid != os.getpid():
            raise StoreError(
                f"the SQLiteStore of {self._path} was opened before this process was "
                "forked: open one in each process, after the fork"
            )
        return self._open

    async def _read(self, question: Callable[..., T], *arguments: Any) -> T:
        reader = self._opened().reader
        asked = self.lineage.generation if self.lineage is not None else None
        answer = await reader.ask(asked, question, *arguments)
        if self.lineage is None or self.lineage.generation != asked:
            raise StoreUnavailable(f"{self._path} is another log by now: ask again")
        return answer

    async def _ask(self, apply: Callable[[Batch], Any], channel: str | None) -> Any:
        writer = self._opened().writer
        future = asyncio.get_running_loop().create_future()
        writer.ask(Job(future, apply, channel, time.monotonic() + self._wait))
        return await future


class _Open:
    """What a store has from `open` to `close`.

    Attributes:
        first: Done when the file was tried for the first time.
        pid: The process's.
    """

    def __init__(
        self, store: Store, where: Where, host: Host, *, follows: bool
    ) -> None:
        self.first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.pid = os.getpid()
        self._outlet = outlet = Outlet(store, follows=follows)
        self._bell = bell = Bell(host.network, listens=follows)
        session = Session(where, host, outlet, bell)
        self.writer = Writer(
            where.path, session, host, store.bounds, outlet, bell, self._tried
        )
        self.reader = Reader(where.path, session, self.writer)
        self._watcher = Watcher(where.path, session, self.writer, outlet, bell)
        self.writer.start()
        if follows:
            self._watcher.start()

    def _tried(self, error: StoreError | None) -> None:
        if self.first.done():
            return
        if error is None:
            self.first.set_result(None)
        else:
            self.first.set_exception(error)

    async def close(self) -> None:
        """End the threads, the last one that which writes."""
        self._outlet.close()
        await self.reader.close(self._end)

    def _end(self) -> None:
        if self._watcher.ident is not None:
            self._watcher.stop()
            self._watcher.join()
        self.writer.tell("end")
        self.writer.join()
        self._bell.close()


def _checked_path(path: Any) -> str:
    name = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if not isinstance(name, str) or not name or "\0" in name:
        raise ConfigurationError(
            f"SQLiteStore({path!r}) must be given the path of a file"
        )
    if name == ":memory:" or name.startswith("file:"):
        raise ConfigurationError(
            f"SQLiteStore({name!r}) must be given the path of a file: for a log in "
            "memory there is MemoryStore"
        )
    return os.path.abspath(name)
