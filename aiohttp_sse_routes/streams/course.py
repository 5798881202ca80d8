"""The course of a run that several workers share: its turns, as its log tells them.

Law: pure values, made from nothing but the marks in the log, so that every worker that
reads them comes to the same. Where marks are gone, a turn is taken to have been going
on: what cannot be told apart from a break is told as one.
"""

from __future__ import annotations

__all__ = ("OVER", "Course", "Found", "Kind", "Mark", "broken_by")

from typing import Final, Literal, NamedTuple

import msgspec

from ..cursor import Cursor
from ..logs.entry import Draft, Entry, Lineage
from .ending import Ending
from .reader import GapReason

Kind = Literal["began", "broken", "stopped", "finished", "reconnect", "refused"]
"""What became of the generator: it ``began``; it is ``broken``, and begins again; it
was ``stopped``, because nobody followed; or it is over in one of three ways."""

OVER: Final = frozenset({"finished", "reconnect", "refused"})
"""The marks at which all who follow are sent away."""

_MOST: Final = 64
"""Marks that are remembered."""


class Mark(NamedTuple):
    """An entry that tells workers what clients are told by other means.

    Attributes:
        kind: What has happened.
        after: Seconds until the clients come back, for ``reconnect``.
        ref: What they are told of a failure, for ``refused``.
        seq: Its number in the log.
    """

    kind: Kind
    after: float = 0.0
    ref: str = ""
    seq: int = 0

    @property
    def draft(self) -> Draft:
        """What is appended: a comment, which would harm nobody on the wire."""
        told = msgspec.json.encode([self.kind, self.after, self.ref])
        return Draft(b": %b\n\n" % told)

    @classmethod
    def of(cls, entry: Entry) -> Mark:
        """Return the mark that *entry* is."""
        kind, after, ref = msgspec.json.decode(entry.lines[2:])
        return cls(kind, after, ref, entry.seq)

    @property
    def ending(self) -> Ending:
        """What it tells those who follow, if it is over."""
        if self.kind == "reconnect":
            return Ending("reconnect", after=self.after)
        if self.kind == "refused":
            return Ending("failed", ref=self.ref, refused=True)
        return Ending("finished")


class Found(NamedTuple):
    """What has happened since a place.

    Attributes:
        gap: Why what comes after it is no continuation; None if it is one.
        start: With a gap: where that begins which is to be given now, if it is known.
        over: The mark at which its run is over; None if it is not.
    """

    gap: GapReason | None
    start: int
    over: Mark | None


def broken_by(before: Kind) -> GapReason:
    """Return what those are told who were there *before* it began again."""
    return "unknown" if before == "stopped" else "restarted"


class Course:
    """The newest marks of a run.

    Args:
        lineage: The log's generations.
        floor: The number of the newest mark that is gone.
    """

    def __init__(self, lineage: Lineage, floor: int = 0) -> None:
        self.floor = floor
        self._lineage = lineage
        self._marks: list[Mark] = []

    @property
    def last(self) -> int:
        """The number of the newest mark, known or gone."""
        return self._marks[-1].seq if self._marks else self.floor

    @property
    def state(self) -> Kind | None:
        """The newest mark's kind; None if there was never any."""
        if self._marks:
            return self._marks[-1].kind
        return "began" if self.floor else None

    @property
    def start(self) -> int:
        """Where that begins which a new client may be given."""
        marks = [mark.seq for mark in self._marks if mark.kind != "broken"]
        return marks[-1] if marks else self.floor

    def add(self, mark: Mark) -> None:
        """Add *mark*, which is newer than all."""
        self._marks.append(mark)
        if len(self._marks) > _MOST:
            self.floor = self._marks.pop(0).seq

    def forget(self, floor: int) -> None:
        """Note that marks through *floor* were not seen."""
        self.floor = floor
        self._marks.clear()

    def move(self, lineage: Lineage) -> None:
        """Keep what is still in the log, which has another generation."""
        if lineage is self._lineage:
            return
        before, self._lineage = self._lineage, lineage
        then = before.generation
        self._marks = [
            m for m in self._marks if lineage.place(Cursor("l", then, m.seq))
        ]
        self.floor = lineage.place(Cursor("l", then, self.floor)) or 0

    def holds(self, seq: int) -> bool:
        """Return whether the mark *seq* is still in the log."""
        return seq <= self.floor or any(mark.seq == seq for mark in self._marks)

    def find(self, place: int) -> Found:
        """Return what has happened since *place*."""
        if place < self.floor:
            return Found("unknown", 0, None)
        kind: Kind | None = "began" if self.floor else None
        gap: GapReason | None = None
        start = 0
        for mark in self._marks:
            if mark.seq > place:
                if mark.kind in OVER:
                    return Found(gap, start, mark)
                if mark.kind == "stopped":
                    return Found("unknown", 0, None)
                if mark.kind == "began":
                    start = mark.seq
                    if kind is not None and kind not in OVER:
                        gap = broken_by(kind)
            kind = mark.kind
        return Found(gap, start, None)
