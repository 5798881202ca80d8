"""Publishing from a process without a web application: a task queue, a cron job.

Law: what is published here is published as `SSE.publish` does it, to the same store;
nothing is followed or served. Nothing is opened before ``async with``.
"""

from __future__ import annotations

__all__ = ("Publisher",)

import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

from .checks import check_count, check_dumps
from .errors import ConfigurationError, StoreError
from .logs.store import Store
from .serialize import Dumps
from .streams.publishing import Outlet


class Publisher:
    """Publishes to channels that another process serves; an async context manager.

    ::

        async with Publisher(RedisStore("redis://localhost")) as publisher:
            await publisher.publish("room:42", {"text": "hi"})

    It may be entered again after it was left. It belongs to the event loop in which it
    was entered; code without a loop calls ``asyncio.run``.

    Args:
        store: A store of its own, on the file or the server that the application's
            store is on, with the same options: whoever publishes to a channel bounds
            what it holds.
        dumps: Makes JSON in place of msgspec; returns ``str`` or ``bytes``.
        max_event_bytes: The most bytes of one event; what the application's is.

    Raises:
        ConfigurationError: an argument is wrong, or nobody else could see what is
            published to *store*, as with a `MemoryStore`.
    """

    def __init__(
        self,
        store: Store,
        *,
        dumps: Dumps | None = None,
        max_event_bytes: int = 1_048_576,
    ) -> None:
        _check_store(store)
        check_count("Publisher: max_event_bytes", max_event_bytes, least=1)
        check_dumps("Publisher: dumps", dumps)
        self._store = store
        self._outlet = Outlet(store, dumps, max_event_bytes)
        self._open = False

    async def __aenter__(self) -> Self:
        """Open the store.

        One that cannot be reached now is tried again, and `publish` says so until then.

        Raises:
            StoreError: the store cannot work as it was configured, or is open already.
        """
        if self._open:
            raise StoreError("this Publisher is open already: make one for each use")
        await self._store.open(None, now=time.monotonic)
        self._open = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the store; what `publish` has returned for is in it."""
        self._open = False
        await self._store.close()

    async def publish(
        self,
        channel: str,
        data: Any,
        *,
        event: str | None = None,
        key: str | None = None,
        idempotency_key: str | None = None,
    ) -> str:
        """Publish an event to all who follow *channel*; see `SSE.publish`.

        Args:
            channel: The channel's name: 1 to 512 bytes, no control characters.
            data: As what a generator yields; a `ServerSentEvent` too, without an id.
            event: The event's name; ``message`` where it is None.
            key: What ``on_slow="conflate"`` keeps the newest of, of this channel.
            idempotency_key: If the same was given for this channel within the last
                300 s, nothing is published, and the answer is what it was then. A job
                that may be run again gives its own id.

        Returns:
            The event's cursor, when the store has the event.

        Raises:
            StoreUnavailable: the store cannot be written now. The event may be in it
                all the same, if no *idempotency_key* was given.
            StoreError: this is outside of ``async with``.
            EventError: the event cannot be sent.
            ValueError: a name or key is not one.
        """
        self._check_open("publish")
        return await self._outlet.publish(
            channel, data, event=event, key=key, idempotency_key=idempotency_key
        )

    async def publish_many(
        self,
        channel: str,
        items: Iterable[Any],
        *,
        event: str | None = None,
        key: str | None = None,
    ) -> list[str]:
        """Publish several events together: all are there, one behind another, or none.

        Args:
            channel: See `publish`.
            items: Each as the data of `publish`.
            event: The name of each that has none of its own.
            key: The key of each.

        Returns:
            Their cursors.

        Raises:
            StoreUnavailable, StoreError, EventError, ValueError: as `publish`.
        """
        self._check_open("publish_many")
        return await self._outlet.publish_many(channel, items, event=event, key=key)

    def _check_open(self, what: str) -> None:
        if not self._open:
            raise StoreError(
                f"{what}: the Publisher is not open: "
                "async with Publisher(store) as publisher: ..."
            )


def _check_store(store: Any) -> None:
    if not isinstance(store, Store):
        raise ConfigurationError(
            f"Publisher({store!r}) takes a store, such as "
            "RedisStore('redis://localhost')"
        )
    if not store.shared:
        raise ConfigurationError(
            f"Publisher({type(store).__name__}()): what is published to this store "
            "stays in this process, where nobody follows it: use the SQLiteStore or "
            "the RedisStore of the application, or get_sse(app).publish within it"
        )
