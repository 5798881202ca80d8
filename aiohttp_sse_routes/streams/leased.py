"""Shared runs over workers: one of them has the generator, all follow its log.

Law: what a run is stands in the store alone: a lease says who may append, events are
what clients get, and marks, in a channel of their own, say where the generator began,
broke and ended. Every worker, the one with the generator too, tells its clients what
has come back from the store, so that all clients of a run are told the same.
"""

from __future__ import annotations

__all__ = ("LeasedRun", "LeasedRuns")

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Final

from ..cursor import Cursor, new_token
from ..errors import StoreUnavailable
from ..logs.entry import Entry
from .broker import Broker
from .course import OVER, Course, Mark, broken_by
from .following import Following
from .reader import Reader
from .resumption import Start, begin
from .runner import Runner
from .stint import Names, Plan

_logger = logging.getLogger("aiohttp_sse_routes")

_PAGE: Final = 65_536

_FAREWELL: Final = 0.5
"""Seconds that all runs have in all to give their leases back at the end."""


class LeasedRun:
    """A shared run, as one worker has to do with it.

    Args:
        plan: What it is.
        names: What it has in the store.
        broker: Who follows the store here.
        holder: Who this process is, to the store.
        now: The application's clock.
        later: Calls something with the time, in some seconds.
        on_idle: Told when this worker has nothing to do with it any more.

    Attributes:
        runner: This worker's part in having the generator.
    """

    def __init__(
        self,
        plan: Plan,
        names: Names,
        *,
        broker: Broker,
        holder: str,
        now: Callable[[], float],
        later: Callable[[float, Callable[[float], None]], None],
        on_idle: Callable[[LeasedRun], None],
    ) -> None:
        self.names = names
        self._history = plan.history
        self._channels = (names.events,)
        self._broker = broker
        self._on_idle = on_idle
        self._visits: set[object] = set()
        # Who follows, and whether a break does no harm: it has come behind that.
        self._readers: dict[Reader, bool] = {}
        self._known: Course | None = None
        self._early: list[Mark] = []
        self._lock = asyncio.Lock()
        self.runner = Runner(
            plan,
            names,
            store=broker.store,
            holder=holder,
            now=now,
            later=later,
            course=lambda: self.course,
            followed=lambda: bool(self._readers),
            on_idle=self._tidy,
        )

    # -- who has to do with it here ----------------------------------------------------

    def use(self, who: object) -> None:
        """Keep what is known of the run, for *who*."""
        self._visits.add(who)

    def let_go(self, who: object) -> None:
        """Note that *who* has left."""
        self._visits.discard(who)
        self.runner.let_go(who)
        self._tidy()

    def _tidy(self) -> None:
        if not self._visits and self.runner.idle:
            self._on_idle(self)

    def forget(self) -> None:
        """Learn no more of it."""
        self._broker.unwatch(self.names.marks)

    def join(self, who: object, reader: Reader, start: Start) -> None:
        """Let *reader*, which is *who*'s, follow from *start*."""
        if start.following.end is None:
            newcomer = start.resumed != "continued" and not self.runner.going
            self._readers[reader] = newcomer
            self.runner.joined(who)
        self._broker.join(reader, start.following, start.place)

    def leave(self, reader: Reader) -> None:
        """Let *reader* follow no more."""
        self._readers.pop(reader, None)
        self._broker.leave(reader)

    # -- what the log tells ------------------------------------------------------------

    async def known(self) -> None:
        """Return when its marks are known.

        Raises:
            StoreUnavailable: they cannot be read now.
        """
        async with self._lock:
            if self._known is None:
                await self._load()

    async def _load(self) -> None:
        broker, marks = self._broker, self.names.marks
        if not broker.ready:
            raise StoreUnavailable("the store was not reached yet: try again later")
        self._early = []
        broker.watch(marks, self._told)
        lineage, place, head = broker.lineage, 0, broker.head
        course = Course(lineage)
        while place < head:
            page = await broker.store.read((marks,), place, head, limit=_PAGE)
            floor = page.floors.get(marks, 0)
            if floor > course.last:
                course.forget(floor)
            for entry in page.entries:
                course.add(Mark.of(entry))
            place = page.place
        if broker.lineage is not lineage:
            raise StoreUnavailable("the log has just begun anew: try again")
        for mark in self._early:
            course.add(mark)
        self._known = course

    @property
    def course(self) -> Course:
        """Its course, in the log's present generation."""
        assert self._known is not None
        self._known.move(self._broker.lineage)
        return self._known

    def _told(self, entry: Entry) -> None:
        mark = Mark.of(entry)
        if self._known is None:
            self._early.append(mark)
            return
        course = self.course
        if entry.prev > course.last:
            # Some were never seen here: what has become of the run is not known.
            course.forget(entry.prev)
        before = course.state
        course.add(mark)
        if mark.kind in OVER:
            readers, self._readers = self._readers, {}
            self._broker.finish(readers, mark.seq, mark.ending)
        elif mark.kind == "began" and before is not None and before not in OVER:
            harmed = [r for r, newcomer in self._readers.items() if not newcomer]
            self._broker.skip(broken_by(before), harmed, mark.seq)
        self._readers = dict.fromkeys(self._readers, False)
        self.runner.told(mark)

    # -- where a client begins ---------------------------------------------------------

    async def enter(self, *, brought: bool, cursor: Cursor | None) -> Start:
        """Return where a client begins; see `resumption.begin`.

        Raises:
            StoreUnavailable: it cannot be known now.
        """
        start = await begin(
            self._broker,
            self._channels,
            brought=brought,
            cursor=cursor,
            history=self._history,
        )
        if start.resumed != "continued" and start.gap != "expired":
            place = max(start.place, self.course.start)
            if place != start.place:
                start = self._at(start, place)
        return self.settle(start)

    def settle(self, start: Start) -> Start:
        """Return *start* by what has become of the run since its place."""
        found = self.course.find(start.place)
        if found.gap is not None:
            place = found.start or self.course.start
            if found.over is None:
                place = max(place, self._broker.newest(self._channels, self._history))
            start = self._at(start, place)
            if start.resumed != "fresh":
                start = start._replace(gap=start.gap or found.gap, resumed="gap")
        if found.over is not None:
            start.following.end = found.over.seq, found.over.ending
        return start

    def afresh(self, start: Start) -> Start:
        """Return *start* for who has waited: at the beginning of the run."""
        place = self.course.start if self.runner.going else self._broker.head
        return self._at(start, place)

    def _at(self, start: Start, place: int) -> Start:
        forgiven = self._broker.floors(self._channels)
        following = Following(self._broker, self._channels, place, forgiven=forgiven)
        gap = None if start.gap == "expired" else start.gap
        return start._replace(place=place, following=following, gap=gap, missed={})

    def over(self, start: Start) -> Mark | None:
        """Return the mark at which the run of *start* is over, if it is."""
        return self.course.find(start.place).over

    async def has_all(self, place: int, mark: Mark) -> bool:
        """Return whether there is no event between *place* and *mark*.

        Raises:
            StoreUnavailable: it cannot be read now.
        """
        page = await self._broker.store.read(self._channels, place, mark.seq, limit=1)
        return not page.entries and not page.floors


