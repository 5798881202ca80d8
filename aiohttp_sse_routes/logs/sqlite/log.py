"""One change of an SQLite log: what a transaction appends, drops and lends.

Law: whatever may refuse does so before anything of it is noted, and all that is noted
is written by `Batch.finish`: so many appends can share a transaction, and each is in it
whole or not at all. There are no threads and no waiting here.
"""

from __future__ import annotations

__all__ = ("Batch", "Run", "due")

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from ...errors import LeaseLost
from ..entry import Appended, Bounds, Draft, Entry, Fence, Lease
from ..store import IDEMPOTENCY_SECONDS
from .channels import Channels, insert
from .host import Host

_MAX_EMPTY: Final = 100_000
"""Channels of which nothing is left but the number of the newest that is gone."""

_LEASE_KEPT: Final = 3600.0
"""Seconds that a lease which ran out is remembered, for who wanted it when."""

_STATE: Final = (
    "SELECT generation, head, base, channels, fences, time, shift,"
    " (SELECT ts FROM ev ORDER BY seq LIMIT 1),"
    " (SELECT group_concat(address, ' ') FROM process WHERE network = ?)"
    " FROM log"
)


class Run(NamedTuple):
    """Entries that follow one another, with what their channels hold.

    Attributes:
        entries: They.
        bounds: What their channels hold; None for the store's own bounds.
        floors: By channel, what is gone between the entry before and the last.
    """

    entries: list[Entry]
    bounds: Bounds | None
    floors: Mapping[str, int] = MappingProxyType({})


