"""The files of a tree, found and hashed: a job that takes its time.

Law: what is told of a file was read from it. Links are not followed, other file systems
not entered, files that cannot be read are counted and left out, and the digest of the
whole is the one that ``sha256sum`` gives. Everything here blocks, and gives way after a
tenth of a second.
"""

from __future__ import annotations

__all__ = ("index",)

import hashlib
import itertools
import os
import time
from collections import defaultdict, deque
from collections.abc import Generator, Iterator
from typing import Final

from .tree import Copies, Progress, Scan, Sized, Summary, Tree, shown

_SLICE: Final = 0.1
"""Seconds of work between two events, at most."""

_LEAST: Final = 64 * 1024
"""Bytes of work between two events, at least."""

_READ: Final = 1024 * 1024

_WINDOW: Final = 1.0
"""Seconds that the rate is over."""

_TOP: Final = 5


def index(
    tree: Tree, *, events: int | None = None
) -> Generator[Scan | Progress | Summary]:
    """Find and hash the files of *tree*, and yield how far it is.

    Args:
        tree: What to hash.
        events: How many events to divide the work into, about; None for as few as
            there are slices of time in it.
    """
    return _Index(tree, events).run()


class _Index:
    """One job: its counts, and the steps that change them."""

    def __init__(self, tree: Tree, events: int | None) -> None:
        self.tree = tree
        self.events = events
        self.numbers = itertools.count(1)
        self.unreadable = 0
        self.limited = False
        self.found: list[tuple[str, int]] = []
        self.done = 0
        self.done_bytes = 0
        self.total = 0
        self.total_bytes = 0
        self.current = ""
        self.sizes: list[tuple[int, str]] = []
        self.by_content: defaultdict[bytes, list[str]] = defaultdict(list)
        self.digest = hashlib.sha256()
        self.began = self.resumed = time.monotonic()
        self.past: deque[tuple[float, int]] = deque()

    def run(self) -> Generator[Scan | Progress | Summary]:
        for event in self._steps():
            yield event
            # What lies between two steps is not work.
            self.resumed = time.monotonic()

    def _steps(self) -> Iterator[Scan | Progress | Summary]:
        for path, size in self._walk():
            if len(self.found) == self.tree.most:
                self.limited = True
                break
            self.found.append((path, size))
            self.total += 1
            self.total_bytes += size
            if self._slice_is_over():
                yield self._scan()
        self.past.append((time.monotonic(), 0))
        yield self._scan()
        # As `sort` does under LC_ALL=C: by bytes.
        self.found.sort(key=lambda item: os.fsencode(item[0]))
        # A file counts as much as its bytes do, on the whole, so that neither one huge
        # file nor a thousand tiny ones take most of the events.
        mean = self.total_bytes / max(1, self.total)
        work = 2 * self.total_bytes
        most = max(_LEAST, work // self.events if self.events else work)
        due: float = most
        for path, size in self.found:
            for _ in self._hash(path, size, min(_READ, most)):
                worked = self.done_bytes + self.done * mean
                if worked >= due or self._slice_is_over():
                    due = worked + most
                    yield self._progress()
        yield self._progress()
        yield self._summary()

    def _walk(self) -> Iterator[tuple[str, int]]:
        """Yield the files below the root, as paths with slashes, and their sizes."""
        folders = [""]
        device: int | None = None
        while folders:
            folder = folders.pop()
            place = self.tree.root / folder
            try:
                # There are files in /proc whose end never comes.
                found = os.stat(place).st_dev
                device = found if device is None else device
                if found != device:
                    continue
                with os.scandir(place) as entries:
                    for entry in entries:
                        path = f"{folder}/{entry.name}" if folder else entry.name
                        if entry.is_dir(follow_symlinks=False):
                            if entry.name not in self.tree.skip:
                                folders.append(path)
                        elif entry.is_file(follow_symlinks=False):
                            yield path, entry.stat(follow_symlinks=False).st_size
            except OSError:
                self.unreadable += 1

    def _hash(self, path: str, size: int, most: int) -> Iterator[None]:
        """Read a file, and yield after each part of it."""
        content, length = hashlib.sha256(), 0
        self.current = path
        try:
            with open(self.tree.root / path, "rb", buffering=0) as file:
                while data := file.read(most):
                    content.update(data)
                    length += len(data)
                    self.done_bytes += len(data)
                    yield
        except OSError:
            self.done_bytes -= length
            self.total -= 1
            self.total_bytes -= size
            self.unreadable += 1
            return
        # It may have changed since it was found.
        self.total_bytes += length - size
        self.done += 1
        self.sizes.append((length, path))
        self.by_content[content.digest()].append(path)
        self.digest.update(_sum_line(content.hexdigest(), path))
        yield

    def _slice_is_over(self) -> bool:
        return time.monotonic() - self.resumed >= _SLICE

    def _scan(self) -> Scan:
        root = shown(str(self.tree.root))
        return Scan(next(self.numbers), root, self.total, self.total_bytes)

    def _progress(self) -> Progress:
        now = time.monotonic()
        while len(self.past) > 1 and self.past[1][0] <= now - _WINDOW:
            self.past.popleft()
        then, done_then = self.past[0]
        rate = max(0, self.done_bytes - done_then) / max(now - then, 1e-6)
        self.past.append((now, self.done_bytes))
        return Progress(
            n=next(self.numbers),
            files=self.done,
            files_total=self.total,
            bytes=self.done_bytes,
            bytes_total=self.total_bytes,
            current=shown(self.current),
            rate=round(rate, 1),
            seconds=round(now - self.began, 3),
        )

    def _summary(self) -> Summary:
        size_of = {path: size for size, path in self.sizes}
        groups = [
            (size_of[paths[0]], paths)
            for paths in self.by_content.values()
            if len(paths) > 1 and size_of[paths[0]]
        ]
        groups.sort(key=lambda group: group[0] * (len(group[1]) - 1), reverse=True)
        complete = self.done and not (self.unreadable or self.limited)
        return Summary(
            n=next(self.numbers),
            files=self.done,
            bytes=self.done_bytes,
            seconds=round(time.monotonic() - self.began, 3),
            unreadable=self.unreadable,
            limited=self.limited,
            largest=[
                Sized(shown(path), size)
                for size, path in sorted(self.sizes, reverse=True)[:_TOP]
            ],
            copies=[
                Copies(size, len(paths), [shown(path) for path in paths[:_TOP]])
                for size, paths in groups[:_TOP]
            ],
            groups=len(groups),
            spare=sum(size * (len(paths) - 1) for size, paths in groups),
            digest=self.digest.hexdigest(),
            command=self.tree.command if complete else None,
        )


def _sum_line(digest: str, path: str) -> bytes:
    """Return the line that ``sha256sum ./path`` prints."""
    name = os.fsencode(f"./{path}")
    quoted = name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n")
    mark = b"\\" if quoted != name else b""
    return mark + digest.encode() + b"  " + quoted + b"\n"
