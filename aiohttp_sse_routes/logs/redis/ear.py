"""The connection that hears what others publish.

Law: what is heard is never more than a hint of what is in the log: it may be forgotten,
and whoever takes it finds out by the numbers.
"""

from __future__ import annotations

__all__ = ("Ear",)

import asyncio
from collections.abc import Callable
from typing import Final

from ...errors import StoreUnavailable
from .errors import explained
from .wire import Server, Wire, packed

# How many messages are read before the loop has its turn.
_TURN: Final = 100

# Messages that were heard and not taken, in bytes: over it they are forgotten, for
# what is missed is read from the log anyhow.
_HEARD: Final = 16_777_216


class Ear:
    """A connection that is subscribed to one Pub/Sub channel.

    Args:
        server: Whose.
        channel: The name of it.
        news: Called when there is a message, or the connection has ended.

    Attributes:
        unanswered: How many calls of `ping` nothing was heard since.
    """

    def __init__(
        self, server: Server, channel: bytes, news: Callable[[], None]
    ) -> None:
        self.server = server
        self.unanswered = 0
        self._channel = channel
        self._news = news
        self._wire: Wire | None = None
        self._task: asyncio.Task[None] | None = None
        self._heard: list[bytes] = []
        self._size = 0
        self._failure: StoreUnavailable | None = None

    async def open(self) -> None:
        """Subscribe; return when Redis has said that it is done.

        Raises:
            StoreUnavailable: it cannot be done.
        """
        self._wire = await self.server.connect()
        try:
            async with asyncio.timeout(self.server.timeout):
                await self._wire.send(packed([b"SUBSCRIBE", self._channel]))
                await self._wire.receive()
        except Exception as error:
            raise explained(error, self.server.name) from error
        self._task = asyncio.create_task(self._listen(self._wire))

    async def _listen(self, wire: Wire) -> None:
        count = 0
        try:
            while True:
                answer = await wire.receive()
                self.unanswered = 0
                if answer[0] == b"message":
                    self._hear(answer[2])
                count += 1
                if count % _TURN == 0:
                    await asyncio.sleep(0)
        except Exception as error:  # noqa: BLE001 -- whatever it is, it is explained
            self._failure = explained(error, self.server.name)
            self._news()

    def _hear(self, message: bytes) -> None:
        self._size += len(message)
        if self._size > _HEARD:
            self._heard.clear()
            self._size = len(message)
        self._heard.append(message)
        self._news()

    def take(self) -> list[bytes]:
        """Return the messages since the last call.

        Raises:
            StoreUnavailable: there are none, and there will be none.
        """
        if self._failure is not None and not self._heard:
            raise self._failure
        heard, self._heard, self._size = self._heard, [], 0
        return heard

    async def ping(self) -> None:
        """Ask for a sign of life.

        Raises:
            StoreUnavailable: it cannot even be asked.
        """
        assert self._wire is not None
        self.unanswered += 1
        try:
            async with asyncio.timeout(self.server.timeout):
                await self._wire.send(packed([b"PING"]))
        except Exception as error:
            raise explained(error, self.server.name) from error

    async def close(self) -> None:
        """Hear no more; after a failed `open` too."""
        try:
            if self._task is not None:
                self._task.cancel()
                await asyncio.gather(self._task, return_exceptions=True)
        finally:
            # Also when it is cancelled, as at the end of the application.
            if self._wire is not None:
                await self._wire.drop()
