"""The newest event by key: what a client that was overtaken is given in place of all.

Law: of each key the newest event is known, in the ring or beside it; what was dropped
without a newer one of its key is known as lost. What is kept beside the ring is bounded
as the ring is.
"""

from __future__ import annotations

__all__ = ("Latest",)

from collections import OrderedDict


class Latest:
    """The newest events of one channel, by key.

    Args:
        floor: The newest number that had left the ring before the first key came.
        max_events: How many to keep of those that have left the ring.
        max_bytes: How many bytes of them to keep.

    Attributes:
        lost: The newest number that is gone and has no newer event of its key.
        nbytes: The bytes that are kept beside the ring.
    """

    __slots__ = (
        "_kept",
        "_keys",
        "_newest",
        "lost",
        "max_bytes",
        "max_events",
        "nbytes",
    )

    def __init__(self, floor: int, *, max_events: int, max_bytes: int) -> None:
        self.lost = floor
        self.nbytes = 0
        self.max_events = max_events
        self.max_bytes = max_bytes
        self._keys: dict[int, str] = {}  # of what is in the ring
        self._newest: dict[str, int] = {}
        # Newest of their keys, no longer in the ring; in the order of their numbers.
        self._kept: OrderedDict[str, tuple[int, bytes]] = OrderedDict()

    @property
    def oldest(self) -> int | None:
        """The number of the oldest event that is kept beside the ring."""
        return next(iter(self._kept.values()))[0] if self._kept else None

    def add(self, seq: int, key: str) -> None:
        """Note that *seq*, which is in the ring, is the newest of *key*."""
        self._keys[seq] = key
        self._newest[key] = seq
        kept = self._kept.pop(key, None)
        if kept is not None:
            self.nbytes -= len(kept[1])

    def dropped(self, seq: int, block: bytes) -> None:
        """Note that *seq* has left the ring, where it was the oldest."""
        key = self._keys.pop(seq, None)
        if key is None:
            self.lost = seq
        elif self._newest[key] == seq:
            self._kept[key] = seq, block
            self.nbytes += len(block)
            while len(self._kept) > self.max_events or self.nbytes > self.max_bytes:
                self._lose_oldest()

    def lose(self, through: int) -> None:
        """Keep nothing beside the ring any more through the number *through*."""
        while self._kept and next(iter(self._kept.values()))[0] <= through:
            self._lose_oldest()

    def _lose_oldest(self) -> None:
        key, (seq, block) = self._kept.popitem(last=False)
        self.nbytes -= len(block)
        del self._newest[key]
        self.lost = max(self.lost, seq)

    def between(self, place: int, through: int) -> list[tuple[int, bytes]]:
        """Return what is kept beside the ring after *place*, through *through*."""
        return [item for item in self._kept.values() if place < item[0] <= through]

    def key(self, seq: int) -> str | None:
        """Return the key of *seq*, which is in the ring."""
        return self._keys.get(seq)

    def superseded(self, seq: int) -> bool:
        """Return whether a newer event of the same key than *seq* has come."""
        key = self._keys.get(seq)
        return key is not None and self._newest[key] != seq
