"""A tree of files, and what is told of it while it is hashed.

Law: values alone. What is told is text and numbers, also of a file whose name is no
text; and with the digest of the whole the command which gives the same one, so that
anybody can check it.
"""

from __future__ import annotations

__all__ = ("Copies", "Progress", "Scan", "Sized", "Summary", "Tree", "shown")

import os
import shlex
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Tree:
    """What to hash.

    Attributes:
        root: Where it begins.
        skip: Names of folders that are left out.
        most: The most files; those found first.
    """

    root: Path
    skip: tuple[str, ...] = ()
    most: int = 100_000

    @property
    def command(self) -> str:
        """What gives the same digest in a shell."""
        pruned = " -o ".join(f"-name {shlex.quote(name)}" for name in self.skip)
        leaving_out = f" \\( {pruned} \\) -prune -o" if pruned else ""
        return (
            f"cd {shlex.quote(shown(str(self.root)))} && "
            f"find . -xdev{leaving_out} -type f -print0 | LC_ALL=C sort -z | "
            "xargs -0 sha256sum | sha256sum"
        )


@dataclass(frozen=True, slots=True)
class Scan:
    """What was found so far; the files are not read yet.

    Attributes:
        n: The event's number in this run, from 1.
        root: Where the tree begins.
        files: How many files there are.
        bytes: How many bytes they have.
    """

    n: int
    root: str
    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Progress:
    """What was read so far.

    Attributes:
        n: The event's number in this run.
        files: How many files are done.
        files_total: Of how many.
        bytes: How many bytes are done.
        bytes_total: Of how many.
        current: The file that was read last.
        rate: Bytes a second, over the last second or a little more.
        seconds: Since the job began.
    """

    n: int
    files: int
    files_total: int
    bytes: int
    bytes_total: int
    current: str
    rate: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Sized:
    """A file and its bytes."""

    path: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Copies:
    """Files with the same content.

    Attributes:
        bytes: What each has.
        count: How many there are.
        paths: The first of them.
    """

    bytes: int
    count: int
    paths: list[str]


@dataclass(frozen=True, slots=True)
class Summary:
    """What the job has found.

    Attributes:
        n: The event's number in this run.
        files: How many files were read.
        bytes: How many bytes.
        seconds: How long it took.
        unreadable: How many files and folders could not be read.
        limited: Whether there are more files than were read.
        largest: The largest files.
        copies: Files with the same content, those first that take the most; empty
            ones left aside.
        groups: How many such groups there are.
        spare: The bytes of all copies but one of each.
        digest: SHA-256 of the list that ``sha256sum`` makes of the tree.
        command: What gives the same digest in a shell; None where some files were
            left out, or there is none.
    """

    n: int
    files: int
    bytes: int
    seconds: float
    unreadable: int
    limited: bool
    largest: list[Sized]
    copies: list[Copies]
    groups: int
    spare: int
    digest: str
    command: str | None


def shown(path: str) -> str:
    """Return *path* as text: a name may have bytes that are none."""
    return os.fsencode(path).decode(errors="replace")
