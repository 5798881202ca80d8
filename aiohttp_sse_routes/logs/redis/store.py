"""The store of many hosts: a log in Redis, which every worker appends to and follows.

Law: what a place in the log means is decided in Redis, by its scripts; a process
believes the log, never what it was told of it. Nothing is connected before `open`.
"""

from __future__ import annotations

__all__ = ("RedisStore",)

import asyncio
import os
import random
import re
import secrets
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from ...errors import ConfigurationError, StoreError, StoreUnavailable
from ..entry import Appended, Bounds, Draft, Fence, Lease, Page
from ..store import IDEMPOTENCY_SECONDS, Follower, Store

if TYPE_CHECKING:
    from .remote import Remote, Repeated
    from .watch import Watch

_NAMESPACE: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}")

_LOOK: Final = 0.005
"""Seconds between looks at whether a new generation was noticed."""

_PAUSES: Final = (0.02, 0.5)
"""Seconds before an append is tried again: at first, and at most."""


class RedisStore(Store):
    """Keeps channels' events in Redis, for any number of workers on any hosts.

    An append is one script: whole or not at all, and told to every worker at once. How
    safe it then is, is Redis' matter: with ``appendonly yes`` it survives a restart,
    and a failover loses what had not reached the replica yet. What is lost is told to
    the clients that had come further, and to no others. Wants Redis 6.2 or later, with
    ``maxmemory-policy noeviction``, and ``pip install 'aiohttp-sse-routes[redis]'``.

    Args:
        url: As in ``redis://user:password@host:6379/0``, ``rediss://`` for TLS,
            ``unix:///path/redis.sock?db=0``. It leads to the master.
        namespace: What separates this log from others in the same database.
        max_events: The most events of a channel.
        max_age: The most seconds that an event is kept.
        max_bytes: The most bytes of a channel; None for no bound of its own.
        wait: Seconds that an append waits for a Redis that is away, before it raises
            `StoreUnavailable`; it is then tried again, and done once.
        timeout: Seconds that Redis has for an answer; then it is taken to be away.
        memory: The most bytes of the newest events that this process keeps in memory.
        max_channels: How many channels of which nothing is left are remembered. A
            client that comes back to one that was forgotten is told a gap.

    Raises:
        ConfigurationError: an argument is wrong, or redis-py is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        namespace: str = "sse",
        max_events: int = 1000,
        max_age: float = 3600,
        max_bytes: int | None = None,
        wait: float = 0.0,
        timeout: float = 5.0,
        memory: int = 67_108_864,
        max_channels: int = 100_000,
    ) -> None:
        super().__init__(
            Bounds(max_events, max_age, max_bytes), memory=_count("memory", memory)
        )
        if not isinstance(namespace, str) or not _NAMESPACE.fullmatch(namespace):
            raise ConfigurationError(
                f"RedisStore(namespace={namespace!r}) must be 1 to 64 characters of "
                "A-Z a-z 0-9 . _ : -"
            )
        if not isinstance(url, str):
            raise ConfigurationError(
                f"RedisStore({type(url).__name__}) must be a URL, as in "
                "'redis://127.0.0.1:6379/0'"
            )
        self.namespace = namespace
        self.wait = _seconds("wait", wait, zero=True)
        self.timeout = _seconds("timeout", timeout)
        self._max_channels = _count("max_channels", max_channels)
        try:
            from . import remote, watch, wire
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "redis":
                raise
            raise ConfigurationError(
                "RedisStore needs redis-py: pip install 'aiohttp-sse-routes[redis]'"
            ) from error
        self._server = wire.Server(url, self.timeout)
        self._remote_type = remote.Remote
        self._watch_type = watch.Watch
        self._repeated = remote.Repeated
        self._remote: Remote | None = None
        self._watch: Watch | None = None
        self._process = 0

    async def open(
        self, follower: Follower | None, *, now: Callable[[], float]
    ) -> None:
        """See `Store.open`."""
        if self._remote is not None:
            raise StoreError(
                "this RedisStore is open already: give each application one of its own"
            )
        self._process = os.getpid()
        self._follower = follower
        self.lineage = None
        self._remote = self._remote_type(
            self._server, self.namespace, self.bounds, self._max_channels
        )
        self._watch = self._watch_type(
            self,
            self._server,
            self._remote,
            follows=follower is not None,
        )
        try:
            await self._watch.open()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """See `Store.close`."""
        remote, self._remote = self._remote, None
        watch, self._watch = self._watch, None
        self._follower = None
        if watch is not None:
            await watch.close()
        if remote is not None:
            await remote.close()

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
        self._reached()
        repeated = self._repetition(idempotency_key)
        if bounds is not None and self._watch is not None:
            self._watch.follow.bound(channel, bounds)
        loop = asyncio.get_running_loop()
        limit, pause = loop.time() + self.wait, _PAUSES[0]
        while True:
            try:
                return await self._append(channel, drafts, bounds, repeated, fence)
            except StoreUnavailable:
                if loop.time() + pause > limit:
                    raise
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
            pause = min(pause * 2, _PAUSES[1])

    async def _append(
        self,
        channel: str,
        drafts: Sequence[Draft],
        bounds: Bounds | None,
        repeated: Repeated | None,
        fence: Fence | None,
    ) -> Appended:
        done = await self._reached().append(
            channel, drafts, bounds or self.bounds, repeated, fence
        )
        if self._watch is not None:
            self._watch.follow.gave(channel, done.generation, done.last)
        return done

    def _repetition(self, idempotency_key: str | None) -> Repeated | None:
        if idempotency_key is not None:
            # A caller's keys and this store's own are never the same.
            key, seconds = f"k{idempotency_key}", float(IDEMPOTENCY_SECONDS)
        elif self.wait:
            key, seconds = f"w{secrets.token_hex(12)}", self.wait + 60
        else:
            return None
        return self._repeated(key, secrets.token_hex(6).encode(), seconds)

    async def read(
        self, channels: Sequence[str], after: int, through: int, *, limit: int
    ) -> Page:
        """See `Store.read`."""
        remote = self._reached()
        known = self.lineage
        answer = await remote.read(channels, after, through, limit)
        if (
            known is not None
            and known.generation != answer.generation
            and known.generation not in answer.forks
        ):
            # The place is none of this log: it is another one, as is told soon.
            if self._watch is not None:
                self._watch.hurry()
            raise StoreUnavailable("the log in Redis has just begun anew")
        return answer.page

    async def newest(self, channels: Sequence[str], count: int, through: int) -> int:
        """See `Store.newest`."""
        return await self._reached().newest(channels, count, through)

    async def head(self) -> int:
        """See `Store.head`."""
        known = self.lineage
        status = await self._reached().status()
        if self._watch is not None and known is not None:
            try:
                async with asyncio.timeout(self.timeout):
                    while (
                        self.lineage is known and known.generation != status.generation
                    ):
                        self._watch.hurry()
                        await asyncio.sleep(_LOOK)
            except TimeoutError:
                raise StoreUnavailable(
                    "the log in Redis has just begun anew, and cannot be followed yet"
                ) from None
        return status.head

    async def lease(
        self, name: str, holder: str, seconds: float, *, wanted: bool
    ) -> Lease:
        """See `Store.lease`."""
        return await self._reached().lease(name, holder, seconds, wanted)

    async def release(self, fence: Fence) -> None:
        """See `Store.release`."""
        await self._reached().release(fence)

    def _reached(self) -> Remote:
        if self._remote is None:
            raise StoreError("this RedisStore is not open")
        if self._process != os.getpid():
            raise StoreError(
                "this RedisStore was opened before this process was forked: open it "
                "in the process that uses it"
            )
        return self._remote


def _count(name: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigurationError(
            f"RedisStore({name}={value!r}) must be an int of at least 1"
        )
    return value


def _seconds(name: str, value: Any, *, zero: bool = False) -> float:
    good = isinstance(value, int | float) and not isinstance(value, bool)
    if not good or not (value > 0 or (zero and value == 0)) or value == float("inf"):
        raise ConfigurationError(
            f"RedisStore({name}={value!r}) must be a number of seconds"
            f"{'' if zero else ' above 0'}"
        )
    return float(value)
