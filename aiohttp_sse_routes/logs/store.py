"""What a store promises: the log that channels are published to.

Law: the sentences of `Store` are the contract. Every store passes the one test suite
that holds them, and nothing above relies on more. A store gives out events in the order
of their numbers and says exactly what it no longer has; it never waits for a reader.
"""

from __future__ import annotations

__all__ = ("IDEMPOTENCY_SECONDS", "Follower", "Store")

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from .entry import Appended, Bounds, Draft, Entry, Fence, Lease, Lineage, Page
from .tail import Tail

IDEMPOTENCY_SECONDS: Final = 300
"""Seconds that a repeated ``idempotency_key`` of a channel publishes nothing new."""


class Follower(Protocol):
    """Who is told what happens in a log; always on the event loop."""

    def on_lineage(self, lineage: Lineage, *, reset: bool) -> None:
        """Learn that the log has another generation, or is known for the first time.

        Args:
            lineage: The generations now.
            reset: Whether the log is another one, so that no place in the old one
                means anything; else the old one is in ``lineage.forks``.
        """

    def on_entries(self, entries: Sequence[Entry], blocks: Sequence[bytes]) -> None:
        """Learn of new entries, which are in the store's tail already.

        Args:
            entries: In order, above all before.
            blocks: Each entry's block with its ``id`` line.
        """

    def on_missed(self, floors: Mapping[str, int]) -> None:
        """Learn that entries were gone before they came; the store's tail knows it.

        Args:
            floors: The newest number that is gone, by channel.
        """

    def on_lost(self, channels: Mapping[str, int]) -> None:
        """Learn that entries which had been given out are lost by a fork.

        Args:
            channels: The newest lost number by channel.
        """


