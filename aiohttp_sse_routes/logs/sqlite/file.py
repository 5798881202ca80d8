"""The file of an SQLite log: how it is opened, what is in it, what can go wrong.

Law: a file is changed only when it is empty or ours. Everything that SQLite raises is
told as one `Trouble`, whose text names what is to be done.
"""

from __future__ import annotations

__all__ = ("Identity", "Trouble", "connect", "explain", "identity", "placed", "prepare")

import contextlib
import errno
import os
import sqlite3
from typing import Final

Identity = tuple[int, int] | None
"""Device and number of a file, by which it is known under any name; None for none."""

_APPLICATION: Final = 0x53534552
_VERSION: Final = 1

# The text of a channel's own table is short, for its rows are written at each append;
# an entry names its channel by number. Of rowids only those of `ev` mean anything.
_SCHEMA: Final = """
CREATE TABLE log (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    generation TEXT NOT NULL,
    head INTEGER NOT NULL,      -- the newest number ever given out
    base INTEGER NOT NULL,      -- of channels that are not known, this may be gone
    channels INTEGER NOT NULL,  -- the newest id of a channel
    fences INTEGER NOT NULL,    -- the newest number of a lease
    time REAL NOT NULL,         -- the newest time of an entry
    boot TEXT NOT NULL,
    shift REAL NOT NULL         -- the log's time is this boot's uptime and that
);
CREATE TABLE fork (generation TEXT PRIMARY KEY, last INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE channel (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    newest INTEGER NOT NULL,
    floor INTEGER NOT NULL,     -- the newest number that is gone
    events INTEGER NOT NULL,
    nbytes INTEGER NOT NULL
);
CREATE INDEX channel_empty ON channel (newest) WHERE events = 0;
CREATE TABLE ev (
    seq INTEGER PRIMARY KEY,
    prev INTEGER NOT NULL,
    ch INTEGER NOT NULL,
    ts REAL NOT NULL,
    key TEXT,
    lines BLOB NOT NULL
);
CREATE INDEX ev_ch ON ev (ch);
CREATE TABLE published (
    id INTEGER PRIMARY KEY,
    channel TEXT NOT NULL,
    key TEXT NOT NULL,
    ts REAL NOT NULL,
    generation TEXT NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    UNIQUE (channel, key)
);
CREATE TABLE lease (
    name TEXT PRIMARY KEY,
    holder TEXT NOT NULL,
    number INTEGER NOT NULL,
    until REAL NOT NULL,
    wanted REAL                 -- when it was last wanted
) WITHOUT ROWID;
CREATE TABLE process (
    address TEXT PRIMARY KEY,
    network TEXT NOT NULL       -- from where it can be rung
) WITHOUT ROWID;
"""

_READ_ONLY: Final = (
    "cannot be written: let this process's user write the file and its directory"
)


class Trouble(Exception):
    """The file cannot be used now.

    Attributes:
        text: Why, and what to do.
        passing: Whether it may well pass by itself: a lock, a full disk.
        local: Whether the connection is as good as before.
    """

    def __init__(self, text: str, *, passing: bool, local: bool = False) -> None:
        super().__init__(text)
        self.text = text
        self.passing = passing
        self.local = local


def identity(path: str) -> Identity:
    """Return which file is at *path* now."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def connect(path: str, *, timeout: float, durable: bool = False) -> sqlite3.Connection:
    """Open the file at *path*; it is made if it is not there.

    Args:
        path: Where it is.
        timeout: Seconds to wait for a lock.
        durable: Whether a commit waits for the disk.
    """
    db = sqlite3.connect(
        path, timeout=timeout, isolation_level=None, check_same_thread=False
    )
    try:
        db.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}").close()
        db.execute("PRAGMA temp_store=MEMORY").close()
        # After a burst the file of the log's changes shrinks again.
        db.execute("PRAGMA journal_size_limit=16777216").close()
    except BaseException:
        db.close()
        raise
    return db


def placed(path: str) -> None:
    """Raise if there cannot be a file at *path*, in words better than SQLite's."""
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        raise Trouble(
            f"there is no directory {folder}: make it, or correct the path of the "
            "SQLiteStore",
            passing=False,
        )
    if os.path.isdir(path):
        raise Trouble(
            f"{path} is a directory: name a file in the SQLiteStore", passing=False
        )
    # SQLite would find out only when it has made files beside it.
    effective = os.access in os.supports_effective_ids
    may = os.access(path, os.R_OK | os.W_OK, effective_ids=effective)
    if os.path.exists(path) and not may:
        raise Trouble(f"{path} {_READ_ONLY}", passing=False)


