"""The body of one response: its bytes as they come, and the events in them.

Law: nothing is read that was not asked for, so that the server feels how fast its
consumer is; and what has come before a connection broke is never lost.
"""

from __future__ import annotations

__all__ = ("Body",)

from collections.abc import Callable
from typing import Any

import aiohttp

from ..decoder import DecodedEvent, Decoder
from .answers import LOST
from .watchdog import Watchdog


class Body:
    """Reads one response.

    Args:
        response: The response, which is closed with this.
        watchdog: What is told when bytes are waited for.
        place: The last event ID that it was asked for with.
        max_event_bytes: How large an event, and a line, may be.

    Attributes:
        response: The response.
    """

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        watchdog: Watchdog,
        *,
        place: str,
        max_event_bytes: int,
    ) -> None:
        self.response = response
        self._watchdog = watchdog
        self._decoder = Decoder(place, max_event_bytes=max_event_bytes)
        self._broken: BaseException | None = None

    @property
    def place(self) -> str:
        """The last event ID behind all that was read."""
        return self._decoder.last_event_id

    @property
    def retry(self) -> float | None:
        """The reconnection time that it has asked for last, in seconds."""
        retry = self._decoder.retry
        return None if retry is None else retry / 1000

    def tell_comments(self, told: Callable[[str], object]) -> None:
        """Call *told* with each comment from now on."""
        self._decoder.on_comment = told

    async def read(self) -> list[DecodedEvent] | None:
        """Return the events of the next bytes, which may be none; None at the end.

        Raises:
            EventTooLarge: what was read before ends in one that is.
            OSError: the connection is lost, or another of `answers.LOST`.
        """
        self._decoder.feed(b"")  # raises what the last bytes ended in
        data = await self._bytes()
        return self._decoder.feed(data) if data else None

    def close(self) -> None:
        """Close the connection."""
        # Not release(): that would keep reading what will never end.
        self.response.close()

    async def _bytes(self) -> bytes:
        if self._broken is not None:
            raise self._broken
        self._watchdog.begin()
        try:
            data = await self.response.content.readany()
        except LOST as error:
            data = _rest(self.response.content)
            if not data:
                raise
            self._broken = error
        finally:
            self._watchdog.pause()
        self._watchdog.fed()
        return data


def _rest(content: Any) -> bytes:
    """Return what was received before the connection broke.

    aiohttp raises first, and would let go of what nobody had read yet.
    """
    content.set_exception(None)
    data: bytes = content.read_nowait()
    return data
