"""Delivery to readers that have everything: one frame, the same bytes for all.

Law: nothing is made for one reader that another could share. The loop gets its turn
every few milliseconds; who is not reached by then is behind, at the place before.
"""

from __future__ import annotations

__all__ = ("SLICE", "Delivery")

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from ..wire import frame, join
from .following import Topic
from .reader import Reader

SLICE: Final = 0.005
"""Seconds of delivery after which the loop gets a turn: 2,000 writes take 24 ms, and
other requests wait as long."""

_CHECK_EVERY: Final = 64


class Delivery:
    """Writes what waits in topics to those who follow them.

    Args:
        miss: Told of each reader that was not reached, with the place that it is at
            and the bytes that were counted for it and not written.
    """

    def __init__(self, miss: Callable[[Reader, int, int], None]) -> None:
        self._miss = miss
        self._loop = asyncio.get_running_loop()

    def write(self, dirty: Sequence[Topic], before: int) -> None:
        """Write what waits in the topics *dirty*.

        Args:
            dirty: Topics in which something waits.
            before: The place of all live readers until now.
        """
        if len(dirty) == 1:
            self._one(dirty[0], before)
        else:
            self._several(dirty, before)

    def _one(self, topic: Topic, before: int) -> None:
        """Write what waits in *topic* to all who follow it."""
        pending, topic.pending = topic.pending, []
        if len(pending) == 1:
            chunk = frame(pending[0][1])
        else:
            chunk = join([block for _, block in pending])
        topic.written += len(chunk)
        if len(topic.live) <= _CHECK_EVERY:
            # A copy: a pause within the write takes the reader out.
            for send in tuple(topic.live.values()):
                send(chunk)
            return
        size = len(chunk)
        self._write_sliced(
            [(reader, send, chunk, size) for reader, send in topic.live.items()], before
        )

    def _several(self, dirty: Sequence[Topic], before: int) -> None:
        """Write what waits in several topics, to each reader in one write."""
        shares: dict[Reader, tuple[Topic, ...]] = {}
        sends: dict[Reader, Callable[[bytes], object]] = {}
        chunks: dict[tuple[Topic, ...], bytes] = {}
        for topic in dirty:
            for reader, send in topic.live.items():
                shares[reader] = (*shares.get(reader, ()), topic)
                sends[reader] = send
        for share in set(shares.values()):
            parts = [item for topic in share for item in topic.pending]
            parts.sort()
            chunks[share] = join([block for _, block in parts])
        sizes = {topic: len(chunks.get((topic,), b"")) for topic in dirty}
        for topic in dirty:
            topic.pending = []
            topic.written += sizes[topic]
        writes = []
        for reader, share in shares.items():
            chunk = chunks[share]
            counted = sum([sizes[topic] for topic in share])
            reader.sent += len(chunk) - counted
            writes.append((reader, sends[reader], chunk, len(chunk)))
        self._write_sliced(writes, before)

    def _write_sliced(
        self,
        writes: Sequence[tuple[Reader, Callable[[bytes], object], bytes, int]],
        before: int,
    ) -> None:
        """Write, and give the loop its turn after some milliseconds.

        Who is not reached by then is behind, at the place *before*.
        """
        until = self._loop.time() + SLICE
        for index, (_, send, chunk, _) in enumerate(writes, 1):
            send(chunk)
            if index % _CHECK_EVERY == 0 and self._loop.time() > until:
                for reader, _, _, size in writes[index:]:
                    self._miss(reader, before, size)
                break
