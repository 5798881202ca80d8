"""What an SQLite log is asked: pages, newest places, what is new.

Law: nothing here writes; an answer is of one moment of the log. The work is bounded by
what is returned and by the number of channels, not by the length of the log.
"""

from __future__ import annotations

__all__ = (
    "channels_by_id",
    "entries_after",
    "head",
    "known_channels",
    "lineage",
    "moment",
    "newest",
    "page",
)

import heapq
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from operator import itemgetter
from typing import Any, Final

from ..entry import Entry, Lineage, Page

_SIZES: Final = (256, 32, 4, 1)
"""How many values a query takes: few texts of queries, which are kept prepared."""

_WINDOW: Final = 1024
"""How many numbers of the log are looked through first."""

_ENTRY: Final = (
    "SELECT e.seq, e.prev, c.name, e.lines, e.key"
    " FROM ev e CROSS JOIN channel c ON c.id = e.ch"
)
_CHANNEL: Final = "SELECT id, name, newest, floor, events, nbytes FROM channel"


@contextmanager
def moment(db: sqlite3.Connection) -> Iterator[None]:
    """Let all that is read in the block be of one moment."""
    db.execute("BEGIN")
    try:
        yield
    finally:
        if db.in_transaction:
            db.execute("COMMIT")


def _in(
    db: sqlite3.Connection, sql: str, values: Sequence[Any], *more: Any
) -> list[Any]:
    """Return the rows of *sql*, with *values* in its ``IN (%s)``, *more* behind."""
    rows: list[Any] = []
    start = 0
    while start < len(values):
        left = len(values) - start
        # A size with room to spare is filled up: a value twice changes nothing.
        size = min((n for n in _SIZES if n >= left), default=_SIZES[0])
        part = [*values[start : start + size]]
        start += size
        part += part[:1] * (size - len(part))
        rows += db.execute(sql % ",".join("?" * size), (*part, *more)).fetchall()
    return rows


def known_channels(db: sqlite3.Connection, names: Sequence[str]) -> list[Any]:
    """Return id, name, newest, floor, events and bytes of those that are known."""
    return _in(db, f"{_CHANNEL} WHERE name IN (%s)", names)


def channels_by_id(db: sqlite3.Connection, ids: Sequence[int]) -> list[Any]:
    """Return the same of the channels that have these ids."""
    return _in(db, f"{_CHANNEL} WHERE id IN (%s)", ids)


def lineage(db: sqlite3.Connection) -> Lineage:
    """Return the generations."""
    (generation,) = db.execute("SELECT generation FROM log").fetchone()
    forks = dict(db.execute("SELECT generation, last FROM fork").fetchall())
    return Lineage(generation, forks)


def head(db: sqlite3.Connection) -> int:
    """Return the newest number."""
    (newest,) = db.execute("SELECT head FROM log").fetchone()
    return int(newest)


def entries_after(
    db: sqlite3.Connection, place: int, *, count: int, limit: int
) -> tuple[list[Entry], dict[str, int]]:
    """Return entries of all channels behind *place*, and what is gone between them.

    To be called in a transaction.

    Args:
        db: The log.
        place: The number before the first.
        count: The most entries.
        limit: About the most bytes.
    """
    found: list[Entry] = []
    cursor = db.execute(
        f"{_ENTRY} WHERE e.seq > ? ORDER BY e.seq LIMIT ?", (place, count)
    )
    try:
        for row in cursor:
            found.append(Entry(*row))
            limit -= len(row[3])
            if limit <= 0:
                break
    finally:
        cursor.close()
    if not found or found[-1].seq == place + len(found):
        return found, {}
    gone = db.execute("SELECT name, floor FROM channel WHERE floor > ?", (place,))
    return found, dict(gone)


def page(
    db: sqlite3.Connection, names: Sequence[str], after: int, through: int, limit: int
) -> Page:
    """See `Store.read`."""
    with moment(db):
        base, newest = db.execute("SELECT base, head FROM log").fetchone()
        rows = known_channels(db, names)
        floors = {name: floor for _, name, _, floor, _, _ in rows if floor > after}
        if base > after:
            known = {row[1] for row in rows}
            floors |= {name: base for name in names if name not in known}
        ids = [row[0] for row in rows if row[4] and row[2] > after]
        chosen, place = _choose(db, ids, after, min(through, newest), limit)
        found = _in(db, f"{_ENTRY} WHERE e.seq IN (%s)", chosen)
    entries = sorted(Entry(*row) for row in found)
    return Page(entries, through if place is None else place, floors)


def _choose(
    db: sqlite3.Connection, ids: Sequence[int], after: int, through: int, limit: int
) -> tuple[list[int], int | None]:
    """Return the numbers that make up a page, and its last one if there are more."""
    chosen: list[int] = []
    size, place, window = 0, after, _WINDOW
    while ids and place < through:
        end = min(through, place + window)
        for seq, nbytes in sorted(
            _in(
                db,
                "SELECT seq, length(lines) FROM ev"
                " WHERE ch IN (%s) AND seq > ? AND seq <= ?",
                ids,
                place,
                end,
            )
        ):
            size += nbytes
            if chosen and size > limit:
                return chosen, chosen[-1]
            chosen.append(seq)
        place, window = end, window * 4
    return chosen, None


def newest(
    db: sqlite3.Connection, names: Sequence[str], count: int, through: int
) -> int:
    """See `Store.newest`."""
    if count < 1:
        return through
    best: list[int] = []  # a heap of the newest numbers, the oldest of them first
    with moment(db):
        rows = [row for row in known_channels(db, names) if row[4]]
        for row in sorted(rows, key=itemgetter(2), reverse=True):
            if len(best) == count and row[2] <= best[0]:
                break
            found = db.execute(
                "SELECT seq FROM ev WHERE ch = ? AND seq <= ?"
                " ORDER BY seq DESC LIMIT ?",
                (row[0], through, count),
            ).fetchall()
            best = heapq.nlargest(count, [*best, *(seq for (seq,) in found)])
            heapq.heapify(best)
    return best[0] - 1 if best else through
