"""The processes that use an SQLite log, and the generations that their ends make.

Law: where the log may have lost what it had given out, it goes on in another generation
with higher numbers, and knows through which number the old one is still true.
"""

from __future__ import annotations

__all__ = ("enter", "leave")

import sqlite3
from collections.abc import Iterable
from typing import Final

from ...cursor import new_generation
from .bell import Bell
from .host import Host

_LEAP: Final = 1 << 20
"""How far numbers go on above the newest, where some may have been lost: more than are
given out between two moments at which the system writes to the disk."""

_MAX_FORKS: Final = 16


def enter(db: sqlite3.Connection, host: Host, bell: Bell, replaced: str | None) -> None:
    """Note a process that begins to use the log; in a transaction.

    Whoever is noted and did not take leave may have had commits that only the system
    knew of. When it did not outlive them, the log goes on in another generation.

    Args:
        db: The log.
        host: Whose boot and time it is.
        bell: The process's own; its address stands for the process.
        replaced: The generation of the file that was used before, if this is another:
            a copy of that, from some moment, if it has the same.
    """
    row = db.execute("SELECT generation, time, boot FROM log").fetchone()
    wall = host.wall()
    if row is None:
        db.execute(
            "INSERT INTO log VALUES (1, ?, 0, 0, 0, 0, ?, ?, ?)",
            (new_generation(), wall, host.boot, wall - host.uptime()),
        )
    else:
        generation, time, boot = row
        if not host.boot or host.boot != boot:
            now = max(wall, time)
            db.execute(
                "UPDATE log SET boot = ?, time = ?, shift = ?",
                (host.boot, now, now - host.uptime()),
            )
        if host.boot not in ("", boot) and _begin_boot(db):
            db.execute("INSERT INTO fork SELECT generation, head FROM log")
            _begin_generation(db)
        elif generation == replaced:
            # Processes have in memory what it lacks: none of its places is told of.
            _begin_generation(db)
    db.execute(
        "INSERT OR IGNORE INTO process VALUES (?, ?)", (bell.address, bell.network)
    )


def leave(db: sqlite3.Connection, addresses: Iterable[str]) -> None:
    """Note that the processes at *addresses* use the log no more."""
    db.executemany("DELETE FROM process WHERE address = ?", [(a,) for a in addresses])


def _begin_boot(db: sqlite3.Connection) -> bool:
    """Note that no process lives that was noted; return whether there was one."""
    db.execute("UPDATE lease SET until = 0")
    return db.execute("DELETE FROM process").rowcount > 0


def _begin_generation(db: sqlite3.Connection) -> None:
    """Go on in another generation."""
    db.execute(
        "DELETE FROM fork WHERE generation NOT IN"
        " (SELECT generation FROM fork ORDER BY last DESC LIMIT ?)",
        (_MAX_FORKS,),
    )
    db.execute(
        "UPDATE log SET generation = ?, head = head + ?", (new_generation(), _LEAP)
    )