class Batch:
    """What one transaction changes. It has begun, and nobody else can write.

    Args:
        db: The log, in a transaction.
        host: Whose time it is.
        bounds: What a channel holds.

    Attributes:
        head: The newest number, with what was appended.
        runs: What was appended.
        processes: Addresses of processes that can be rung from here.
    """

    def __init__(self, db: sqlite3.Connection, host: Host, bounds: Bounds) -> None:
        self._db = db
        self._bounds = bounds
        # All in one question: each lets go of the interpreter's lock, which a busy loop
        # may keep for long.
        (
            self.generation,
            self.head,
            base,
            newest_id,
            self._fences,
            time,
            shift,
            self._oldest,
            processes,
        ) = db.execute(_STATE, (host.network,)).fetchone()
        self.processes: list[str] = (processes or "").split()
        self._now = max(time, host.uptime() + shift)
        self.runs: list[Run] = []
        self._rows: list[tuple[Any, ...]] = []
        self._published: list[tuple[Any, ...]] = []
        self._changed = False
        self._channels = Channels(db, newest_id, base)

    # -- what is asked for -------------------------------------------------------------

    def load(self, names: Iterable[str]) -> None:
        """Read what is known of the channels *names*."""
        self._channels.load(names)

    def append(
        self,
        channel: str,
        drafts: Sequence[Draft],
        idempotency_key: str | None,
        fence: Fence | None,
        bounds: Bounds | None,
    ) -> Appended:
        """See `Store.append`; *channel* is loaded."""
        if fence is not None:
            self._check(fence)
        if idempotency_key is not None:
            known = self._repeated(channel, idempotency_key)
            if known is not None:
                return known
        into = self._channels.named(channel)
        entries = []
        for seq, draft in enumerate(drafts, self.head + 1):
            lines, key = draft
            entries.append(Entry(seq, into.newest, channel, lines, key))
            self._rows.append((seq, into.newest, into.id, self._now, key, lines))
            into.newest = seq
            into.nbytes += len(lines)
        into.events += len(entries)
        into.bounds = bounds or self._bounds
        done = Appended(self.generation, self.head + 1, into.newest)
        self.head = into.newest
        if self.runs and self.runs[-1].bounds == bounds:
            self.runs[-1].entries.extend(entries)
        else:
            self.runs.append(Run(entries, bounds))
        if idempotency_key is not None:
            self._published.append((channel, idempotency_key, self._now, *done[:3]))
        return done

    def lease(self, name: str, holder: str, seconds: float, wanted: bool) -> Lease:
        """See `Store.lease`."""
        row = self._db.execute(
            "SELECT holder, number, until, wanted FROM lease WHERE name = ?", (name,)
        ).fetchone()
        had, number, until, last = row or ("", 0, self._now, None)
        free = until <= self._now
        if wanted:
            last = self._now
        if free:
            # One count for all names: what is forgotten cannot come again.
            self._fences += 1
            number, had = self._fences, holder
        if had == holder:
            until = self._now + seconds
        if wanted or had == holder:
            self._changed = True
            self._db.execute(
                "INSERT OR REPLACE INTO lease VALUES (?, ?, ?, ?, ?)",
                (name, had, number, until, last),
            )
        since = float("inf") if last is None else self._now - last
        return Lease(number if had == holder else None, since)

    def release(self, fence: Fence) -> None:
        """See `Store.release`."""
        self._changed = True
        self._db.execute(
            "UPDATE lease SET until = ? WHERE name = ? AND number = ?",
            (self._now, *fence),
        )

    def _check(self, fence: Fence) -> None:
        held = self._db.execute(
            "SELECT 1 FROM lease WHERE name = ? AND number = ? AND until > ?",
            (*fence, self._now),
        ).fetchone()
        if held is None:
            raise LeaseLost(f"the lease {fence.name!r} is not held any more")

    def _repeated(self, channel: str, key: str) -> Appended | None:
        """Return what was answered to *key*, if it is not too long ago."""
        self._note_published()
        row = self._db.execute(
            "SELECT generation, first, last FROM published"
            " WHERE channel = ? AND key = ? AND ts > ?",
            (channel, key, self._now - IDEMPOTENCY_SECONDS),
        ).fetchone()
        return None if row is None else Appended(*row)._replace(repeated=True)

    # -- what goes ---------------------------------------------------------------------

    def tidy(self, count: int) -> None:
        """Drop up to *count* of each kind that is too old."""
        db, now = self._db, self._now
        self._changed = True
        self._expire(count)
        self._forget(count)
        db.execute(
            "DELETE FROM published WHERE id IN"
            " (SELECT id FROM (SELECT id, ts FROM published ORDER BY id LIMIT ?)"
            "  WHERE ts <= ?)",
            (count, now - IDEMPOTENCY_SECONDS),
        )
        db.execute("DELETE FROM lease WHERE until <= ?", (now - _LEASE_KEPT,))

    def _expire(self, count: int) -> None:
        """Drop up to *count* entries that are too old.

        An entry is not younger than one with a higher number, whatever their channels.
        """
        limit = self._now - self._bounds.max_age
        if self._oldest is None or self._oldest > limit:
            return
        gone = []
        cursor = self._db.execute(
            "SELECT seq, ts, ch, length(lines) FROM ev ORDER BY seq LIMIT ?", (count,)
        )
        for seq, ts, ch, nbytes in cursor:
            if ts > limit:
                break
            gone.append((seq, ch, nbytes))
        cursor.close()
        self._channels.load_ids(ch for _, ch, _ in gone)
        for seq, ch, nbytes in gone:
            self._channels.by_id(ch).drop(seq, nbytes)
        self._db.execute("DELETE FROM ev WHERE seq <= ?", (gone[-1][0],))

    def _forget(self, count: int) -> None:
        """Forget channels of which nothing is left, those first that went first."""
        over = _empty(self._db) - _MAX_EMPTY
        if over <= 0:
            return
        ((last,),) = self._db.execute(
            "SELECT max(newest) FROM (SELECT newest FROM channel WHERE events = 0"
            " ORDER BY newest LIMIT ?)",
            (min(over, count),),
        )
        self._db.execute(
            "DELETE FROM channel WHERE events = 0 AND newest <= ?", (last,)
        )
        self._channels.base = max(self._channels.base, last)

    # -- what is written ---------------------------------------------------------------

    def finish(self) -> None:
        """Write all that was noted; only the commit is left."""
        rows = self._rows
        if rows:
            self._expire(2 * len(rows) + 1)
            insert(self._db, "INSERT INTO ev (seq, prev, ch, ts, key, lines)", rows)
            self._channels.trim()
        self._note_published()
        if rows or self._changed:
            self._channels.write()
            of = self._channels
            self._db.execute(
                "UPDATE log SET head = ?, base = ?, channels = ?, fences = ?, time = ?",
                (self.head, of.base, of.newest_id, self._fences, self._now),
            )

    def _note_published(self) -> None:
        insert(
            self._db,
            "INSERT OR REPLACE INTO published"
            " (channel, key, ts, generation, first, last)",
            self._published,
        )
        self._published.clear()


def _empty(db: sqlite3.Connection) -> int:
    (count,) = db.execute("SELECT count(*) FROM channel WHERE events = 0").fetchone()
    return int(count)


def due(db: sqlite3.Connection, host: Host, bounds: Bounds) -> bool:
    """Return whether `Batch.tidy` would find something to do."""
    time, shift = db.execute("SELECT time, shift FROM log").fetchone()
    now = max(time, host.uptime() + shift)
    row = db.execute(
        "SELECT coalesce((SELECT ts FROM ev ORDER BY seq LIMIT 1) <= ?, 0)"
        " OR coalesce((SELECT ts FROM published ORDER BY id LIMIT 1) <= ?, 0)"
        " OR EXISTS (SELECT 1 FROM lease WHERE until <= ?)",
        (now - bounds.max_age, now - IDEMPOTENCY_SECONDS, now - _LEASE_KEPT),
    ).fetchone()
    return bool(row[0]) or _empty(db) > _MAX_EMPTY
