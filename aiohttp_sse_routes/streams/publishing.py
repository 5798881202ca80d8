"""Publishing: what is published becomes an event's lines, and goes to the store.

Law: an event that cannot be sent is refused before anything is appended; several are
appended together or not at all. The loop gets its turns, also from who publishes
without a pause to a store that never waits.
"""

from __future__ import annotations

__all__ = ("Outlet",)

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Final

from ..cursor import Cursor
from ..errors import EventError
from ..event import ServerSentEvent
from ..logs.entry import Appended, Draft, check_channel
from ..logs.store import Store
from ..serialize import Dumps
from ..wire import encode

_BURST: Final = 64
"""Events after which the loop gets a turn."""

_LONGEST_KEY: Final = 512


class Outlet:
    """The way into one store.

    Args:
        store: The store.
        dumps: Makes JSON in place of msgspec.
        max_event_bytes: The most bytes of one event.
    """

    def __init__(self, store: Store, dumps: Dumps | None, max_event_bytes: int) -> None:
        self._store = store
        self._dumps = dumps
        self._limit = max_event_bytes
        self._burst = 0

    async def publish(
        self,
        channel: str,
        data: Any,
        *,
        event: str | None = None,
        key: str | None = None,
        idempotency_key: str | None = None,
    ) -> str:
        """See `SSE.publish`."""
        draft = self._draft(data, event, key)
        done = await self._append(channel, [draft], idempotency_key)
        return str(Cursor("l", done.generation, done.last))

    async def publish_many(
        self, channel: str, items: Iterable[Any], *, event: str | None, key: str | None
    ) -> list[str]:
        """See `SSE.publish_many`."""
        if isinstance(items, (str, bytes, Mapping)):
            raise TypeError(
                f"publish_many() takes several events, not {type(items).__name__}: "
                "use publish() for one"
            )
        drafts = [self._draft(item, event, key) for item in items]
        if not drafts:
            check_channel(channel)
            return []
        done = await self._append(channel, drafts, None)
        return [
            str(Cursor("l", done.generation, seq))
            for seq in range(done.first, done.last + 1)
        ]

    async def _append(
        self, channel: str, drafts: list[Draft], idempotency_key: str | None
    ) -> Appended:
        check_channel(channel)
        if idempotency_key is not None:
            _check_key("idempotency_key", idempotency_key)
        done = await self._store.append(
            channel, drafts, idempotency_key=idempotency_key
        )
        self._burst += len(drafts)
        if self._burst >= _BURST:
            self._burst = 0
            await asyncio.sleep(0)
        return done

    def _draft(self, data: Any, event: str | None, key: str | None) -> Draft:
        if key is not None:
            _check_key("key", key)
        value = data
        if event is not None:
            # Its own checks: a name that no event may have is refused here.
            named = ServerSentEvent(data, event=event)
            if not isinstance(data, ServerSentEvent):
                value = named
            elif data.event not in (None, event):
                raise ValueError(
                    f"event={event!r} was given for an event that is named "
                    f"{data.event!r}: leave one of them out"
                )
        body = encode(value, event, self._dumps, self._limit)
        if body.id is not None:
            raise EventError(
                f"a published event's id comes from the store: leave out id={body.id!r}"
            )
        if not body.carries_id:
            raise EventError(
                "there is nothing to publish: give data, or a name with event="
            )
        return Draft(body.lines, key)


def _check_key(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{name}={value!r} must be a str")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise ValueError(f"{name}={value!r} cannot be encoded as UTF-8") from None
    if not 0 < size <= _LONGEST_KEY:
        raise ValueError(
            f"{name}={value[:40]!r} must have 1 to {_LONGEST_KEY} bytes, not {size}"
        )