def prepare(db: sqlite3.Connection, path: str) -> None:
    """Make the tables in a new file; see that an old one is ours."""
    _check_version(db, path)
    (mode,) = db.execute("PRAGMA journal_mode=WAL").fetchone()
    if mode != "wal":
        raise Trouble(
            f"{path} cannot have a write-ahead log: put it on a local disk",
            passing=False,
        )
    if _check_version(db, path):
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        # Another process may have been first.
        if not _check_version(db, path):
            for statement in filter(str.strip, _SCHEMA.split(";\n")):
                db.execute(statement)
            db.execute(f"PRAGMA application_id={_APPLICATION}")
            db.execute(f"PRAGMA user_version={_VERSION}")
        db.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        raise


def _check_version(db: sqlite3.Connection, path: str) -> bool:
    """Return whether the tables are there; raise if they are not ours."""
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application == version == tables == 0:
        return False
    if application != _APPLICATION:
        raise Trouble(
            f"{path} is the database of another program: give the SQLiteStore a file "
            "of its own",
            passing=False,
        )
    if version != _VERSION:
        raise Trouble(
            f"{path} has schema {version}, of another version of aiohttp-sse-routes; "
            f"this one knows schema {_VERSION}: run the version that wrote it, or name "
            "another file",
            passing=False,
        )
    return True


_LOCKED: Final = "is locked by another program: end its transaction, or close it"
_NO_OPENING: Final = (
    "cannot be opened: let this process's user read and write the file and its "
    "directory"
)
_NO_DATABASE: Final = (
    "is not an SQLite database: name another file in the SQLiteStore, or move this "
    "one away"
)
_DAMAGED: Final = "is damaged: move it away, with its -wal and -shm; a new log begins"
_TELL: Final = {
    # By SQLite's primary result code: the text, whether it passes, whether it leaves
    # the connection as it was.
    sqlite3.SQLITE_BUSY: (_LOCKED, True, True),
    sqlite3.SQLITE_LOCKED: (_LOCKED, True, True),
    sqlite3.SQLITE_PROTOCOL: (_LOCKED, True, True),
    sqlite3.SQLITE_FULL: ("has no room left: free space on its disk", True, True),
    sqlite3.SQLITE_READONLY: (_READ_ONLY, False, False),
    sqlite3.SQLITE_PERM: (_READ_ONLY, False, False),
    sqlite3.SQLITE_CANTOPEN: (_NO_OPENING, False, False),
    sqlite3.SQLITE_NOTADB: (_NO_DATABASE, False, False),
    sqlite3.SQLITE_CORRUPT: (_DAMAGED, False, False),
    sqlite3.SQLITE_NOMEM: ("needs more memory than there is", True, False),
}


def explain(path: str, error: Exception) -> Trouble | None:
    """Return what *error* means for the file at *path*; None if it is not its fault."""
    if isinstance(error, Trouble):
        return error
    if isinstance(error, OSError):
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return Trouble(f"{path}: {error}", passing=full)
    code = getattr(error, "sqlite_errorcode", None)
    if not isinstance(error, sqlite3.Error) or code is None:
        return None
    name = getattr(error, "sqlite_errorname", "")
    known = _TELL.get(code & 0xFF)
    if known is not None:
        text, passing, local = known
        return Trouble(f"{path} {text} ({name}: {error})", passing=passing, local=local)
    if code & 0xFF == sqlite3.SQLITE_IOERR:
        return Trouble(
            f"{path} cannot be read or written: see that its disk has room, that no "
            f"limit of file sizes is met, and the system's log ({name}: {error})",
            passing=True,
        )
    if code & 0xFF in (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_SCHEMA):
        return Trouble(
            f"{path} is not as this program left it: move it away, with its -wal and "
            f"-shm; a new log begins then ({name}: {error})",
            passing=False,
        )
    return None
