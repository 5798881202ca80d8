"""The channels of an SQLite log, as one transaction reads and changes them.

Law: of a channel its newest number, the newest that is gone, and what it holds are
known without a look at its entries; they are written together with what changes them.
"""

from __future__ import annotations

__all__ = ("Channel", "Channels", "insert")

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, Final

from ..entry import Bounds
from .read import channels_by_id, known_channels

_ROWS: Final = (32, 4, 1)
"""How many rows one statement inserts."""


class Channel:
    """A row of the channels' table, as it is to be.

    Attributes:
        bounds: What it holds; None while nothing was appended to it here.
    """

    __slots__ = ("bounds", "events", "floor", "id", "name", "nbytes", "newest")

    def __init__(
        self, id_: int, name: str, newest: int, floor: int, events: int, nbytes: int
    ) -> None:
        self.id = id_
        self.name = name
        self.newest = newest
        self.floor = floor
        self.events = events
        self.nbytes = nbytes
        self.bounds: Bounds | None = None

    @property
    def row(self) -> tuple[int, str, int, int, int, int]:
        """Return the row."""
        return self.id, self.name, self.newest, self.floor, self.events, self.nbytes

    def drop(self, seq: int, nbytes: int) -> None:
        """Note that the oldest entry is gone."""
        self.floor = seq
        self.events -= 1
        self.nbytes -= nbytes

    @property
    def over(self) -> bool:
        """Whether it holds more than it may, and more than one entry."""
        bounds = self.bounds
        return (
            bounds is not None
            and self.events > 1
            and (
                self.events > bounds.max_events
                or (bounds.max_bytes is not None and self.nbytes > bounds.max_bytes)
            )
        )


class Channels:
    """Those that a transaction has to do with.

    Args:
        db: The log, in a transaction.
        newest_id: The newest id of any.
        base: What may be gone of one that is not known.

    Attributes:
        newest_id: See above.
        base: See above.
    """

    def __init__(self, db: sqlite3.Connection, newest_id: int, base: int) -> None:
        self.newest_id = newest_id
        self.base = base
        self._db = db
        self._by_name: dict[str, Channel] = {}
        self._by_id: dict[int, Channel] = {}

    def load(self, names: Iterable[str]) -> None:
        """Read what is known of the channels *names*."""
        for row in known_channels(self._db, [*{*names}]):
            self._keep(Channel(*row))

    def load_ids(self, ids: Iterable[int]) -> None:
        """Read what is known of channels, by their ids."""
        unknown = {*ids} - self._by_id.keys()
        for row in channels_by_id(self._db, [*unknown]):
            self._keep(Channel(*row))

    def by_id(self, id_: int) -> Channel:
        """Return a channel that is loaded."""
        return self._by_id[id_]

    def named(self, name: str) -> Channel:
        """Return a channel that is loaded; a new one if it is not known."""
        channel = self._by_name.get(name)
        if channel is None:
            self.newest_id += 1
            channel = Channel(self.newest_id, name, self.base, self.base, 0, 0)
            self._keep(channel)
        return channel

    def trim(self) -> None:
        """Drop what channels have over their bounds."""
        for channel in self._by_id.values():
            if channel.over:
                self._trim(channel)

    def write(self) -> None:
        """Write all that are loaded."""
        insert(
            self._db,
            "INSERT INTO channel (id, name, newest, floor, events, nbytes)",
            [channel.row for channel in self._by_id.values()],
            " ON CONFLICT (id) DO UPDATE SET newest = excluded.newest,"
            " floor = excluded.floor, events = excluded.events,"
            " nbytes = excluded.nbytes",
        )

    def _keep(self, channel: Channel) -> None:
        self._by_name[channel.name] = self._by_id[channel.id] = channel

    def _trim(self, channel: Channel) -> None:
        cursor = self._db.execute(
            "SELECT seq, length(lines) FROM ev WHERE ch = ? ORDER BY seq", (channel.id,)
        )
        while channel.over:
            channel.drop(*cursor.fetchone())
        cursor.close()
        self._db.execute(
            "DELETE FROM ev WHERE ch = ? AND seq <= ?", (channel.id, channel.floor)
        )


def insert(
    db: sqlite3.Connection, sql: str, rows: Sequence[tuple[Any, ...]], tail: str = ""
) -> None:
    """Insert *rows* in few statements: each lets go of the interpreter's lock once."""
    start = 0
    while start < len(rows):
        size = next(n for n in _ROWS if n <= len(rows) - start)
        values = "(" + ",".join("?" * len(rows[start])) + ")"
        db.execute(
            f"{sql} VALUES {','.join([values] * size)}{tail}",
            [value for row in rows[start : start + size] for value in row],
        )
        start += size
