r"""A file that is followed as it grows, as ``tail -F`` does.

Law: every line that is in the file is given once and in order, or a notice says what
became of it. The file is looked at by name each time its end is reached: another one
of that name is begun at its start, behind the last byte of the old one. One that was
cut and has grown past the old place between two looks cannot be told from one that
only grew. Only ``\n`` ends a line; bytes that are not UTF-8 become U+FFFD.
"""

from __future__ import annotations

__all__ = ("Line", "Notice", "Tail", "follow")

import itertools
import os
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Final, Literal

_READ: Final = 256 * 1024
"""The most bytes of one look."""

_BEHIND: Final = 4 * _READ
"""More than that behind the file's end, what nobody could read is passed over."""

_LONGEST: Final = 8 * 1024
"""The most bytes of a line; a longer one comes in pieces."""

_LAST: Final = 16 * 1024
"""How far back the last lines are looked for, in bytes."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the file, or a piece of a very long one.

    Attributes:
        n: Its number in this run, from 1; notices have one too.
        text: It, without its end.
    """

    n: int
    text: str


@dataclass(frozen=True, slots=True)
class Notice:
    """What became of the file.

    Attributes:
        n: The notice's number, in one row with the lines'.
        what: ``missing``: there is no such file yet; ``truncated``: it was cut, and is
            read from its start; ``rotated``: there is another of that name, read from
            its start; ``skipped``: it grows too fast.
        bytes: How many were passed over, for ``skipped``.
    """

    n: int
    what: Literal["missing", "truncated", "rotated", "skipped"]
    bytes: int = 0


class Tail:
    """A followed file.

    Args:
        path: Where it is, or will be.
        last: How many lines to begin with that are there already.
    """

    def __init__(self, path: Path, *, last: int = 20) -> None:
        self._path = path
        self._numbers = itertools.count(1)
        self._file: FileIO | None = None
        self._rest = b""
        self._missed = False
        if self._open():
            self._seek_last(last)

    def read(self) -> list[Line | Notice]:
        """Return what is new, at most a few hundred KB of it."""
        if self._file is None and not self._open():
            return [] if self._missed else self._missing()
        assert self._file is not None
        found: list[Line | Notice] = []
        behind = os.fstat(self._file.fileno()).st_size - self._file.tell()
        if behind > _BEHIND:
            self._file.seek(behind - _READ, os.SEEK_CUR)
            self._rest = b""
            found.append(self._notice("skipped", behind - _READ))
        data = self._file.read(_READ)
        found += self._lines(data)
        if not data:
            found += self._look_again(self._file)
        return found

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _open(self) -> bool:
        try:
            # Unbuffered, so that its place is what was read of it.
            self._file = FileIO(os.fspath(self._path))
        except OSError:
            return False
        return True

    def _seek_last(self, last: int) -> None:
        """Go to where the last lines begin."""
        assert self._file is not None
        size = self._file.seek(0, os.SEEK_END)
        start = self._file.seek(max(0, size - _LAST))
        data = self._file.read(size - start)
        end = start + len(data)
        if start:
            data = data.partition(b"\n")[2]
        # One more, for behind the last end of a line there is a piece without.
        self._file.seek(end - len(b"\n".join(data.split(b"\n")[-last - 1 :])))

    def _look_again(self, file: FileIO) -> list[Line | Notice]:
        """See whether the file is still the one of that name, and not shorter."""
        try:
            named = os.stat(self._path)
        except OSError:
            # Between the two steps of a rotation; what is written to the old, counts.
            return []
        if not os.path.samestat(named, os.fstat(file.fileno())):
            data = file.read(_READ)
            if data:
                # Written since: the next look comes back here.
                return self._lines(data)
            found = self._rest_line()
            file.close()
            self._file = None
            self._missed = True
            return [*found, self._notice("rotated")]
        if named.st_size < file.tell():
            found = self._rest_line()
            file.seek(0)
            return [*found, self._notice("truncated")]
        return []

    def _lines(self, data: bytes) -> list[Line | Notice]:
        *ended, rest = (self._rest + data).split(b"\n")
        found: list[Line | Notice] = []
        for line in ended:
            while len(line) > _LONGEST:
                piece, line = _cut(line)
                found.append(self._line(piece))
            found.append(self._line(line.removesuffix(b"\r")))
        while len(rest) > _LONGEST:
            piece, rest = _cut(rest)
            found.append(self._line(piece))
        self._rest = rest
        return found

    def _rest_line(self) -> list[Line | Notice]:
        """Give what is left of a file whose last line has no end."""
        rest, self._rest = self._rest, b""
        return [self._line(rest)] if rest else []

    def _line(self, line: bytes) -> Line:
        return Line(next(self._numbers), line.decode(errors="replace"))

    def _missing(self) -> list[Line | Notice]:
        self._missed = True
        return [self._notice("missing")]

    def _notice(
        self,
        what: Literal["missing", "truncated", "rotated", "skipped"],
        count: int = 0,
    ) -> Notice:
        return Notice(next(self._numbers), what, count)


def follow(path: Path, *, last: int = 20) -> Generator[list[Line | Notice]]:
    """Yield what is new in the file *path*, each time it is asked."""
    with closing(Tail(path, last=last)) as tail:
        while True:
            yield tail.read()


def _cut(line: bytes) -> tuple[bytes, bytes]:
    """Cut *line* where it is too long, between two characters."""
    at = _LONGEST
    while at > _LONGEST - 4 and line[at] & 0xC0 == 0x80:
        at -= 1
    return line[:at], line[at:]
