"""Workers on one Redis, for the tests of what is Redis' own.

Law: when a team is closed nothing of it is left, and what every worker was given is a
part of one order.
"""

from __future__ import annotations

__all__ = ("Team", "follow", "in_step", "put_at_last", "texts")

import asyncio
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp_sse_routes.logs.entry import Appended, Entry

from .helpers import no_tasks_left
from .redis_server import RedisServer
from .stores import (
    Recorder,
    Stores,
    Worker,
    eventually,
    open_store,
    put,
    redis,
)


class Team(Stores):
    """Stores on the Redis at *url*, in the namespace of *folder*; closed in the end."""

    def __init__(self, url: str, folder: Path, **options: Any) -> None:
        super().__init__(redis(url), folder, **options)
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        self._tasks = asyncio.all_tasks()
        return self

    async def worker_at(self, url: str) -> Worker:
        """Return one more worker, which reaches the log at *url*."""
        store, recorder = redis(url)(self._folder, **self._bounds), Recorder()
        self.all.append(store)
        await open_store(store, recorder)
        return Worker(store, recorder)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
        await no_tasks_left(self._tasks)


def texts(entries: Sequence[Entry]) -> list[str]:
    """Return what the events say."""
    return [entry.lines[6:-2].decode() for entry in entries]


async def put_at_last(worker: Worker, channel: str, *words: str) -> Appended:
    """Append as soon as Redis takes it again."""
    done: list[Appended] = []

    async def tried() -> bool:
        try:
            done.append(await put(worker.store, channel, *words))
        except ConnectionError:
            return False
        return True

    await eventually(tried, what="Redis takes events again")
    return done[0]


async def follow(replica: RedisServer, master: RedisServer) -> None:
    """Make *replica* one of *master*; return when it has all of it."""
    replica.command("REPLICAOF", "127.0.0.1", master.port)
    await in_step(replica, master)


async def in_step(replica: RedisServer, master: RedisServer) -> None:
    """Return when *replica* has all that *master* has."""

    def are() -> bool:
        ours, theirs = replica.replication(), master.replication()
        return (
            ours.get("master_link_status") == "up"
            and ours["slave_repl_offset"] == theirs["master_repl_offset"]
        )

    await eventually(are, what="the replica has everything")
