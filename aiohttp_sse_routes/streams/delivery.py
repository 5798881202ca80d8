"""Delivery to readers that have everything: one frame, the same bytes for all.

Law: nothing is made for one reader that another could share.
"""

from __future__ import annotations

__all__ = ("Delivery",)

import asyncio
from collections.abc import Callable, Sequence

from ..wire import frame, join
from .debts import Debts, Send
from .following import Topic
from .reader import Reader
from .slices import CHECK_EVERY, Slice


class Delivery:
    """Writes what waits in topics to those who follow them.

    Args:
        debts: What takes longer than a turn of the loop may.
        miss: Told of each reader that is yet owed what came before.
    """

    def __init__(self, debts: Debts, miss: Callable[[Reader], None]) -> None:
        self._debts = debts
        self._miss = miss
        self._loop = asyncio.get_running_loop()

    def write(self, dirty: Sequence[Topic], before: int) -> None:
        """Write what waits in the topics *dirty*.

        Args:
            dirty: Topics in which something waits.
            before: The place until now of all live readers who are owed nothing.
        """
        if self._debts:
            for topic in dirty:
                for reader in self._debts.among(topic.live):
                    self._miss(reader)
        if len(dirty) == 1:
            self._one(dirty[0], before)
        else:
            self._several(dirty, before)

    def _one(self, topic: Topic, before: int) -> None:
        """Write what waits in *topic* to all who follow it."""
        chunk = _chunk((topic,))
        events = len(topic.pending)
        topic.pending = []
        topic.events += events
        topic.written += len(chunk)
        if len(topic.live) <= CHECK_EVERY:
            # A copy: a pause within the write takes the reader out.
            for send in tuple(topic.live.values()):
                send(chunk)
            return
        self._debts.write(
            [*topic.live],
            [*topic.live.values()],
            chunk,
            before,
            events,
            within=Slice(self._loop),
        )

    def _several(self, dirty: Sequence[Topic], before: int) -> None:
        """Write what waits in several topics, to each reader in one write."""
        shares: dict[Reader, tuple[Topic, ...]] = {}
        for topic in dirty:
            for reader in topic.live:
                shares[reader] = (*shares.get(reader, ()), topic)
        alike: dict[tuple[Topic, ...], tuple[list[Reader], list[Send]]] = {}
        for reader, share in shares.items():
            readers, sends = alike.setdefault(share, ([], []))
            readers.append(reader)
            sends.append(share[0].live[reader])
        chunks = {share: _chunk(share) for share in alike}
        sizes = {topic: len(chunks.get((topic,), b"")) for topic in dirty}
        counts = {topic: len(topic.pending) for topic in dirty}
        for topic in dirty:
            topic.pending = []
            topic.events += counts[topic]
            topic.written += sizes[topic]
        turn = Slice(self._loop)
        for share, (readers, sends) in alike.items():
            chunk = chunks[share]
            more = len(chunk) - sum([sizes[topic] for topic in share])
            if more:
                for reader in readers:
                    reader.sent += more
            events = sum([counts[topic] for topic in share])
            self._debts.write(readers, sends, chunk, before, events, within=turn)


def _chunk(topics: Sequence[Topic]) -> bytes:
    """Return what waits in *topics*, in the order of the log, as one frame."""
    parts = [item for topic in topics for item in topic.pending]
    if len(parts) == 1:
        return frame(parts[0][1])
    if len(topics) > 1:
        parts.sort()
    return join([block for _, block in parts])
