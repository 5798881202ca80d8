"""The newest event by key: what a client that was overtaken is given in place of all.

Law: of each key the newest event is known, in the ring or beside it; what was dropped
without a newer one of its key is known as lost.
"""

from __future__ import annotations

__all__ = ("Latest",)

from collections.abc import Iterable


class Latest:
    """The newest events of one channel, by key.

    Args:
        max_keys: How many to keep of those that have left the ring.
        floor: The newest number that had left the ring before the first key came.

    Attributes:
        lost: The newest number that is gone and has no newer event of its key: that
            of an event without a key, or of one key too many.
    """

    __slots__ = ("_kept", "_keys", "_max", "_newest", "lost")

    def __init__(self, max_keys: int, floor: int) -> None:
        self.lost = floor
        self._max = max_keys
        self._keys: dict[int, str] = {}  # of what is in the ring
        self._newest: dict[str, int] = {}
        # Newest of their keys, no longer in the ring; in the order of their numbers.
        self._kept: dict[str, tuple[int, bytes]] = {}

    def add(self, seq: int, key: str) -> None:
        """Note that *seq* is the newest of *key*."""
        self._keys[seq] = key
        self._newest[key] = seq
        self._kept.pop(key, None)

    def dropped(self, entries: Iterable[tuple[int, bytes]]) -> None:
        """Note that *entries* have left the ring."""
        for seq, block in entries:
            key = self._keys.pop(seq, None)
            if key is None:
                self.lost = seq
            elif self._newest[key] == seq:
                self._kept[key] = (seq, block)
        while len(self._kept) > self._max:
            key = next(iter(self._kept))
            seq, _ = self._kept.pop(key)
            del self._newest[key]
            self.lost = max(self.lost, seq)

    def after(self, place: int) -> list[tuple[int, bytes]]:
        """Return what is kept beside the ring, behind *place*."""
        return [item for item in self._kept.values() if item[0] > place]

    def key(self, seq: int) -> str | None:
        """Return the key of *seq*, which is in the ring."""
        return self._keys.get(seq)

    def superseded(self, seq: int) -> bool:
        """Return whether a newer event of the same key than *seq* has come."""
        key = self._keys.get(seq)
        return key is not None and self._newest[key] != seq
