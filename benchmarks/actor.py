"""What every server of a benchmark does: it is told to publish, and how.

Law: all publish the same events at the same times, in a way that a user would take. A
way that a server does not have is an error, and no peer is listed with it.
"""

from __future__ import annotations

__all__ = ("BATCH", "CHANNEL", "Events", "Room", "Server", "Ticks", "event")

import asyncio
import gc
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

CHANNEL: Final = "room"
"""The one channel that all follow."""

BATCH: Final = 100
"""Events of a batch."""

Events = list[dict[str, Any]]
"""The data of events."""


def event(number: int, size: int = 0) -> dict[str, Any]:
    """Return the data of an event: 60 bytes of JSON, and *size* more.

    The ``#`` is what clients count: it is once in an event, and in nothing else.
    """
    text = "# hello to everybody" + "." * size
    return {"n": number, "text": text, "at": 1767225600.25}


class Server:
    """What a server is asked to do.

    Args:
        port: Where it listens.

    Attributes:
        ticks: What its generators wait for.
        pids: The processes that serve; what they take is the price.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self.ticks = Ticks()
        self.pids = [os.getpid()]

    async def port(self) -> int:
        """Return where it listens."""
        return self._port

    async def tidy(self) -> None:
        """Collect what connecting has left, so that no event pays for it."""
        gc.collect()

    async def pace(
        self, count: int, batch: int, interval: float, way: str, size: int
    ) -> list[float]:
        """Publish *batch* events each *interval* seconds; return when that was.

        *way* is ``publish``, one after another in one turn of the loop; ``together``,
        by what the server has for a batch; or ``tick``, by all generators at once.
        """
        publish = getattr(self, way)
        times = []
        due = time.monotonic()
        for number in range(count):
            events = [event(number * batch + n, size) for n in range(batch)]
            times.append(time.monotonic())
            await publish(events)
            due += interval
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        return times

    async def publish(self, events: Events) -> None:
        """Publish *events* to all who follow the channel."""
        raise NotImplementedError

    async def together(self, events: Events) -> None:
        """Publish *events* as the one batch that they are."""
        raise NotImplementedError

    async def tick(self, events: Events) -> None:
        """Have each generator yield the event."""
        (data,) = events
        self.ticks.tick(data)


class Ticks:
    """Wakes all generators with the same event; one that is late misses none."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._all: list[Any] = []

    async def next(self, number: int) -> Any:
        """Wait for the event of *number*, counted from 0, and return it."""
        while number >= len(self._all):
            await self._event.wait()
        return self._all[number]

    def tick(self, data: Any) -> None:
        """Give *data* to all who wait."""
        self._all.append(data)
        event, self._event = self._event, asyncio.Event()
        event.set()


class Room:
    """What one writes by hand where nothing is there: a queue for each client."""

    def __init__(self) -> None:
        self._queues: set[asyncio.Queue[tuple[int, str]]] = set()

    @contextmanager
    def join(self) -> Iterator[asyncio.Queue[tuple[int, str]]]:
        """Have a queue of numbers and texts."""
        queue: asyncio.Queue[tuple[int, str]] = asyncio.Queue(1000)
        self._queues.add(queue)
        try:
            yield queue
        finally:
            self._queues.discard(queue)

    async def publish(self, events: Events) -> None:
        """Put *events* in every queue; JSON is made once an event."""
        for data in events:
            item = data["n"], json.dumps(data)
            for queue in self._queues:
                queue.put_nowait(item)
