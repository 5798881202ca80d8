"""What a log's file that was moved away, or deleted, leaves behind at its place.

Law: only what belongs to the file that is gone is deleted; two processes that come upon
it at once do not take the other's new files for old ones.
"""

from __future__ import annotations

__all__ = ("Files", "discard", "files")

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final, NamedTuple

from .file import Identity, identity

_BESIDE: Final = ("-wal", "-shm")


class Files(NamedTuple):
    """The files of an open log.

    Attributes:
        path: Where it is, or was.
        main: That which is at its path.
        beside: Those beside it, which SQLite keeps while it is open.
    """

    path: str
    main: Identity
    beside: tuple[Identity, ...]


def files(path: str) -> Files:
    """Return the files of the log at *path*, which is open and has been read."""
    return Files(path, identity(path), tuple(identity(path + end) for end in _BESIDE))


def discard(old: Files) -> None:
    """Delete what is still at its place of a log whose files were *old*.

    SQLite knows the files beside a database by their names: those of the old one would
    be taken for the new one's, and would be played back into it.
    """
    path = old.path
    with _alone(os.path.dirname(path)):
        if identity(path) == old.main:
            return
        for end, number in zip(_BESIDE, old.beside, strict=True):
            if number is not None and identity(path + end) == number:
                with suppress(OSError):
                    os.unlink(path + end)


@contextmanager
def _alone(folder: str) -> Iterator[None]:
    """Let no other process do the same in *folder* meanwhile."""
    if sys.platform == "win32":
        yield  # a file that is open cannot be moved there
        return
    import fcntl

    try:
        opened = os.open(folder, os.O_RDONLY)
    except OSError:
        yield  # the folder is gone, with all that was in it
        return
    try:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)