class LeasedRuns:
    """The shared runs of one worker, whose store other workers share.

    Attributes:
        holder: Who this worker is, to the store.
    """

    def __init__(self) -> None:
        self.holder = new_token()
        self._runs: dict[Names, LeasedRun] = {}

    def __iter__(self) -> Iterator[LeasedRun]:
        return iter(tuple(self._runs.values()))

    def get(self, names: Names) -> LeasedRun | None:
        """Return the run *names*, if this worker has to do with it."""
        return self._runs.get(names)

    def add(self, run: LeasedRun) -> None:
        """Let *run* be found by its names."""
        self._runs[run.names] = run

    def remove(self, run: LeasedRun) -> None:
        """Forget *run*."""
        if self._runs.get(run.names) is run:
            del self._runs[run.names]
            run.forget()

    def tick(self, now: float) -> None:
        """Do what is due."""
        for run in self:
            run.runner.tick(now)

    def drain(self) -> None:
        """Let other workers have what is run here."""
        for run in self:
            run.runner.drain()

    async def close(self) -> None:
        """Return when all leases are given back, or it takes too long."""
        runners = [run.runner for run in self]
        for runner in runners:
            runner.part()
        try:
            async with asyncio.timeout(_FAREWELL):
                for runner in runners:
                    await runner.closed()
        except TimeoutError:
            _logger.debug("some leases are left to run out")
        for runner in runners:
            await runner.close()
