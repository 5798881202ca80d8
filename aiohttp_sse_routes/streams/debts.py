"""Writes that take longer than a turn of the loop may: what is left is owed.

Law: the loop gets its turn every few milliseconds, however many readers there are. Who
is not reached by then is owed the same bytes, and is written to in the next turns; it
stays at the place before until then. A reader is owed one chunk at most: where more
comes for it in the meantime, it is behind, and reads on by itself.
"""

from __future__ import annotations

__all__ = ("Debt", "Debts")

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from .reader import Reader
from .slices import CHECK_EVERY, Slice

Send = Callable[[bytes], object]


class Debt:
    """A chunk that some readers are yet to be written.

    Attributes:
        size: Its bytes. They count as written to the readers already.
        events: The events in it, which count as well.
        place: The place that the readers are at until then.
    """

    __slots__ = ("chunk", "events", "gone", "next", "place", "readers", "sends", "size")

    def __init__(
        self,
        readers: Sequence[Reader],
        sends: Sequence[Send],
        first: int,
        chunk: bytes,
        place: int,
        events: int,
    ) -> None:
        # Side by side, not in pairs: new pairs for thousands of readers are work for
        # the garbage collector, which then looks at all that these are made of.
        self.readers = readers
        self.sends = sends
        self.chunk = chunk
        self.size = len(chunk)
        self.place = place
        self.events = events
        self.next = first  # among the readers
        self.gone: set[Reader] = set()  # who are not to be written it any more


class Debts:
    """What live readers are owed, those first who were owed first."""

    def __init__(self) -> None:
        self._debts: deque[Debt] = deque()
        self._owed: dict[Reader, tuple[Debt, int]] | None = None
        self._loop = asyncio.get_running_loop()

    def __bool__(self) -> bool:
        return bool(self._debts)

    def of(self, reader: Reader) -> Debt | None:
        """Return what *reader* is owed."""
        if not self._debts:
            return None
        if self._owed is None:
            # Rarely asked: whoever leaves, or more comes for, between two turns.
            self._owed = {
                reader: (debt, index)
                for debt in self._debts
                for index, reader in enumerate(debt.readers)
                if index >= debt.next and reader not in debt.gone
            }
        debt, index = self._owed.get(reader, (None, 0))
        return debt if debt is not None and index >= debt.next else None

    def among(self, readers: Iterable[Reader]) -> list[Reader]:
        """Return those of *readers* that are owed anything."""
        if not self._debts:
            return []
        return [reader for reader in readers if self.of(reader) is not None]

    def forgive(self, reader: Reader) -> Debt | None:
        """Return what *reader* is owed, and owe it no more."""
        debt = self.of(reader)
        if debt is not None and self._owed is not None:
            debt.gone.add(reader)
            del self._owed[reader]
        return debt

    def write(
        self,
        readers: Sequence[Reader],
        sends: Sequence[Send],
        chunk: bytes,
        place: int,
        events: int = 1,
        *,
        within: Slice,
    ) -> None:
        """Write *chunk* to *readers*, and owe it to those who are not reached.

        Args:
            readers: Who are owed nothing; not to be changed any more.
            sends: How to write to each.
            chunk: What.
            place: The place that each is at until it is written to.
            events: How many events *chunk* is.
            within: What there is time for.
        """
        for start in range(0, len(sends), CHECK_EVERY):
            part = sends[start : start + CHECK_EVERY]
            if not within.has_room(len(part)):
                self._owe(Debt(readers, sends, start, chunk, place, events))
                return
            for send in part:
                send(chunk)

    def _owe(self, debt: Debt) -> None:
        if not self._debts:
            self._loop.call_soon(self._pay)
        self._debts.append(debt)
        self._owed = None

    def _pay(self) -> None:
        """Write on, for as long as a turn may take."""
        turn = Slice(self._loop)
        while self._debts:
            debt = self._debts[0]
            for index in range(debt.next, len(debt.sends)):
                if index % CHECK_EVERY == 0 and not turn.has_room(CHECK_EVERY):
                    self._loop.call_soon(self._pay)
                    return
                # Before the write: a pause within it asks who is owed.
                debt.next = index + 1
                if debt.readers[index] not in debt.gone:
                    debt.sends[index](debt.chunk)
            self._debts.popleft()
            self._owed = None
        self._owed = None