class Store(ABC):
    """Where channels keep their events.

    **Order.** An append gives its events the next numbers of one sequence for all
    channels, without another's between them. Whoever reads gets a channel's events in
    that order, and never one below a number that it was given before.

    **Atomicity.** An append is in the log whole or not at all. When `append` returns,
    it is there, for every process; how safely, says the store's own documentation.
    When it raises `StoreUnavailable` it may or may not be, unless an
    ``idempotency_key`` was given: a repetition with the same key publishes at most
    once.

    **Gaps.** The store knows of each channel the newest number that is gone, also when
    nothing of it is left. `read` says so if and only if something behind the place
    asked for is gone; where it can no longer tell, because it forgot about the channel
    altogether, it says that something is.

    **Following.** While it is open with a follower, the store hands every entry of
    every channel to it, in order, each once, by `deliver`. What was gone before it
    could be seen is told by `miss`, before anything that came later. It notices by
    itself that its server was away, and goes on from where it was.

    **Leases.** At most one holder at a time has a lease whose time has not run out, and
    an append with a `Fence` whose lease has run out, or has another holder, appends
    nothing and raises `LeaseLost`. Time is the store's, not the asker's.

    **Blocking.** No method blocks the event loop: whatever waits for a disk or a
    network does so in an await, or in a thread. Cancelling an await leaves the store
    as usable as before.

    **Life.** A store is opened and closed by its application, in the process and the
    loop that use it, and never at construction; it may be opened again after it was
    closed. Everything that it raises for reasons of its own is a `StoreError`.

    Args:
        bounds: What a channel holds.
        memory: The most bytes of the log's newest part that the process keeps in
            memory, so that replay and slow clients need not ask the store.

    Attributes:
        tail: The newest part of the log, in memory.
        lineage: The generations; None until the log was reached for the first time.
        complete: Whether the tail is all there is, so that `read` is never needed.
        shared: Whether other processes may append to the same log.
    """

    complete: bool = False
    shared: bool = True

    def __init__(self, bounds: Bounds, *, memory: int) -> None:
        self.bounds = bounds
        self.lineage: Lineage | None = None
        self.tail = Tail(bounds, max_total_bytes=memory)
        self._follower: Follower | None = None
        self._gone: dict[str, int] = {}  # what was told to be gone, above the head

    # -- what a store does -----------------------------------------------------------

    @abstractmethod
    async def open(
        self, follower: Follower | None, *, now: Callable[[], float]
    ) -> None:
        """Begin. With a *follower*, hand every entry from now on to it.

        A store that cannot be reached now says so in the log, and goes on trying: it
        calls `begin` when it has. One that never could be, for a wrong password or a
        wrong path, raises.

        Args:
            follower: Who follows; None in a process that only publishes.
            now: The application's clock: seconds that never go back.

        Raises:
            StoreError: it cannot work as it was configured, or is open already.
        """

    @abstractmethod
    async def close(self) -> None:
        """End; nothing is handed on any more. Closing twice is closing once."""

    @abstractmethod
    async def append(
        self,
        channel: str,
        drafts: Sequence[Draft],
        *,
        idempotency_key: str | None = None,
        fence: Fence | None = None,
        bounds: Bounds | None = None,
    ) -> Appended:
        """Append *drafts*, at least one, to *channel*; return when they are in the log.

        Args:
            channel: The channel's name.
            drafts: The events.
            idempotency_key: If the same key was given for this channel within the last
                300 s, nothing is appended, and the answer is what it was then.
            fence: The lease under which alone it may be done.
            bounds: What this channel holds, in place of the store's own bounds; their
                ``max_age`` is the store's.

        Raises:
            StoreUnavailable: the log cannot be written now; the text says why.
            LeaseLost: *fence* is not, or no longer, the holder's.
        """

    @abstractmethod
    async def read(
        self, channels: Sequence[str], after: int, through: int, *, limit: int
    ) -> Page:
        """Return entries of *channels* behind *after*, through *through*.

        Args:
            channels: Names, none twice.
            after: The place, in the present generation's numbers.
            through: The last number to return; not above the log's head.
            limit: About how many bytes to return; one entry is returned at least, if
                there is any.

        Raises:
            StoreUnavailable: the log cannot be read now.
        """

    @abstractmethod
    async def newest(self, channels: Sequence[str], count: int, through: int) -> int:
        """Return the place from which the newest *count* entries are read.

        Of all *channels* together, of what is retained, through *through*.

        Raises:
            StoreUnavailable: the log cannot be read now.
        """

    @abstractmethod
    async def head(self) -> int:
        """Return the newest number of the log, of whatever channel.

        If the log has begun anew, and nobody has noticed here yet, it is noticed now:
        `begin` was called when this returns.

        Raises:
            StoreUnavailable: the log cannot be read now.
        """

    @abstractmethod
    async def lease(
        self, name: str, holder: str, seconds: float, *, wanted: bool
    ) -> Lease:
        """Ask for the lease *name*, or renew it, for *seconds* from now.

        Args:
            name: What it is for.
            holder: Who asks: a text that no other asker has.
            seconds: How long it is given.
            wanted: Whether the asker wants somebody to hold it; noted for the holder.

        Raises:
            StoreUnavailable: the log cannot be written now.
        """

    @abstractmethod
    async def release(self, fence: Fence) -> None:
        """Give a lease back before its time; nothing if it is another's by now.

        Raises:
            StoreUnavailable: the log cannot be written now.
        """

    def refresh(self) -> None:  # noqa: B027 -- the tick is often enough for most
        """Drop what is too old by now: somebody begins to read.

        Nothing by default, for `tick` does it within a second or two.
        """

    def tick(self, now: float) -> None:
        """Do what is due at *now*, about once a second, by the application's clock."""
        self.tail.expire(now)

    # -- what a store tells, by these alone --------------------------------------------

    def begin(self, lineage: Lineage, head: int) -> None:
        """Note that the log is at *head*, in a generation of *lineage*.

        To be called when the log was reached for the first time, and whenever its
        generation has changed, before any entry of that.
        """
        known, self.lineage = self.lineage, lineage
        reset = known is None or (
            known.generation != lineage.generation
            and known.generation not in lineage.forks
        )
        if reset:
            self._gone.clear()
        self.tail.begin(lineage.cursor(0)[:-1], head, reset=reset)
        if self._follower is not None:
            self._follower.on_lineage(lineage, reset=reset)

    def deliver(self, entries: Sequence[Entry], bounds: Bounds | None = None) -> None:
        """Hand on *entries*, in order, each above all that were handed on before.

        What turns up of a channel after it was told to be gone stays so.

        Args:
            entries: They.
            bounds: What their channel holds, where that is known to be another bound.
        """
        if self._gone:
            entries = self._left(entries)
            if not entries:
                return
        blocks = [self.tail.add(entry, bounds) for entry in entries]
        if self._follower is not None:
            self._follower.on_entries(entries, blocks)

    def miss(self, floors: Mapping[str, int]) -> None:
        """Note entries that were gone before they could be handed on.

        To be called before any later entry is handed on, so that nobody is told a place
        behind a hole that was not told.

        Args:
            floors: By channel, the newest number that is gone, of those that are above
                what was handed on.
        """
        for name, through in floors.items():
            self.tail.miss(name, through)
            if through > max(self.tail.head, self._gone.get(name, 0)):
                self._gone[name] = through
        if self._follower is not None:
            self._follower.on_missed(floors)

    def _left(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Return those of *entries* that were not told to be gone."""
        gone, head = self._gone, entries[-1].seq
        self._gone = {name: seq for name, seq in gone.items() if seq > head}
        return [entry for entry in entries if entry.seq > gone.get(entry.channel, 0)]

    def lose(self, lineage: Lineage, channels: Mapping[str, int]) -> None:
        """Note that the entries of *channels* through these numbers were lost."""
        self.lineage = lineage
        if self._follower is not None:
            self._follower.on_lost(channels)
